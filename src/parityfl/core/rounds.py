"""A round as pure functions: plan whom to ask, close with what came of it, and read the figures off the ledger."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from parityfl.core import fairness
from parityfl.core.ledger import OUTCOME_CODES, Ledger, RoundRecord
from parityfl.core.sealing import sealed
from parityfl.core.seeding import generator
from parityfl.core.selection import Selector, asking
from parityfl.core.types import BoolArray, FloatArray, Outcome, Selection, State, Update, View, World

Functional = Literal["loss_gain", "accuracy_gain", "local_gain"]
"""What a participation is worth."""


@dataclass(frozen=True)
class Plan:
    """What a round begins with.

    Attributes:
        round: the round's number, from 1.
        time_s: seconds since the run began.
        registered: who has ever registered, shape (N,).
        available: who is available, shape (N,).
        selection: whom to ask.
    """

    round: int
    time_s: float
    registered: BoolArray
    available: BoolArray
    selection: Selection

    @property
    def selected(self) -> BoolArray:
        """Who is asked, shape (N,)."""
        mask = np.zeros(len(self.available), dtype=bool)
        mask[self.selection.clients] = True
        return mask


@dataclass(frozen=True)
class Result:
    """What became of one selected client.

    Attributes:
        client: the client's index.
        outcome: the one outcome.
        update: present exactly when the outcome is `COMPLETED`; of it only the figures count here.
        latency_s: seconds from asking to the outcome; nan where nothing was measured.
        bytes_up: bytes received from the client; nan where there is no wire.
        bytes_down: bytes sent to the client.
    """

    client: int
    outcome: Outcome
    update: Update | None = None
    latency_s: float = math.nan
    bytes_up: float = math.nan
    bytes_down: float = math.nan


def plan_round(
    selector: Selector,
    state: State,
    ledger: Ledger,
    world: World,
    *,
    time_s: float,
    registered: BoolArray,
    available: BoolArray,
    wanted: int,
) -> Plan:
    """Select up to `wanted` of the available clients for the round after the ledger's last.

    Raises:
        PartError: the selector is one of another package and raised, or its answer is no valid `Selection`.
    """
    round_number = ledger.rounds + 1
    clients = np.flatnonzero(available).astype(np.int64)
    count = min(wanted, len(clients))
    nobody = Selection(clients[:0], np.zeros(world.num_clients))
    if count == 0:
        return Plan(round_number, time_s, registered, available, nobody)
    view = View(round_number, time_s, clients, count, sealed(ledger), world)
    chosen = asking.selection(selector, state, view, generator(world.seed, "selection", round_number))
    return Plan(round_number, time_s, registered, available, chosen)


def close_round(
    plan: Plan,
    results: Sequence[Result],
    ledger: Ledger,
    world: World,
    *,
    eval_loss: FloatArray,
    eval_accuracy: FloatArray,
    sent_global: BoolArray,
    surrogate_weight: FloatArray | None,
    functional: Functional,
) -> RoundRecord:
    """Return the record of a round from its plan, its results and the evaluation of the model after it.

    A figure that is not finite counts as not measured. The loss before the round is the one measured after the round
    before, or else the one that a participant measured of the model that it was sent, if that was the global one.

    Args:
        plan: what the round began with.
        results: what became of those selected.
        ledger: the history up to the round before.
        world: the facts beside it.
        eval_loss: held-out loss of the model after the round, shape (N,), nan where nobody measured it.
        eval_accuracy: its held-out accuracy.
        sent_global: who was sent the global model as it was before the round, and none of its own, shape (N,).
        surrogate_weight: as in `Step.client_weight`.
        functional: what a participation is worth.
    """
    eval_loss, eval_accuracy = _finite(eval_loss), _finite(eval_accuracy)
    column = _columns(results, world.num_clients)
    outcome = np.zeros(world.num_clients, dtype=np.int64)
    outcome[[r.client for r in results]] = [OUTCOME_CODES.index(r.outcome) for r in results]
    participated = outcome == OUTCOME_CODES.index(Outcome.COMPLETED)
    loss_before = column(lambda r: r.update.loss_before if r.update else math.nan)
    loss_after = column(lambda r: r.update.loss_after if r.update else math.nan)
    fresh = (ledger.last_evaluated == ledger.rounds) & ~np.isnan(ledger.eval_loss)
    own_measure = np.where(sent_global, loss_before, np.nan)
    gains = {
        "loss_gain": _difference(np.where(fresh, ledger.eval_loss, own_measure), eval_loss),
        "accuracy_gain": _difference(eval_accuracy, np.where(fresh, ledger.eval_accuracy, np.nan)),
        "local_gain": _difference(loss_before, loss_after),
    }
    return RoundRecord(
        round=plan.round,
        time_s=plan.time_s,
        registered=plan.registered,
        available=plan.available,
        selected=plan.selected,
        outcome=outcome,
        availability_true=world.true_availability(plan.time_s),
        inclusion_probability=_probability(plan.selection, world.num_clients),
        **gains,
        credit=np.where(participated, gains[functional], 0.0),
        eval_loss=eval_loss,
        eval_accuracy=eval_accuracy,
        local_loss_before=loss_before,
        local_loss_after=loss_after,
        train_loss=column(lambda r: r.update.train_loss if r.update else math.nan),
        num_samples=np.where(
            world.num_samples > 0, world.num_samples, column(lambda r: r.update.num_samples if r.update else math.nan)
        ),
        surrogate_weight=_unknown(world.num_clients) if surrogate_weight is None else surrogate_weight,
        personal_accuracy=column(lambda r: r.update.personal_accuracy if r.update else math.nan),
        latency_s=column(lambda r: r.latency_s),
        bytes_up=column(lambda r: r.bytes_up),
        bytes_down=column(lambda r: r.bytes_down),
    )


def fairness_figures(record: RoundRecord, ledger: Ledger, world: World, functional: Functional) -> dict[str, float]:
    """Return the counts and metrics of rounds.csv after a round; `ledger` includes it. nan where unknown."""
    here = record.registered
    accuracy, examples = record.eval_accuracy[here], record.num_samples[here]
    personal = ledger.personal_accuracy[here]
    net = _difference(ledger.initial_loss, record.eval_loss)[here]
    measured = ~np.isnan(net) & ~np.isnan(ledger.utility[here])
    coverage = fairness.label_coverage(world.label_counts, record.participated)
    credited = float(np.sum(ledger.utility[here][measured]))
    parity = fairness.parity_figures(
        ledger.rounds_present[here],
        ledger.available[here],
        ledger.selected[here],
        ledger.participated[here],
        ledger.utility[here],
    )
    counts = {name: int(np.sum(record.outcome == code)) for code, name in enumerate(OUTCOME_CODES)}
    return {
        "num_available": int(np.sum(record.available)),
        "num_selected": int(np.sum(record.selected)),
        "num_participated": counts[Outcome.COMPLETED],
        "num_late": counts[Outcome.LATE],
        "num_failed": int(np.sum(record.selected)) - counts[Outcome.COMPLETED] - counts[Outcome.LATE],
        "mean_client_accuracy": fairness.mean(accuracy),
        "weighted_client_accuracy": fairness.weighted_mean(accuracy, examples),
        "client_accuracy_std": fairness.deviation(accuracy),
        "weighted_client_accuracy_std": fairness.weighted_deviation(accuracy, examples),
        "worst10_client_accuracy": fairness.worst_mean(accuracy),
        "accuracy_jain": fairness.jain(accuracy),
        "mean_personal_accuracy": fairness.mean(personal),
        "worst10_personal_accuracy": fairness.worst_mean(personal),
        **parity,
        "label_coverage": coverage,
        "label_kl": fairness.label_kl(world.label_counts, record.participated),
        "unseen_label_rate": 1.0 - coverage,
        "low_availability_accuracy": fairness.low_half_mean(accuracy, mean_availability(ledger)[here]),
        "mean_net_gain": fairness.mean(net),
        "net_gain_cv": fairness.coefficient_of_variation(net),
        "credited_to_net": _ratio(credited, float(np.sum(net[measured]))) if functional == "loss_gain" else math.nan,
    }


def mean_availability(ledger: Ledger) -> FloatArray:
    """Return the mean true P(available) over the rounds so far; nan before a client has registered, without truth.

    Where it is not known for every client and round, it is the share of rounds seen for all of them: one client's
    truth and another's luck cannot be compared.
    """
    if np.isnan(ledger.expected_available).any():
        return fairness.ratio(ledger.available, ledger.rounds_present)
    return fairness.ratio(ledger.expected_available, np.full(len(ledger.available), ledger.rounds))


def staleness(ledger: Ledger) -> FloatArray:
    """Return the rounds since each client last took part, 0 for this round's participants, nan for never."""
    return np.where(ledger.last_participated > 0, ledger.rounds - ledger.last_participated, np.nan)


def _columns(results: Sequence[Result], num_clients: int) -> Callable[[Callable[[Result], float]], FloatArray]:
    def column(read: Callable[[Result], float]) -> FloatArray:
        values = _unknown(num_clients)
        for result in results:
            values[result.client] = read(result)
        return _finite(values)

    return column


def _probability(selection: Selection, num_clients: int) -> FloatArray:
    return _unknown(num_clients) if selection.probability is None else selection.probability


def _difference(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return one - other; nan where one of the two is unknown, or the result is more than a float can hold."""
    with np.errstate(over="ignore"):
        return _finite(one - other)


def _finite(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


def _unknown(num_clients: int) -> FloatArray:
    return np.full(num_clients, np.nan)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator != 0 else math.nan
