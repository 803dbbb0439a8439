"""Where devices may be called: a registration names an address, and the coordinator does not call just any."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from parityfl.core.errors import ConfigError
from parityfl.web.problems import ProblemError

Address = IPv4Address | IPv6Address
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a name, none where it has none."""

ANY = "*"

METADATA = tuple(
    map(ip_address, ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"))
)
"""Where clouds answer machines' questions about themselves, credentials among them: never a device."""


async def resolve(name: str) -> list[str]:
    """Return the addresses of a name."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


class Addresses:
    """Which addresses a device may be called at: its own, and those of the hosts that it may name.

    Args:
        allowed: names, addresses or networks such as ``10.0.0.0/8`` that devices may name; ``*`` for any.
        resolve: finds the addresses of a name.

    Raises:
        ConfigError: an entry is malformed.
    """

    def __init__(self, allowed: Sequence[str] = (), resolve: Resolve = resolve) -> None:
        networks = {text: _network(text) for text in allowed}
        self._names = frozenset(text.lower() for text, network in networks.items() if network is None)
        self._networks = tuple(network for network in networks.values() if network is not None)
        self._resolve = resolve

    async def target(self, named: str | None, peer: str) -> str:
        """Return the address at which to call a device, once it is certain that it may be called there.

        A name is looked up here and now, and its address is what is called: what it means later does not count.

        Args:
            named: the host in the registration, None where it names none.
            peer: the address that the registration came from.

        Raises:
            ProblemError: the device may not be called there.
        """
        sender = _address(peer)
        if named is None or named == peer:
            return self._checked(sender, sender, peer)
        for text in await self._addresses(named):
            address = _address(text)
            if address == sender or (address.is_loopback and sender.is_loopback):
                return self._checked(sender, sender, peer)
            if self._is_allowed(named, address):
                return self._checked(address, sender, named)
        raise ProblemError(
            403,
            f"host {named!r} is not the address {peer} that the device calls from: leave host out, or allow it with "
            f"--allow-host {named}",
        )

    async def _addresses(self, named: str) -> Sequence[str]:
        if _literal(named) is not None:
            return [named]
        found = await self._resolve(named)
        if not found:
            raise ProblemError(403, f"host {named!r} has no address here: name one that the coordinator can look up")
        return found

    def _is_allowed(self, named: str, address: Address) -> bool:
        return bool({named.lower(), ANY} & self._names) or self._is_listed(address)

    def _is_listed(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _checked(self, address: Address, sender: Address, named: str) -> str:
        """Refuse what no device is: this machine itself for others, the link's own addresses, the cloud's."""
        kinds = {
            "this machine's own": address.is_loopback and not sender.is_loopback,
            "a cloud's metadata service": ip_address(str(address).partition("%")[0]) in METADATA,
            "only valid on one link": address.is_link_local and not self._is_listed(address),
            "that of no machine": address.is_unspecified or address.is_multicast,
        }
        for kind, holds in kinds.items():
            if holds:
                raise ProblemError(403, f"host {named!r} is {kind} address: a device cannot be called there")
        return str(address)


def _address(text: str) -> Address:
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _literal(text: str) -> Address | None:
    try:
        return _address(text)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    """Return the network that an entry is, or None where it is a name."""
    try:
        return ip_network(text)
    except ValueError:
        if "/" in text or not text.strip():
            raise ConfigError(f"--allow-host {text!r}: name a host, an address, or a network as 10.0.0.0/8") from None
        return None
