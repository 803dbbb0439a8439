"""The fleet of devices behind HTTP: who is there, and one outcome for each selected one, whatever it does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import replace
from math import inf, isnan, nan
from typing import Any

import httpx
import numpy as np

from parityfl.config import Config
from parityfl.coordinator.answer import Answer
from parityfl.coordinator.closing import Closing
from parityfl.coordinator.device_registry import LOOKS, DeviceRegistry, Member
from parityfl.coordinator.devices import MAX_CONNECTIONS, Devices
from parityfl.coordinator.exchange import Exchange
from parityfl.coordinator.packing import Forms, PackedTask
from parityfl.core.arrays import Layout
from parityfl.core.errors import FolderError, ParityflError, PayloadError, UnfinishedError, UnusableError, first_line
from parityfl.core.screening import update_fault
from parityfl.core.types import AvailabilityProcess, Outcome, Update, Vector
from parityfl.engine.fleet import Facts, Late, Presence, Reply, TrainTask
from parityfl.web.bodies import set_aside
from parityfl.web.problems import detail_of
from parityfl.wire.offload import SMALL_BYTES, offload
from parityfl.wire.paths import TRAIN
from parityfl.wire.payload import Form, Payload, assemble, max_bytes, unpack
from parityfl.wire.schemas import State, TrainReply, TrainRequest

log = logging.getLogger(__name__)

RETRY_S = (0.1, 0.2, 0.5, 1.0)
"""Waits between attempts to reach a client of an experiment; the last one repeats."""

STATE_AFTER: Mapping[Outcome, State] = {
    Outcome.COMPLETED: "available",
    Outcome.INVALID: "available",
    Outcome.FAILED: "available",
    Outcome.REFUSED: "away",
    Outcome.UNREACHABLE: "suspect",
}
"""What a device is taken to be after an outcome; one that timed out may still be training."""

FATAL: Mapping[int, type[ParityflError]] = {410: FolderError, 507: UnfinishedError}
"""Answers that end an experiment: what the device has lost, or cannot keep, would change its result."""

PASSING = (400, 401, 502, 503, 504)
"""Answers of a process that starts or stops, or of a proxy before it: in an experiment the device is asked again.

