"""Serving a run: take devices in, run the rounds once enough are here, send everyone home, and end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from parityfl.config import Config
from parityfl.coordinator.addresses import Addresses
from parityfl.coordinator.agreement import Agreement, read_agreement
from parityfl.coordinator.app import create_app
from parityfl.coordinator.device_registry import LOOKS, DeviceRegistry
from parityfl.coordinator.devices import Devices
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.probing import Prober
from parityfl.coordinator.roster import read_roster
from parityfl.coordinator.service import Coordinator
from parityfl.coordinator.trust import Trust
from parityfl.core.arrays import Layout
from parityfl.core.errors import UnfinishedError
from parityfl.core.types import AvailabilityProcess
from parityfl.web.server import on_signals, serving

log = logging.getLogger(__name__)

Drive = Callable[[HttpFleet, Coordinator], Awaitable[None]]
"""Runs all rounds over the fleet, telling the coordinator; given by the composition root."""


@dataclass(frozen=True)
class Service:
    """How a run is served.

    Attributes:
        min_clients: how many devices must have loaded their data and reported before the rounds begin; None: all
            of the population on the virtual clock, `population.per_round` on the wall clock. 0: nobody is waited for.
        start_within_s: seconds after which the run ends if they have not come; None: they are waited for without end.
        keep_serving: whether to serve on until a signal after the rounds, or after an operator has stopped them.
        allowed_hosts: what a device may name as its own beside the address that it calls from: see `Addresses`.
        roster: the file that keeps the devices' places for a resumed run; None: none is kept.
        agreement: the file that keeps what the devices agree on; None: none is kept.
        agreed: what is settled before the first device comes; None: what the configuration says.
        run_id: the run's identity; None: a new one.
        trust: whom to trust.
        folder: the run folder; None: none, and no credentials.
        announce: is called once devices and operators can connect.
        report: is called in a thread once the rounds are over, where it is served on: the folder may be read from then.
    """

    min_clients: int | None = None
    start_within_s: float | None = None
    keep_serving: bool = False
    allowed_hosts: Sequence[str] = ()
    roster: Path | None = None
    agreement: Path | None = None
    agreed: Agreement | None = None
    run_id: str | None = None
    trust: Trust = field(default_factory=Trust)
    folder: Path | None = None
    announce: Callable[[], None] = lambda: None
    report: Callable[[], None] = lambda: None


async def serve(
    config: Config,
    layout: Layout | None,
    drive: Drive,
    listening: socket.socket,
    service: Service,
    *,
    availability: AvailabilityProcess | None = None,
) -> None:
    """Serve until the rounds are over and the devices have been told to leave, for which they have two heartbeats.

    Args:
        config: the run's configuration.
        layout: where the model's parameters lie; None if `drive` is to find out.
        drive: runs the rounds; begun once enough devices are here. It is cancelled by a signal, and its own error
            is raised here.
        listening: where to serve, from `parityfl.web.server.bind`.
        service: how.
        availability: the experiment's availability model; None on the wall clock.

    SIGINT and an operator's stop send the devices home, too. SIGTERM, which comes before a restart, does not, nor does
    an error, which a restart may mend: they look for the coordinator as long as they have patience.

    Raises:
        UnfinishedError: too few devices have come within `Service.start_within_s`.
        KeyboardInterrupt: SIGINT or SIGTERM came before the rounds were done.
    """
    roster = read_roster(service.roster) if service.roster is not None else {}
    virtual = config.rounds.virtual
    registry = DeviceRegistry(
        config.device_ids,
        not virtual,
        config.rounds.heartbeat_s,
        time.monotonic,
        roster,
        agreement=_agreement(config, layout, service),
        probing=not virtual,
    )
    trust = service.trust
    async with Devices(config.rounds, trust.gate(service.folder), trust.tls, service.folder) as devices:
        run_id = service.run_id or uuid4().hex
        fleet = HttpFleet(config, layout, registry, devices, run_id, availability=availability)
        prober = Prober(registry, devices, config.rounds, time.monotonic)
        enough = config.population.clients if virtual else config.population.per_round
        coordinator = Coordinator(
            config,
            fleet,
            enough if service.min_clients is None else service.min_clients,
            addresses=Addresses(service.allowed_hosts),
            roster=service.roster,
            agreement=service.agreement,
        )
        async with serving(create_app(coordinator, trust.access()), listening, trust.tls):
            service.announce()
            watch = asyncio.create_task(_watch(coordinator, prober), name="watch")
            try:
                await _run(coordinator, drive, service)
            finally:
                watch.cancel()
                coordinator.events.close()
                await devices.mailbox.close()
                await prober.close()
                await fleet.close()


async def _watch(coordinator: Coordinator, prober: Prober) -> None:
    """Notice when it happens who goes silent, is revoked, has yet to answer, or is the last that was waited for."""
    fleet = coordinator.fleet
    while True:
        await asyncio.sleep(fleet.config.rounds.heartbeat_s / LOOKS)
        fleet.registry.bar(fleet.devices.gate.revoked())
        fleet.give_up_lost()
        prober.look()
        coordinator.check_start()


def _agreement(config: Config, layout: Layout | None, service: Service) -> Agreement:
    """Return what devices must fit: what an interrupted run has agreed on, or what is settled beforehand."""
    kept = read_agreement(service.agreement) if service.agreement is not None else None
    agreed = kept or service.agreed or Agreement.of(config.data)
    return agreed if layout is None else agreed.with_layout("this coordinator", layout.digest)


async def _run(coordinator: Coordinator, drive: Drive, service: Service) -> None:
    signalled, restarts = asyncio.Event(), False

    def interrupt(number: signal.Signals) -> None:
        nonlocal restarts
        restarts = number is signal.SIGTERM
        end = "the devices may wait for a restart" if restarts else "telling the devices to leave"
        log.warning("%s: ending%s", number.name, "" if coordinator.leaving else f", {end}; once more ends this at once")
        signalled.set()

    with on_signals(interrupt):
        rounds = asyncio.create_task(_rounds(coordinator, drive, service.start_within_s), name="rounds")
        await _first(rounds, signalled)
        if not rounds.done():
            rounds.cancel()
            await asyncio.wait({rounds})
        if _as_wanted(rounds, coordinator) or (rounds.cancelled() and not restarts):
            _finish(coordinator, rounds)
            await coordinator.everyone_dismissed()
        if service.keep_serving and _as_wanted(rounds, coordinator):
            await asyncio.to_thread(service.report)
            await signalled.wait()
    if rounds.cancelled():
        raise KeyboardInterrupt
    rounds.result()


async def _rounds(coordinator: Coordinator, drive: Drive, start_within_s: float | None) -> None:
    try:
        async with asyncio.timeout(start_within_s):
            await coordinator.start.wait()
    except TimeoutError:
        here = f"{len(coordinator.registry.prepared)} of {coordinator.min_clients} devices are here"
        raise UnfinishedError(
            f"{here} after {start_within_s:g} s: start more of them, or take fewer with --min-clients, and go on with "
            "--resume"
        ) from None
    coordinator.phase = "training"
    await drive(coordinator.fleet, coordinator)


def _as_wanted(rounds: asyncio.Task[None], coordinator: Coordinator) -> bool:
    """Return whether the rounds are done, or an operator has stopped them; what else ended them a restart may mend."""
    return not rounds.cancelled() and (rounds.exception() is None or coordinator.fleet.stop.is_set())


def _finish(coordinator: Coordinator, rounds: asyncio.Task[None]) -> None:
    if rounds.cancelled():
        coordinator.finish("stopped", "interrupted")
        return
    error = rounds.exception()
    if error is None:
        coordinator.finish("done")
    else:
        coordinator.finish("stopped" if isinstance(error, UnfinishedError) else "failed", str(error))


async def _first(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Return when the task has ended or the event is set."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
