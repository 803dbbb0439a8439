"""The round loop: look, select, train, aggregate, evaluate, account. The same loop for every fleet."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np
import psutil

from parityfl.core.aggregation import aggregator
from parityfl.core.aggregation import asking as aggregating
from parityfl.core.arrays import all_finite
from parityfl.core.blame import ships
from parityfl.core.errors import PartError, UnfinishedError
from parityfl.core.ledger import Ledger, RoundRecord, account
from parityfl.core.rounds import Plan, close_round, fairness_figures, plan_round
from parityfl.core.sealing import read_only, sealed
from parityfl.core.selection import asking as selecting
from parityfl.core.types import BoolArray, FloatArray, RoundContext, Step, Vector, World
from parityfl.engine.fleet import (
    ClientEvaluation,
    ClosedRound,
    Evaluation,
    Evaluator,
    Fleet,
    Late,
    Observer,
    TrainTask,
)
from parityfl.engine.folder import RunFolder
from parityfl.engine.intake import Intake
from parityfl.engine.keeping import RunKeeper
from parityfl.engine.spec import RunSpec
from parityfl.engine.state import RunState
from parityfl.engine.stopwatch import Stopwatch
from parityfl.engine.tables import client_lines, round_line


async def run_rounds(
    spec: RunSpec,
    fleet: Fleet,
    evaluate: Evaluator,
    folder: RunFolder,
    *,
    observers: Sequence[Observer] = (),
    stop: asyncio.Event | None = None,
) -> None:
    """Run, or go on with, all rounds of a prepared folder and leave its summary and model behind.

    The caller holds the folder's lock.

    Raises:
        UnfinishedError: the run ended before its last round: too many idle rounds, a full disk, `stop` was set, or as
            a `PartError` a part of another package failed.
        FolderError: the folder cannot be read.
    """
    run = _Run(spec, fleet, evaluate, folder, observers)
    state = await run.begin()
    try:
        while state.ledger.rounds < spec.rounds:
            _require_going_on(spec, state, stop)
            state = await run.round(state)
    except BaseException as error:
        with suppress(OSError, MemoryError, PartError):  # what is wrong may be so here, too: the error itself says it
            run.keeper.leave("failed" if isinstance(error, _IdleError) else "interrupted")
        raise
    run.keeper.finish(state)


class _IdleError(UnfinishedError):
    """Nobody has delivered anything for too long."""


def _require_going_on(spec: RunSpec, state: RunState, stop: asyncio.Event | None) -> None:
    done = f"after round {state.ledger.rounds} of {spec.rounds}"
    if stop is not None and stop.is_set():
        raise UnfinishedError(f"stopped {done}, as asked")
    if state.idle_rounds >= spec.max_idle_rounds:
        raise _IdleError(
            f"no valid update in {state.idle_rounds} rounds in a row (rounds.max_idle_rounds): the run ends {done}"
        )


def _resident_bytes() -> float:
    """Return the memory that this process has, nan where the system does not tell: no reason to end a run."""
    try:
        resident: int = psutil.Process().memory_info().rss
        return resident
    except (OSError, psutil.Error):
        return math.nan


class _Run:
    """One execution of a run: what is needed in every round and is no state."""

    def __init__(
        self, spec: RunSpec, fleet: Fleet, evaluate: Evaluator, folder: RunFolder, observers: Sequence[Observer]
    ) -> None:
        self.spec = spec
        self.fleet = fleet
        self.evaluate = evaluate
        self.keeper = RunKeeper(spec, folder)
        self.observers = observers

    async def begin(self) -> RunState:
        """Return the state to go on from: the newest checkpoint's, or that of a fresh run."""
        checkpoint = self.keeper.read(lambda: self._initial().arrays())
        state = self.keeper.begin(checkpoint or await self._fresh())
        for observer in self.observers:
            observer.started(state.weights, state.ledger.rounds, self.spec.rounds)
        return state

    def _initial(self) -> RunState:
        spec = self.spec
        weights = spec.initial_weights()
        return RunState(
            ledger=Ledger.empty(spec.world.num_clients),
            weights=weights,
            average=weights.copy(),
            selector=selecting.first_state(spec.selector, spec.world),
            aggregator=aggregating.first_state(spec.aggregator, spec.world, spec.layout.size),
            optimizer=spec.optimizer.init(spec.layout.size),
            control=np.zeros_like(weights) if spec.uses_control else None,
        )

    async def _fresh(self) -> RunState:
        state = self._initial()
        first = await self.evaluate(0, state.weights, state.average, on_test_set=False)
        loss, accuracy = first.clients.loss, first.clients.accuracy
        ledger = replace(state.ledger, initial_loss=loss, eval_loss=loss, eval_accuracy=accuracy)
        return replace(state, ledger=ledger)

    async def round(self, state: RunState) -> RunState:
        """Run one round and return the state after it."""
        spec, clock = self.spec, Stopwatch()
        plan, world = await self._select(state, clock)
        state = _with_newcomers(state, plan.registered)
        task, sent_global = self._task(plan, state), self._sent_global(plan, state)
        learned = await self._train(plan, task, state, world, clock)
        evaluation = await self._evaluate(plan.round, learned.weights, learned.average)
        clock.lap("evaluate_s")
        record = close_round(
            plan,
            learned.intake.replies,
            state.ledger,
            world,
            eval_loss=evaluation.clients.loss,
            eval_accuracy=evaluation.clients.accuracy,
            sent_global=sent_global,
            surrogate_weight=learned.step.client_weight,
            functional=spec.functional,
        )
        after = self._after(state, record, learned, world)
        figures = {
            "deadline_s": task.deadline_s,
            **fairness_figures(record, after.ledger, world, spec.functional),
            **_measured(record, evaluation),
            **clock.laps,
            "round_s": clock.total(),
            "rss_bytes": _resident_bytes(),
        }
        lines = {"rounds": round_line(figures), "clients": client_lines(record, after.ledger, spec.device_ids)}
        touched = np.unique(np.asarray(learned.intake.clients, dtype=np.int64))
        self.keeper.close_round(after, lines, touched, figures)
        reasons = {reply.client: reply.reason for reply in learned.intake.replies if reply.reason}
        self._tell(ClosedRound(record, after.ledger, figures, after.weights, reasons))
        return after

    async def _select(self, state: RunState, clock: Stopwatch) -> tuple[Plan, World]:
        """Look who is there and select; return the plan, and the world as the fleet tells it."""
        spec, number = self.spec, state.ledger.rounds + 1
        time_s = (number - 1) * spec.world.interval_s if spec.virtual else monotonic() - self.keeper.began
        presence = await self.fleet.look(number, time_s)
        world = presence.world(spec.world)
        clock.start()
        plan = plan_round(
            spec.selector,
            state.selector,
            state.ledger,
            world,
            time_s=time_s,
            registered=presence.registered,
            available=presence.available,
            wanted=spec.wanted,
        )
        clock.lap("select_s")
        return plan, world

    async def _train(self, plan: Plan, task: TrainTask, state: RunState, world: World, clock: Stopwatch) -> _Learned:
        """Train and aggregate: updates are folded while later ones are still on their way."""
        intake = Intake(self.fleet.train(task), [late.update for late in state.late if late.enters == plan.round])
        context = self._context(plan, state, world)
        try:
            step = await asyncio.to_thread(self._fold, state, context, intake)
        except BaseException:
            await intake.leave()
            raise
        weights, optimizer = self._advance(state, step, plan.round)
        average = _blend(state.average, weights, self.spec.ema)
        clock.lap("aggregate_s")
        clock.move("aggregate_s", "train_s", intake.waited_s)
        control = intake.control(state.control, context.population)
        return _Learned(intake, step, weights, average, optimizer, control)

    def _after(self, state: RunState, record: RoundRecord, learned: _Learned, world: World) -> RunState:
        """Account for a round."""
        spec = self.spec
        steering = record if spec.trusts_latency else replace(record, latency_s=np.full_like(record.latency_s, np.nan))
        ledger = account(state.ledger, steering)
        return RunState(
            ledger=ledger,
            weights=learned.weights,
            average=learned.average,
            selector=selecting.next_state(spec.selector, state.selector, steering, world),
            aggregator=learned.step.state,
            optimizer=learned.optimizer,
            control=learned.control,
            late=_still_newest([*state.late, *self.fleet.late_updates()], ledger),
            deterministic=state.deterministic and all(reply.reproducible for reply in learned.intake.replies),
            idle_rounds=0 if learned.intake.clients else state.idle_rounds + 1,
            notes=learned.step.notes or state.notes,
        )

    def _task(self, plan: Plan, state: RunState) -> TrainTask:
        """Return what the clients are asked, with all vectors as they arrive there."""
        weights, shown = self.spec.carry(state.weights), read_only(state.weights)

        def start(client: int) -> Vector:
            model = aggregating.starting_model(self.spec.aggregator, state.aggregator, client, shown, plan.round)
            return weights if model is shown else self.spec.carry(model)

        return TrainTask(
            round=plan.round,
            time_s=plan.time_s,
            clients=plan.selection.clients,
            weights=weights,
            start=start,
            control=None if state.control is None else self.spec.carry(state.control),
            memory_round=state.ledger.last_participated,
            deadline_s=self.spec.deadline.seconds(state.ledger),
        )

    def _sent_global(self, plan: Plan, state: RunState) -> BoolArray:
        """Return who of those selected trains from the global model and not from one of its own, shape (N,).

        To be asked before the updates are folded, since the rule may change its state in place.

        Raises:
            PartError: what the rule gives a client is no model.
        """
        rule, sent, shown = self.spec.aggregator, plan.selected, read_only(state.weights)
        for client in plan.selection.clients.tolist():
            model = aggregating.checked_start(rule, state.aggregator, client, shown, plan.round)
            sent[client] = model is shown
        return sent

    def _context(self, plan: Plan, state: RunState, world: World) -> RoundContext:
        """Return what the aggregation rule may know beside the updates."""
        context = RoundContext(
            round=plan.round,
            weights=state.weights,
            registered=plan.registered,
            available=plan.available,
            selected=plan.selected,
            probability=plan.selection.probability,
            ledger=sealed(state.ledger),
            world=world,
            local_lr=self.spec.local_lr,
            local_epochs=self.spec.local_epochs,
        )
        return sealed(context)

    def _fold(self, state: RunState, context: RoundContext, intake: Intake) -> Step:
        """Run the aggregation rule over the updates as they arrive; called in a thread of its own."""
        rule = self.spec.aggregator
        return aggregating.folded(
            rule, state.aggregator, context, iter(intake), spared=lambda error: error is intake.failure
        )

    def _advance(self, state: RunState, step: Step, number: int) -> tuple[Vector, Mapping[str, Any]]:
        if step.direction is None:
            return state.weights, state.optimizer
        rule = self.spec.aggregator
        weights, optimizer = self.spec.optimizer.step(state.optimizer, state.weights, step.direction, rule.server_lr)
        if not all_finite(weights):
            raise self._diverged(step.direction, number)
        return weights, optimizer

    def _diverged(self, direction: Vector, number: int) -> UnfinishedError:
        """Return why the run ends before a model that is not finite."""
        rule = self.spec.aggregator
        begin = f"round {number}: the model would no longer be finite, so the run ends before it"
        lower = f"training.lr = {self.spec.local_lr:g}"
        if all_finite(direction):
            return UnfinishedError(f"{begin}: lower aggregator.server_lr = {rule.server_lr:g} or {lower}")
        if ships(type(rule)):
            return UnfinishedError(f"{begin}: the updates add up to more than a float holds; lower {lower}")
        return PartError(
            f"{begin}: the direction of {aggregator.label(rule)} is not; lower {lower} where the updates are as large, "
            "or see parityfl.testing.check_aggregator"
        )

    async def _evaluate(self, number: int, weights: Vector, average: Vector) -> Evaluation:
        last = number == self.spec.rounds
        if number % self.spec.evaluate_every == 0 or last:
            tested = number % self.spec.test_every == 0 or last
            return await self.evaluate(number, weights, average, on_test_set=tested)
        unknown = np.full(self.spec.world.num_clients, np.nan)
        return Evaluation(math.nan, math.nan, math.nan, ClientEvaluation(unknown, unknown))

    def _tell(self, closed: ClosedRound) -> None:
        for observer in self.observers:
            observer.round_closed(closed)