400 says that the document was spoiled on the way; 401 comes from one that has been restarted and has not registered
yet: it does not know this coordinator.
"""

MAX_STRAGGLERS = MAX_CONNECTIONS // 2
"""How many late calls may go on after their rounds, so that at least as many others can be asked at a time."""

READERS = 1
"""How many large updates are looked through, or folded, at a time: those that lie in files are in memory meanwhile."""

_BODY_LIMIT_OF_ERRORS = 2**16

_NOTHING = nullcontext()


class HttpFleet:
    """Implements `Fleet` over HTTP.

    On the virtual clock availability is the model's, and a client whose process has died is asked again, at its
    newest address, until its time-out: its supervisor restarts it, and the result does not depend on that. On the
    wall clock availability is what the devices report, and the first answer or failure counts.

    Args:
        config: the run's configuration.
        layout: where the model's parameters lie; None where it is still to be found out, see `adopt`.
        registry: who is here.
        devices: calls them.
        run_id: the run's identity.
        availability: the experiment's availability model; None on the wall clock.
        clock: monotonic seconds, also the registry's.
    """

    def __init__(
        self,
        config: Config,
        layout: Layout | None,
        registry: DeviceRegistry,
        devices: Devices,
        run_id: str,
        *,
        availability: AvailabilityProcess | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._layout = layout
        self.registry = registry
        self.devices = devices
        self.run_id = run_id
        self.stop = asyncio.Event()
        """Set when the run should end after the round that it is in: to be given to the round loop."""
        self._availability = availability
        self._clock = clock
        self._began: float | None = None
        self._round = 0
        self._looked = clock()
        self._asked = 0
        self._delivered = 0
        self._ends: float | None = None
        self._late: list[tuple[int, Update]] = []
        self._carry = config.transport.build()
        self._form = Form("BF16" if config.transport.dtype == "bf16" else "F32", config.transport.compression)
        self._readers = asyncio.Semaphore(READERS)
        self._stragglers: dict[asyncio.Task[Reply], None] = {}
        self._exchanges: dict[asyncio.Task[Any] | None, Exchange] = {}

    @property
    def layout(self) -> Layout:
        """Where the model's parameters lie; known before the first round."""
        assert self._layout is not None, "adopt a layout before a round"
        return self._layout

    def adopt(self, layout: Layout) -> None:
        """Take the layout that a device has told."""
        self._layout = layout

    @property
    def virtual(self) -> bool:
        """Whether time is the experiment's own."""
        return self.config.rounds.virtual

    @property
    def elapsed_s(self) -> float:
        """Wall-clock seconds since the run began; nan before its first round."""
        return nan if self._began is None else self._clock() - self._began

    @property
    def remaining_s(self) -> float:
        """Seconds until the round must have ended: its deadline and the grace after it."""
        rounds = self.config.rounds
        left = rounds.deadline_s + rounds.grace_s if self._ends is None else self._ends - self._clock()
        return max(left, 0.0)

    async def look(self, round: int, time_s: float) -> Presence:
        """Return who is there: by the model on the virtual clock, by the devices' reports on the wall clock.

        On the wall clock this waits up to a heartbeat until somebody is there, and a whole one after a round in which
        nobody delivered: rounds that bring nothing do not spin.
        """
        self._round = round
        self.registry.bar(self.devices.gate.revoked())
        if self._began is None or not self.virtual:
            self._began = self._clock() - time_s
        if self._availability is None:
            await self._pace()
            return Presence(self.registry.registered(), self.registry.available(), self._facts())
        reachable = self.registry.reachable() & ~self.registry.barred()
        return Presence(self.registry.registered(), self._availability.available(time_s) & reachable)

    def _facts(self) -> Facts | None:
        """Return what the devices have told of their own data."""
        if not self.config.data.is_own:
            return None
        return Facts(np.nan_to_num(self.registry.num_samples()).astype(np.int64), self.registry.label_counts())

    async def train(self, task: TrainTask) -> AsyncGenerator[Reply, None]:
        """Ask all selected devices at once and yield their outcomes in order, each as soon as it is certain.

        Raises:
            ParityflError: on the virtual clock, a device has lost what it needs for an exact result; see `FATAL`.
        """
        rounds = self.config.rounds
        deadline_s = min(task.deadline_s, rounds.deadline_s)
        self._ends = self._clock() + deadline_s + rounds.grace_s
        self._asked, self._delivered = len(task.clients), 0
        shared = await offload(task.weights.nbytes, self._packed_task, task)
        calls = {client: asyncio.create_task(self._call(task, client, shared)) for client in task.clients.tolist()}
        quorum = None if self.virtual else rounds.quorum
        if self.virtual:
            deadline_s = rounds.net_s
        closing = Closing(calls.values(), deadline_s, quorum, self._has_arrived)
        try:
            for client in task.clients.tolist():
                await closing.wait_for(calls[client])
                # Popped and deleted, so that nothing here refers to an update that was folded.
                reply = self._outcome(task.round, client, calls.pop(client), closing)
                async with self._reading(task.weights.nbytes):
                    yield reply
                    if reply.update is not None:  # whoever folded it may refer to it until the next one comes
                        set_aside(reply.update.delta)
                del reply
        finally:
            closing.cancel()
            given_up = {*calls.values(), *closing.overdue} - self._stragglers.keys()
            for call in given_up:
                call.cancel()
            await asyncio.gather(*given_up, return_exceptions=True)

    def late_updates(self) -> list[Late]:
        """Return, once each, the updates that came after their round had closed (`rounds.late = "next-round"`)."""
        arrived, self._late = self._late, []
        enters = self._round + 1
        return [Late(replace(update, staleness=enters - origin), enters) for origin, update in arrived]

    def request(self, round: int, time_s: float, digest: str, deadline_s: float = inf) -> TrainRequest:
        """Return what a round asks of every device; whom it asks and its memory are the device's own."""
        config = self.config
        return TrainRequest(
            run_id=self.run_id,
            round=round,
            time_s=time_s,
            seed=config.seed,
            model=config.model.name,
            model_digest=digest,
            training=config.training,
            objective=config.objective,
            deadline_s=None if self.virtual else self._lease_s(deadline_s),
        )

    def _lease_s(self, deadline_s: float) -> float:
        """Return for how long somebody waits for a device's reply, after the round too where late updates count."""
        rounds = self.config.rounds
        if rounds.late == "next-round":
            return rounds.train_timeout_s
        return min(deadline_s, rounds.deadline_s, rounds.train_timeout_s)

    async def _pace(self) -> None:
        """Wait for somebody to be there, a heartbeat at most; after a fruitless round a whole heartbeat."""
        fruitless, heartbeat_s = self._asked > 0 and self._delivered == 0, self.config.rounds.heartbeat_s
        until = (self._looked if fruitless else self._clock()) + heartbeat_s
        while self._clock() < until and not self.stop.is_set():
            if not fruitless and self.registry.available().any():
                break
            await asyncio.sleep(heartbeat_s / LOOKS)
        self._looked = self._clock()

    async def close(self) -> None:
        """Give up the late ones."""
        for call in self._stragglers:
            call.cancel()
        await asyncio.gather(*self._stragglers, return_exceptions=True)

    @contextmanager
    def exchange(self, client: int, seconds: float) -> Iterator[Exchange]:
        """Let this task's call of a device, for which it has `seconds`, end too where the device is lost meanwhile.

        Whoever calls does so within the `patience` of the exchange.
        """
        task = asyncio.current_task()
        self._exchanges[task] = found = Exchange(client, asyncio.timeout(seconds), self._clock)
        try:
            yield found
        finally:
            del self._exchanges[task]

    def give_up_lost(self) -> None:
        """Notice who has gone silent, and end the calls of those of whom no answer will be taken any more.

        That is who was revoked, and on the wall clock who is lost: who trains goes on reporting.
        """
        self.registry.refresh()
        self.registry.log_losses()
        for exchange in self._exchanges.values():
            member = self.registry.at(exchange.client)
            if member.state == "revoked":
                exchange.give_up("revoked while it was asked")
            elif member.state == "lost" and not self.virtual:
                exchange.give_up(f"lost while it was asked: silent for {self.registry.silence_s(member):.2f} s")

    def packed(self, weights: Vector) -> Forms:
        """Return a model as it arrives at the devices; for a thread, where it is large."""
        return Forms(self._carry(weights))

    def form_of(self, member: Member) -> Form:
        """Return how vectors travel to a device."""
        return member.form(self._form)

    async def _call(self, task: TrainTask, client: int, shared: PackedTask) -> Reply:
        """Ask one device and return its outcome; raises only what ends an experiment."""
        timeout_s = self.config.rounds.train_timeout_s
        async with self.devices.slot(self.registry.at(client)):
            with self.exchange(client, timeout_s) as exchange:
                try:
                    async with exchange.patience:
                        reply = await self._ask(task, exchange, shared)
                except TimeoutError:
                    reply = exchange.timed_out(timeout_s)
                except tuple(FATAL.values()):
                    raise
                except Exception as error:  # whatever a device does, it is an outcome
                    reply = exchange.failed(error)
        self._note(reply, task.round)
        return reply

    async def _ask(self, task: TrainTask, exchange: Exchange, shared: PackedTask) -> Reply:
        client = exchange.client
        self._note_asked(client, task.round)
        form = self.form_of(self.registry.at(client))
        payload, digest = await offload(task.weights.nbytes, self._payload, task, client, shared, form)
        limit = max_bytes(self.layout, 1 if task.control is None else 2)
        answer = await self._reach(exchange, payload, limit)
        exchange.arrive()
        if self.virtual and answer.status in FATAL:
            raise FATAL[answer.status](detail_of(answer.body))
        if answer.status != 200:
            return exchange.refused(answer)
        async with self._reading(task.weights.nbytes):  # a small answer may expand to as much
            update = await offload(task.weights.nbytes, self._read, task, client, digest, answer)
        return exchange.reply(Outcome.COMPLETED, update=update)

    def _reading(self, size: int) -> AbstractAsyncContextManager[None]:
        """Return what to hold while an update of `size` bytes is read through."""
        return self._readers if size > SMALL_BYTES else _NOTHING

    async def _reach(self, exchange: Exchange, payload: Payload, limit: int) -> Answer:
        """Send until there is an answer: once on the wall clock, until the time-out on the virtual clock."""
        attempt = 0
        while True:
            try:
                member = self.registry.at(exchange.client)
                answer = await self.devices.ask(member, TRAIN, payload, max(limit, _BODY_LIMIT_OF_ERRORS))
            except httpx.TransportError as error:
                exchange.trouble = first_line(error)
                if not self.virtual:
                    raise
            else:
                exchange.bytes_down, exchange.bytes_up = float(len(payload)), float(len(answer.body))
                if not self.virtual or answer.status not in PASSING:
                    return answer
                exchange.trouble = f"answered {answer.status}: {detail_of(answer.body)}"
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1

    def _packed_task(self, task: TrainTask) -> PackedTask:
        """Return what all documents of a round share; for a thread."""
        model = Forms(task.weights)
        control = None if task.control is None else Forms(task.control)
        request = self.request(task.round, task.time_s, model.digest, task.deadline_s)
        return PackedTask(request, model, control)

    def _payload(self, task: TrainTask, client: int, shared: PackedTask, form: Form) -> tuple[Payload, str]:
        """Return the document for one device and the hash of the model in it; for a thread."""
        start = task.start(client)
        model = shared.model if start is task.weights else Forms(start)
        digest = model.digest
        request = shared.request.model_copy(
            update={
                "device_id": self.registry.device_ids[client],
                "model_digest": digest,
                "memory_round": int(task.memory_round[client]),
                "dtype": form.dtype,
                "compression": form.compression,
            }
        )
        control = {} if shared.control is None else {"control": shared.control[form]}
        return assemble(request, {"model": model[form], **control}, self.layout), digest

    def _read(self, task: TrainTask, client: int, digest: str, answer: Answer) -> Update:
        """Return the update in an answer, once everything about it is found to be right; for a thread."""
        required = ("model",) if task.control is None else ("model", "control")
        reply, vectors = unpack(
            answer.body, TrainReply, self.layout, required, finite=False, carry=self._arrived
        )  # finite or not: see `update_fault`
        asked = {"device_id": self.registry.device_ids[client], "round": task.round, "model_digest": digest}
        for name, value in asked.items():
            if getattr(reply, name) != value:
                raise PayloadError(f"the reply has {name} {getattr(reply, name)!r}, asked was {value!r}")
        registered = self.registry.at(client).num_samples
        if registered is not None and reply.num_samples != registered:
            raise PayloadError(f"the reply has num_samples {reply.num_samples}, but the device registered {registered}")
        update = Update(
            client=client,
            delta=vectors["model"],
            num_samples=reply.num_samples,
            train_loss=reply.train_loss,
            loss_before=reply.loss_before,
            loss_after=reply.loss_after,
            control=vectors.get("control"),
            personal_accuracy=reply.personal_accuracy,
        )
        fault = update_fault(update, self.config.security.max_update_norm)
        if fault:
            raise UnusableError(fault)
        lay_aside = self.devices.bodies.lay_aside
        delta = lay_aside(update.delta, answer.body)
        control = None if update.control is None else lay_aside(update.control, answer.body)
        where_it_lay = delta is update.delta and control is update.control
        return update if where_it_lay else replace(update, delta=delta, control=control)

    def _arrived(self, numbers: Vector) -> Vector:
        """Return numbers of an answer as this run has them; refuse those that were rounded where it rounds none."""
        if self._form.dtype == "F32" and numbers.dtype != np.float32:
            raise PayloadError('the reply holds BF16, but transport.dtype is "float32": asked was F32')
        return self._carry(numbers)

    def _has_arrived(self, call: asyncio.Task[Reply]) -> bool:
        exchange = self._exchanges.get(call)
        return exchange is not None and exchange.has_arrived

    def _outcome(self, round: int, client: int, call: asyncio.Task[Reply], closing: Closing) -> Reply:
        """Return what became of a device: its reply, or that it was late; keep a late update if wanted."""
        if call not in closing.overdue:
            reply = call.result()
            self._delivered += reply.outcome is Outcome.COMPLETED
            return reply
        asked = call.done() or call in self._exchanges
        reason = closing.reason if asked else f"not asked by then: {MAX_CONNECTIONS} others were being asked"
        if asked and self.config.rounds.late == "next-round" and not self.virtual:
            self._wait_on(call, round)
        return Reply(client, Outcome.LATE, reason=reason, latency_s=closing.after_s, reproducible=False)

    def _wait_on(self, call: asyncio.Task[Reply], round: int) -> None:
        """Let a late call go on, in the place of the oldest of these where there are too many."""
        if len(self._stragglers) >= MAX_STRAGGLERS:
            oldest = next(iter(self._stragglers))
            del self._stragglers[oldest]
            oldest.cancel()
        self._stragglers[call] = None
        call.add_done_callback(self._keep_late(round))

    def _keep_late(self, origin: int) -> Callable[[asyncio.Task[Reply]], None]:
        def keep(call: asyncio.Task[Reply]) -> None:
            self._stragglers.pop(call, None)
            update = None if call.cancelled() else call.result().update
            if update is not None:
                self._late.append((origin, update))

        return keep

    def _note_asked(self, client: int, round: int) -> None:
        member = self.registry.at(client)
        member.training = round
        self.registry.move(member, "training", f"asked in round {round}")

    def _note(self, reply: Reply, round: int) -> None:
        """Let the registry know at once what a device has just shown; its own next report may say otherwise."""
        member = self.registry.at(reply.client)
        if not isnan(reply.bytes_up):
            self.registry.hear(member)
        if reply.outcome is Outcome.COMPLETED:
            member.completed = round
        if reply.outcome is Outcome.UNREACHABLE:
            self.registry.miss(member)
        if reply.outcome in STATE_AFTER:
            member.training = None
            self.registry.move(member, STATE_AFTER[reply.outcome], reply.reason or "it has trained")
        if reply.reason:
            log.info("%s: %s: %s", member.device_id, reply.outcome, reply.reason)
