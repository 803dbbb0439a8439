"""Which devices are admitted with which credential: a file in the run folder, which a running coordinator rereads.

Only hashes of the devices' public keys are kept: nothing in the file lets anyone pose as a device. A line of it is what
became of a device, and the last one of each counts: a new one costs as much whoever has joined already.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from parityfl.core.errors import FolderError, first_line
from parityfl.files import append_line, make_folder, whole_lines, writing
from parityfl.web.secrets import write_secret
from parityfl.wire.schemas import DeviceId, Sha256
from parityfl.wire.signing import KeyPair, fingerprint

log = logging.getLogger(__name__)

FOLDER = "security"
"""Where a run folder keeps what this module needs."""

_FILE = "devices.jsonl"
_KEY = "coordinator.key"


class RefusedError(Exception):
    """A device is not admitted; the message says why and what to do."""


class Enrolled(BaseModel):
    """A device that was admitted, or is not to be.

    Attributes:
        fingerprint: SHA-256 of its public key; None where it was revoked before it came.
        status: whether it may take part.
        since: when that was decided.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: Sha256 | None
    status: Literal["allowed", "revoked"] = "allowed"
    since: str


class _Line(RootModel[dict[DeviceId, Enrolled | None]]):
    """A line of the file: what became of devices; None: they may join anew."""


class Enrolment:
    """The devices of one run.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._folder = run / FOLDER
        self._path = self._folder / _FILE
        self._stamp: tuple[int, int, int] | None = None
        self._devices: dict[str, Enrolled] | None = None
        self._fault = ""

    @property
    def exists(self) -> bool:
        """Whether a coordinator with credentials has served this run."""
        return self._folder.is_dir()

    def coordinator_key(self) -> KeyPair:
        """Return the key by which devices know this run's coordinator again; made when there is none.

        Raises:
            FolderError: the file is damaged, or cannot be written.
        """
        make_folder(self._folder)
        path = self._folder / _KEY
        try:
            return KeyPair.from_hex(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            pair = KeyPair.new()
            write_secret(path, pair.hex())
            return pair
        except (OSError, ValueError) as error:
            raise FolderError(f"{path} holds no key ({error}): restore it, or remove it for a new one") from None

    def retire(self) -> None:
        """Remove that key: the run is over, and its folder may go wherever results go."""
        (self._folder / _KEY).unlink(missing_ok=True)

    def devices(self) -> dict[str, Enrolled]:
        """Return all devices by name, as they are now.

        Raises:
            FolderError: the file is damaged.
        """
        try:
            stamp = self._read_stamp()
            if self._devices is None or stamp != self._stamp:
                self._devices, self._stamp = self._read(), stamp
        except FileNotFoundError:
            self._devices, self._stamp = {}, None
        except (OSError, ValidationError) as error:
            raise FolderError(
                f"{self._path} cannot be read ({first_line(error)}): restore it, or remove it to begin anew"
            ) from None
        return self._devices

    def known(self) -> dict[str, Enrolled]:
        """Return all devices by name, as they were last where the file has been damaged since, which is logged.

        Raises:
            FolderError: the file is damaged and has never been read.
        """
        try:
            devices, fault = self.devices(), ""
        except FolderError as error:
            if self._devices is None:
                raise
            devices, fault = self._devices, str(error)
        if fault and fault != self._fault:
            log.error("%s; until then every device stays as it was", fault)
        self._fault = fault
        return devices

    def is_revoked(self, device_id: str) -> bool:
        """Return whether a device may no longer take part."""
        enrolled = self.known().get(device_id)
        return enrolled is not None and enrolled.status == "revoked"

    def revoked(self) -> list[str]:
        """Return the devices that may no longer take part."""
        return [name for name, enrolled in self.known().items() if enrolled.status == "revoked"]

    def check(self, device_id: str, key: str) -> bool:
        """Return whether a device is enrolled with this public key; False where it is not enrolled at all.

        Raises:
            RefusedError: it is enrolled with another key, or revoked.
        """
        enrolled = self.known().get(device_id)
        if enrolled is None:
            return False
        if enrolled.status == "revoked":
            raise RefusedError(f"device {device_id!r} is revoked; `parityfl devices allow {self._run} {device_id}`")
        if not compare_digest(enrolled.fingerprint or "", fingerprint(key)):
            raise RefusedError(
                f"device {device_id!r} has joined with another credential: give it the folder that it had with "
                f"--state, or let it join anew with `parityfl devices allow {self._run} {device_id}`"
            )
        return True

    def enrol(self, device_id: str, key: str) -> None:
        """Remember a new device's credential.

        Raises:
            RefusedError: it is enrolled with another key, or revoked.
        """
        with self._changing():
            if not self.check(device_id, key):
                self._write(device_id, Enrolled(fingerprint=fingerprint(key), since=_now()))

    def revoke(self, device_id: str) -> None:
        """Take part no longer; also for one that has never come."""
        with self._changing() as devices:
            known = devices.get(device_id)
            print_ = None if known is None else known.fingerprint
            self._write(device_id, Enrolled(fingerprint=print_, status="revoked", since=_now()))

    def allow(self, device_id: str) -> None:
        """Let a device join anew, with whatever credential it then has.

        Raises:
            FolderError: there is no such device.
        """
        with self._changing() as devices:
            if device_id not in devices:
                raise FolderError(f"device {device_id!r} has not joined {self._run}: it may join as it is")
            self._write(device_id, None)

    def _read_stamp(self) -> tuple[int, int, int]:
        """Return what tells one content of the file from another."""
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> dict[str, Enrolled]:
        latest: dict[str, Enrolled | None] = {}
        for line in whole_lines(self._path):
            latest.update(_Line.model_validate_json(line).root)
        return {name: enrolled for name, enrolled in latest.items() if enrolled is not None}

    @contextmanager
    def _changing(self) -> Iterator[Mapping[str, Enrolled]]:
        """Yield the devices, which nobody else changes meanwhile.

        Raises:
            FolderError: the file is damaged, or cannot be written.
        """
        make_folder(self._folder)
        path = self._folder / "lock"
        with ExitStack() as held:
            with writing(path):
                fcntl.flock(held.enter_context(path.open("w")), fcntl.LOCK_EX)
            yield self.devices()

    def _write(self, device_id: str, enrolled: Enrolled | None) -> None:
        """Write what became of a device, within `_changing`."""
        line = _Line.model_construct({device_id: enrolled}).model_dump_json()
        with writing(self._path):
            append_line(self._path, line.encode(), 0o600, durable=True)
        assert self._devices is not None, "it was read"
        if enrolled is None:
            del self._devices[device_id]
        else:
            self._devices[device_id] = enrolled
        self._stamp = self._read_stamp()  # so that what was just written is not read again


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