@dataclass(frozen=True)
class _Learned:
    """What a round's training has come to: who answered what, the aggregation's step, and all that moved with it."""

    intake: Intake
    step: Step
    weights: Vector
    average: Vector
    optimizer: Mapping[str, Any]
    control: Vector | None


def _measured(record: RoundRecord, evaluation: Evaluation) -> dict[str, float]:
    """Return the columns of rounds.csv that are read off the round as they are."""
    return {
        "round": record.round,
        "time_s": record.time_s,
        "global_accuracy": evaluation.global_accuracy,
        "global_loss": evaluation.global_loss,
        "ema_global_accuracy": evaluation.ema_global_accuracy,
        "bytes_down": _whole_sum(record.bytes_down),
        "bytes_up": _whole_sum(record.bytes_up),
    }


def _with_newcomers(state: RunState, registered: BoolArray) -> RunState:
    """Make the server's control variate the mean over those that register in this round, too: their own are 0."""
    known = state.ledger.first_round > 0
    before, now = int(np.sum(known)), int(np.sum(known | registered))
    if state.control is None or before == now:
        return state
    return replace(state, control=state.control * np.float32(before / now))


def _still_newest(late: Sequence[Late], ledger: Ledger) -> tuple[Late, ...]:
    """Return the late updates for later rounds in order, without those that a newer one of their client overtakes.

    That is one of a round that the client has completed, or one that is late as well and enters before.
    """
    last = ledger.last_participated
    waiting = [one for one in late if one.enters > ledger.rounds and one.origin > last[one.update.client]]
    newest = [one for one in waiting if not any(_overtakes(other, one) for other in waiting)]
    return tuple(sorted(newest, key=lambda one: (one.enters, one.update.client, one.origin)))


def _overtakes(other: Late, one: Late) -> bool:
    same = other.update.client == one.update.client
    return same and other.origin > one.origin and other.enters < one.enters


def _blend(average: Vector, weights: Vector, decay: float) -> Vector:
    return np.float32(decay) * average + np.float32(1 - decay) * weights


def _whole_sum(values: FloatArray) -> float:
    """Return the sum of the known values as a whole number; nan where none is known."""
    return int(np.nansum(values)) if np.any(~np.isnan(values)) else math.nan
