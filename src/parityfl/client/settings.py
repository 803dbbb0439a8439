"""How a process of devices is called on the command line, made plain."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import httpx

from parityfl.core.errors import ConfigError
from parityfl.files import file_in_the_way
from parityfl.web.server import is_loopback
from parityfl.web.tls import Tls
from parityfl.wire.schemas import DEVICE_NAME, MAX_DEVICES, MAX_PORT
from parityfl.wire.signing import Token

DEFAULT_COORDINATOR_PORT = 8080

_HOST = re.compile(r"[^\s/]{1,253}")
_RANGE = re.compile(r"(.*?)(\d+)\.\.(.*?)(\d+)")


@dataclass(frozen=True)
class Settings:
    """What a process of devices needs to know before it has spoken to a coordinator.

    Attributes:
        server: the coordinator's address, from `server_url`.
        device_ids: the devices of this process, from `parse_devices`.
        port: where to listen; 0 takes a free port.
        host: the address to listen on; None: loopback for a coordinator on loopback, else all addresses.
        advertise: the host that the coordinator should call; None: the address that it sees.
        patience_s: how long to wait for an absent coordinator.
        state: the folder for what devices keep between rounds; None keeps it in memory only.
        data: the devices' own data, from which nothing but counts is ever told; None: the run shares out a data set.
        pull: whether the devices ask for their requests instead of listening for them.
        token: the join token, for a coordinator that asks for it.
        tls: how to encrypt.

    Raises:
        ConfigError: `advertise` is no host, `patience_s` is no length of time, or `state` cannot be a folder.
    """

    server: str
    device_ids: tuple[str, ...]
    port: int = 5000
    host: str | None = None
    advertise: str | None = None
    patience_s: float = 60.0
    state: Path | None = None
    data: Path | None = None
    pull: bool = False
    token: Token | None = None
    tls: Tls = field(default_factory=Tls)

    def __post_init__(self) -> None:
        if self.advertise is not None and not _HOST.fullmatch(self.advertise):
            raise ConfigError(f"--advertise {self.advertise!r}: name the host or address that reaches this device")
        if not 0 <= self.patience_s < inf:
            raise ConfigError(f"--patience {self.patience_s:g}: give a number of seconds, 0 or more")
        file = None if self.state is None else file_in_the_way(self.state)
        if file is not None:
            raise ConfigError(f"--state {self.state} needs a folder, and {file} is a file: choose another --state")

    @property
    def listen_host(self) -> str:
        """The address to listen on, of the kind of address that the coordinator has."""
        if self.host is not None:
            return self.host
        server = httpx.URL(self.server).host
        loopback, everywhere = ("::1", "::") if ":" in server else ("127.0.0.1", "0.0.0.0")  # noqa: S104 - it is called
        return loopback if is_loopback(server) else everywhere


def server_url(text: str) -> str:
    """Return the coordinator's address from a URL, a host, or host:port.

    Raises:
        ConfigError: it is none of these.
    """
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or any(map(str.isspace, text)):
        raise ConfigError(f"--server {text!r}: write a host, host:port, or a URL such as http://10.0.0.5:8080")
    if url.port is not None and not 1 <= url.port <= MAX_PORT:
        raise ConfigError(f"--server {text!r}: there is no port {url.port}: name the coordinator's, 1 to {MAX_PORT}")
    if "://" not in text and url.port is None:
        url = url.copy_with(port=DEFAULT_COORDINATOR_PORT)
    return str(url).rstrip("/")


def check_name(name: str) -> None:
    """Raise ConfigError unless a device can be called so."""
    if not re.fullmatch(DEVICE_NAME, name):
        raise ConfigError(f"device {name!r}: use 1 to 64 of the characters A-Z a-z 0-9 . _ -")


def parse_devices(text: str) -> tuple[str, ...]:
    """Return the names of a list such as ``h0,h1`` or ``h0..h9,phone``.

    Raises:
        ConfigError: a name or a range is malformed, a name occurs twice, or there are more than `MAX_DEVICES`.
    """
    names = [name for part in text.split(",") for name in _expand(part.strip())]
    _check_number(len(names))
    for name in names:
        check_name(name)
    if len(set(names)) != len(names):
        raise ConfigError(f"--devices {text!r} names a device twice")
    return tuple(names)


def _expand(part: str) -> list[str]:
    if ".." not in part:
        return [part]
    match = _RANGE.fullmatch(part)
    prefix, first, again, last = match.groups() if match else ("", "0", "", "")
    if not last or again not in ("", prefix) or int(last) < int(first):
        raise ConfigError(f"--devices {part!r} is no range: write such as h0..h9")
    _check_number(int(last) - int(first) + 1)  # before they are written out
    digits = len(first) if first.startswith("0") else 1  # cam01..cam10 counts as it is written
    return [f"{prefix}{number:0{digits}d}" for number in range(int(first), int(last) + 1)]


def _check_number(count: int) -> None:
    if count > MAX_DEVICES:
        raise ConfigError(
            f"--devices names {count:,} devices, and one call takes at most {MAX_DEVICES:,}: name the others in another"
        )
