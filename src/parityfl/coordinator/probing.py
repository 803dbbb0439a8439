"""Whether devices that listen answer where they are called, which their own reports cannot show."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import httpx

from parityfl.config import Rounds
from parityfl.coordinator.device_registry import DeviceRegistry, Member
from parityfl.coordinator.devices import Devices
from parityfl.core.errors import first_line

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 32
"""How many heartbeats pass at most between two probes of a device that does not answer."""


class Prober:
    """Probes the devices that have not answered where they registered; until they do they are not selected.

    A device is probed at once when it registers at a new address and when it was unreachable; while it does not answer,
    again after 1, 2, 4, ... 32 heartbeats.

    Args:
        registry: tells who has yet to answer, and is told who has.
        devices: calls them.
        rounds: tells how long a heartbeat is, and how long an answer may take: as long as to accept a connection.
        clock: monotonic seconds.
    """

    def __init__(self, registry: DeviceRegistry, devices: Devices, rounds: Rounds, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._devices = devices
        self._heartbeat_s = rounds.heartbeat_s
        self._patience_s = rounds.connect_timeout_s
        self._clock = clock
        self._rests: dict[tuple[str, str], tuple[float, float]] = {}
        """By name and address of a device that did not answer: when it is probed again, and how long it rests then."""
        self._probes: dict[str, asyncio.Task[None]] = {}

    def look(self) -> None:
        """Begin the probes that are due."""
        waiting = self._registry.unreached()
        known = {(member.device_id, member.url) for member in waiting}
        self._rests = {key: rest for key, rest in self._rests.items() if key in known}
        for member in waiting:
            due_s, _ = self._rests.get((member.device_id, member.url), (0.0, 0.0))
            if member.device_id not in self._probes and self._clock() >= due_s:
                probe = asyncio.create_task(self._probe(member), name=f"probe {member.device_id}")
                self._probes[member.device_id] = probe

    async def close(self) -> None:
        """Give up the probes that are under way."""
        for probe in self._probes.values():
            probe.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)

    async def _probe(self, member: Member) -> None:
        url = member.url
        try:
            async with self._devices.slot(member), asyncio.timeout(self._patience_s):
                status = await self._devices.probe(member)
            trouble = "" if status == httpx.codes.OK else f"answered {status}"
        except TimeoutError:
            trouble = f"no answer in {self._patience_s:g} s"
        except httpx.TransportError as error:
            trouble = first_line(error)
        finally:
            del self._probes[member.device_id]
        if member.url != url:  # it has registered elsewhere meanwhile, where it is probed anew
            return
        if trouble:
            self._let_rest(member, trouble)
        else:
            self._registry.reach(member)

    def _let_rest(self, member: Member, trouble: str) -> None:
        """Probe a device less and less often; say so once."""
        key = member.device_id, member.url
        if key not in self._rests:
            log.warning(
                "%s does not answer at %s/health (%s): it is not selected until it does; check its --port, its "
                "--advertise and what lies between",
                *key,
                trouble,
            )
        _, last_s = self._rests.get(key, (0.0, 0.0))
        rest_s = min(2 * last_s or self._heartbeat_s, _LONGEST_PAUSE * self._heartbeat_s)
        self._rests[key] = self._clock() + rest_s, rest_s
