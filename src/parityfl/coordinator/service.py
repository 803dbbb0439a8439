"""What the coordinator knows and does: it admits devices, watches the rounds, and says what it is doing."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import isnan, nan
from pathlib import Path
from typing import Literal

import numpy as np

from parityfl.config import Config
from parityfl.coordinator.addresses import Addresses
from parityfl.coordinator.agreement import Agreement, write_agreement
from parityfl.coordinator.device_registry import DeviceRegistry, Member
from parityfl.coordinator.events import KEPT, EventLog
from parityfl.coordinator.finished import Finished
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.gate import Gate
from parityfl.coordinator.mailbox import Work
from parityfl.coordinator.roster import add_to_roster
from parityfl.core.errors import FleetError
from parityfl.core.fairness import jsonable
from parityfl.core.ledger import OUTCOME_CODES, Ledger
from parityfl.core.left_behind import left_behind
from parityfl.core.rounds import staleness
from parityfl.core.types import Vector
from parityfl.core.wording import listed
from parityfl.engine.fleet import ClosedRound
from parityfl.web.problems import ProblemError
from parityfl.web.version import VERSION
from parityfl.wire.offload import offload
from parityfl.wire.payload import Payload, assemble, pack
from parityfl.wire.schemas import (
    ClientHistory,
    ClientInfo,
    DeviceReport,
    Health,
    Registration,
    RegistrationReply,
    RoundInfo,
    StatusReply,
    StatusUpdate,
    TrainingState,
    WorkRequest,
)
from parityfl.wire.signing import Proof

log = logging.getLogger(__name__)

Phase = Literal["waiting", "training", "done", "stopped", "failed"]
"""Waiting for devices, in the rounds, or after them."""


SINGLY = 10
"""So many devices that come to be left behind at once, for one reason, are warned of one by one; more in one line."""

MOST_UNWANTED = 100
"""How many requests a header names that a process need not answer any more; more are named the next time."""


class Coordinator:
    """One run as its web application shows it. Implements `Observer`.

    Args:
        config: the run's configuration.
        fleet: the devices.
        min_clients: how many must have loaded their data and reported before the rounds begin; 0: nobody is waited for.
        addresses: where devices may be called; None: only at the address that they call from.
        roster: where the places of devices are kept for a resumed run; None: nowhere.
        agreement: where what the devices agree on is kept for it; None: nowhere.
    """

    def __init__(
        self,
        config: Config,
        fleet: HttpFleet,
        min_clients: int,
        *,
        addresses: Addresses | None = None,
        roster: Path | None = None,
        agreement: Path | None = None,
    ) -> None:
        self.config = config
        self.fleet = fleet
        self.min_clients = min_clients
        self.events = EventLog()
        self.start = asyncio.Event()
        """Set once enough devices have loaded their data and reported, or someone asked for it."""
        self.leaving = False
        self.phase: Phase = "waiting"
        self.reason = ""
        self.rounds_done = 0
        self.figures: Mapping[str, float] = {}
        self.outcomes: Counter[str] = Counter()
        self.left_behind = [""] * len(fleet.registry.device_ids)
        """By index, why a device is left behind as of the latest round; '' where it is not, or is too new to tell."""
        self._warned: set[tuple[int, str]] = set()
        self._alone = asyncio.Event()
        self.addresses = addresses or Addresses()
        self._roster = roster
        self._agreement = agreement
        self._kept_agreement: Agreement | None = None
        self._document = config.document()
        self._rounds: dict[int, RoundInfo] = {}
        self._weights: Vector | None = None
        self._ledger: Ledger | None = None
        self.check_start()

    @property
    def registry(self) -> DeviceRegistry:
        """Who is here."""
        return self.fleet.registry

    @property
    def ready(self) -> bool:
        """Whether enough devices have registered."""
        return len(self.registry) >= self.min_clients

    @property
    def rounds(self) -> list[RoundInfo]:
        """The rounds that have closed since this process started, the latest `KEPT` of them."""
        return list(self._rounds.values())

    def started(self, weights: Vector, rounds_done: int, rounds_total: int) -> None:
        """Note where the run begins."""
        self._weights, self.rounds_done = weights, rounds_done
        self.events.publish("started", json.dumps({"rounds_done": rounds_done, "rounds_total": rounds_total}))

    def recall(self, finished: Finished) -> None:
        """Show a run that a process before this one has brought to its end."""
        rounds = finished.rounds
        self._weights, self.rounds_done, self.figures = finished.weights, rounds, finished.figures
        start = {"rounds_done": rounds, "rounds_total": rounds, "figures": jsonable(finished.figures)}
        self.events.publish("started", json.dumps(start))

    def round_closed(self, closed: ClosedRound) -> None:
        """Note a round and tell the followers."""
        ids = self.registry.device_ids
        outcomes = {ids[k]: OUTCOME_CODES[code] for k, code in enumerate(closed.record.outcome.tolist()) if code}
        info = RoundInfo.model_validate(
            {
                "round": closed.record.round,
                "figures": dict(closed.figures),
                "outcomes": outcomes,
                "reasons": {ids[client]: reason for client, reason in closed.reasons.items()},
            },
            strict=False,
        )
        self._weights, self._ledger = closed.weights, closed.ledger
        self.rounds_done, self.figures = info.round, info.figures
        self.outcomes.update(outcomes.values())
        self._rounds[info.round] = info
        self._rounds.pop(info.round - KEPT, None)
        self._judge(closed.ledger)
        self.events.publish("round", info.model_dump_json())

    def finish(self, phase: Phase, reason: str = "") -> None:
        """Note how the run ended; from now on devices are told to leave."""
        self.phase, self.reason, self.leaving = phase, reason, True
        self._check_alone()
        self.events.publish("ended", json.dumps({"phase": phase, "reason": reason}))

    @property
    def gate(self) -> Gate:
        """Who may speak."""
        return self.fleet.devices.gate

    def register(self, registration: Registration, host: str, proof: Proof | None = None) -> RegistrationReply:
        """Take a device in and give it what it needs.

        Args:
            registration: its introduction.
            host: where to call it, from `addresses`.
            proof: that it may, from the gate.

        Raises:
            ProblemError: the run is over, there is no place, or the device is no longer admitted.
            FolderError: what must outlive this process cannot be written.
        """
        if self.leaving:
            raise ProblemError(410, f"the run is over ({self.phase}): there is nothing to register for")
        self.gate.check(registration, proof)
        try:
            place, agreement = self.registry.with_device(registration)
        except FleetError as error:
            raise ProblemError(409, str(error)) from None
        self.gate.enter(registration, proof)  # this and the next may fail: then nobody is here without key or place
        self._save(registration.device_id, place, agreement)
        member = self.registry.register(registration, host)
        return RegistrationReply(
            index=member.index,
            run_id=self.fleet.run_id,
            config={**self._document, "data": {**self._document["data"], **self.registry.agreement.keys}},
            heartbeat_s=self.config.rounds.heartbeat_s,
        )

    def status_update(self, update: StatusUpdate, proof: Proof | None = None) -> StatusReply:
        """Note how devices are: those that who sent this may speak for."""
        own = [report for report in update.devices if self.gate.speaks_for(proof, report.device_id)]
        known = [self.registry.report(report) for report in own]
        if self.leaving:
            self._dismiss(own)
        all_known = all(known) and len(own) == len(update.devices)
        return StatusReply(known=all_known, leave=self.leaving, time_s=self.fleet.elapsed_s)

    async def work(self, request: WorkRequest, proof: Proof | None = None) -> Work | None:
        """Return what one of these devices, which cannot be called, is to do; None if there is nothing for now.

        Raises:
            ProblemError: one of them has not registered as a device that polls.
        """
        for device_id in request.devices:
            member = self.registry.get(device_id)
            if member is None or not member.polls or not self.gate.speaks_for(proof, device_id):
                raise ProblemError(409, f"{device_id} has not registered, with port null, to be asked in this way")
            self.registry.hear(member)
        heartbeat_s = self.config.rounds.heartbeat_s
        return await self.fleet.devices.mailbox.take(request.devices, request.holding, heartbeat_s)

    def unwanted(self, request: WorkRequest) -> list[str]:
        """Return what a process holds and nobody waits for any more, the first hundred: they travel in a header."""
        mailbox = self.fleet.devices.mailbox
        return [work_id for work_id in request.holding if mailbox.get(work_id) is None][:MOST_UNWANTED]

    def unanswered(self, work_id: str, proof: Proof | None = None) -> Work:
        """Return what a device is answering.

        Raises:
            ProblemError: nobody waits for it.
        """
        work = self.fleet.devices.mailbox.get(work_id)
        if work is None or not self.gate.speaks_for(proof, work.device_id):
            raise ProblemError(404, "nobody waits for this answer (any more)")
        return work

    def begin(self) -> TrainingState:
        """Start the rounds with the devices that are here, without waiting for more.

        Raises:
            ProblemError: they have begun already.
        """
        if self.phase != "waiting":
            raise ProblemError(409, f"the run is {self.phase}: it can be started once")
        self.start.set()
        self.phase = "training"
        return self.state

    def halt(self) -> TrainingState:
        """End the run after the round that it is in.

        Raises:
            ProblemError: it is in none.
        """
        if self.phase != "training":
            raise ProblemError(409, f"the run is {self.phase}: there is no training to stop")
        self.fleet.stop.set()
        return self.state

    @property
    def state(self) -> TrainingState:
        """What the run is doing."""
        return TrainingState(phase=self.phase, round=self.rounds_done)

    @property
    def health(self) -> Health:
        """That this process is up, and what it waits for."""
        here = f"{len(self.registry.prepared)} of {self.min_clients} devices are here"
        return Health(phase=self.phase, version=VERSION, reason=here if self.phase == "waiting" else self.reason)

    def round(self, number: int) -> RoundInfo:
        """Return a closed round.

        Raises:
            ProblemError: it has not closed, or is no longer kept here.
        """
        if number not in self._rounds:
            closed = 1 <= number <= self.rounds_done
            kept = f"is not kept here: of those that closed since this process started, the latest {KEPT:,} are"
            raise ProblemError(
                404,
                f"round {number} {kept if closed else 'has not closed'}; {self.rounds_done} of "
                f"{self.config.rounds.count} rounds are done, and all of them are in the run folder's CSV files",
            )
        return self._rounds[number]

    def clients(self) -> list[ClientInfo]:
        """Return all devices in index order."""
        return self._described(self.registry.members)

    def client(self, device_id: str) -> ClientHistory:
        """Return one device, with its latest changes of state.

        Raises:
            ProblemError: nobody of that name has registered.
        """
        member = self.registry.get(device_id)
        if member is None:
            raise ProblemError(404, f"no device {device_id!r} has registered; GET /clients lists those that have")
        (info,) = self._described([member])
        return ClientHistory(**dict(info), transitions=list(member.transitions))

    async def model(self) -> Payload:
        """Return the current model as a document that any device of the run can train from.

        Raises:
            ProblemError: there is no model yet.
        """
        weights = self._weights
        if weights is None:
            raise ProblemError(503, "there is no model before the run begins; POST /training/start begins it")
        return await offload(weights.nbytes, self._model_document, weights, self.rounds_done)

    def check_start(self) -> None:
        """Let the rounds begin once enough devices are here: a look at all of them, so not one for every request."""
        if not self.start.is_set() and self.ready and len(self.registry.prepared) >= self.min_clients:
            self.start.set()

    async def everyone_dismissed(self) -> None:
        """Return once each device was told to leave, or two heartbeats have passed: who is silent may only be late."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self.config.rounds.heartbeat_s):
                await self._alone.wait()

    def _model_document(self, weights: Vector, rounds_done: int) -> Payload:
        """Return what `model` does; for a thread, during which further rounds may close."""
        time_s = 0.0 if isnan(self.fleet.elapsed_s) else self.fleet.elapsed_s
        if self.fleet.virtual:
            time_s = rounds_done * self.config.rounds.interval_s
        model = pack(weights)
        request = self.fleet.request(rounds_done + 1, time_s, model.digest)
        return assemble(request, {"model": model}, self.fleet.layout)

    def _judge(self, ledger: Ledger) -> None:
        """Note who is left behind; where devices are real, warn of each when it comes to be so."""
        self.left_behind = left_behind(
            rounds_present=ledger.rounds_present,
            available=ledger.available,
            selected=ledger.selected,
            participated=ledger.participated,
            missed=ledger.missed,
            normalized_utility=ledger.normalized_utility,
        ).tolist()
        found = {(index, reason) for index, reason in enumerate(self.left_behind) if reason}
        newly = set() if self.fleet.virtual else found - self._warned
        for reason in dict.fromkeys(reason for _, reason in sorted(newly)):
            self._warn([index for index, why in sorted(newly) if why == reason], reason, ledger)
        self._warned = found

    def _warn(self, clients: Sequence[int], reason: str, ledger: Ledger) -> None:
        """Warn of devices that come to be left behind, see `SINGLY`."""
        names = [self.registry.device_ids[index] for index in clients]
        if len(names) > SINGLY:
            log.warning("%d devices are left behind: %s (%s)", len(names), reason, listed(names))
            return
        for index, name in zip(clients, names, strict=True):
            counts = ledger.available[index], ledger.selected[index], ledger.participated[index]
            log.warning(
                "%s is left behind: %s (available in %d rounds, selected in %d, completed %d)", name, reason, *counts
            )

    def _save(self, device_id: str, place: int | None, agreement: Agreement) -> None:
        """Write what a registration changes: most come from devices that are known already."""
        durable = not self.fleet.virtual
        if self._roster is not None and place is not None:
            add_to_roster(self._roster, place, device_id, durable=durable)
        if self._agreement is not None and agreement != self._kept_agreement:
            write_agreement(self._agreement, agreement, durable=durable)
            self._kept_agreement = agreement

    def _dismiss(self, reports: Sequence[DeviceReport]) -> None:
        for report in reports:
            self.registry.dismiss(report.device_id)
        self._check_alone()

    def _check_alone(self) -> None:
        if self.registry.dismissed():
            self._alone.set()

    def _described(self, members: Iterable[Member]) -> list[ClientInfo]:
        ledger = self._ledger or Ledger.empty(len(self.registry.device_ids))
        utility = np.full_like(ledger.utility, nan) if self._ledger is None else ledger.utility
        shown, waited = ledger.normalized_utility, staleness(ledger)
        return [
            ClientInfo(
                device_id=member.device_id,
                index=member.index,
                state=member.state,
                address=member.url,
                last_seen_s=self.registry.silence_s(member),
                training=member.training,
                latency_s=member.latency_s,
                num_samples=member.num_samples,
                label_counts=member.label_counts,
                version=member.version,
                opportunities=int(ledger.available[member.index]),
                selected=int(ledger.selected[member.index]),
                participated=int(ledger.participated[member.index]),
                staleness=None if isnan(waited[member.index]) else int(waited[member.index]),
                utility=float(utility[member.index]),
                normalized_utility=float(shown[member.index]),
                left_behind=self.left_behind[member.index] or None,
            )
            for member in members
        ]
