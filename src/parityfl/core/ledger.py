"""The ledger: what happened to every client, the only history that a run has.

A `RoundRecord` is one round as arrays over clients; the `Ledger` is what remains of all rounds so far. N is the
number of clients. Unknown floats are nan, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from parityfl.core.fairness import ratio
from parityfl.core.types import BoolArray, FloatArray, IntArray, Outcome, State

OUTCOME_CODES: tuple[str, ...] = ("", *(outcome.value for outcome in Outcome))
"""An outcome as a small integer is its position here; 0 means not selected."""

COMPLETED = OUTCOME_CODES.index(Outcome.COMPLETED)
LATE = OUTCOME_CODES.index(Outcome.LATE)
TIMED_OUT = OUTCOME_CODES.index(Outcome.TIMED_OUT)
INVALID = OUTCOME_CODES.index(Outcome.INVALID)


@dataclass(frozen=True)
class RoundRecord:
    """One round, every array of shape (N,).

    Attributes:
        round: the round's number, from 1.
        time_s: seconds since the run began, when the round began.
        registered: who has ever registered; the others have no row in this round.
        available: who the server saw available.
        selected: who was selected.
        outcome: `OUTCOME_CODES` position of each client's outcome.
        availability_true: true P(available), nan where unknown.
        inclusion_probability: P(selected | all that the selector saw), nan where unknown.
        loss_gain: held-out loss of the model before the round minus after it; nan unless both were measured.
        accuracy_gain: held-out accuracy of the model after the round minus before it.
        local_gain: held-out loss before minus after the client's own local training, participants only.
        credit: utility credited in this round: the configured functional for participants, nan where nobody
            measured it; else 0.
        eval_loss: held-out loss of the model after the round, nan where nobody measured it.
        eval_accuracy: held-out accuracy of the model after the round.
        local_loss_before: held-out loss of the model that a participant was sent.
        local_loss_after: held-out loss of the participant's own model after local training.
        train_loss: mean training loss of a participant over its local epochs.
        num_samples: training examples, nan where unknown.
        surrogate_weight: the weight of the client's (remembered) update in the aggregate, nan where it had none.
        personal_accuracy: held-out accuracy of the participant's personal model, nan where it has none.
        latency_s: seconds from asking to the outcome, selected clients only.
        bytes_up: bytes that the client sent, nan where nothing was measured.
        bytes_down: bytes that the client was sent.
    """

    round: int
    time_s: float
    registered: BoolArray
    available: BoolArray
    selected: BoolArray
    outcome: IntArray
    availability_true: FloatArray
    inclusion_probability: FloatArray
    loss_gain: FloatArray
    accuracy_gain: FloatArray
    local_gain: FloatArray
    credit: FloatArray
    eval_loss: FloatArray
    eval_accuracy: FloatArray
    local_loss_before: FloatArray
    local_loss_after: FloatArray
    train_loss: FloatArray
    num_samples: FloatArray
    surrogate_weight: FloatArray
    personal_accuracy: FloatArray
    latency_s: FloatArray
    bytes_up: FloatArray
    bytes_down: FloatArray

    @staticmethod
    def unmeasured(unknown: FloatArray, **known: Any) -> RoundRecord:
        """Return a record of which nothing is known but what is given; `unknown`, all nan, is shared by the rest."""
        return RoundRecord(**{f.name: known.get(f.name, unknown) for f in fields(RoundRecord)})

    @property
    def participated(self) -> BoolArray:
        """Who completed the round."""
        return np.equal(self.outcome, COMPLETED)

    def __post_init__(self) -> None:
        assert not np.any(self.participated & ~self.selected), "participated implies selected"
        assert not np.any(self.selected & ~self.available), "selected implies available"
        assert not np.any(self.available & ~self.registered), "available implies registered"
        assert np.array_equal(self.outcome > 0, self.selected), "a selected client has exactly one outcome"


@dataclass(frozen=True)
class Ledger:
    """What all rounds so far add up to, every array of shape (N,).

    Attributes:
        rounds: how many rounds are closed.
        first_round: the round in which the client first registered; 0 while it has not.
        available: n_k, rounds in which the server saw the client available.
        selected: rounds in which it was selected.
        participated: rounds that it completed.
        late: rounds in which its reply came after the round had closed.
        missed: how often it was selected since it last completed a round.
        last_selected: the last round in which it was selected; 0 for never.
        last_participated: the last round that it completed; 0 for never.
        last_overdue: the last round in which it was late or timed out, so that its latency is only a bound; 0 for
            never.
        expected_available: sum over rounds of the true P(available); nan where it is not known.
        last_evaluated: the last round after which its held-out loss was measured; 0 for the initial model, or never.
        present: 1 where the client was available in the last round.
        switched_on: rounds in which it was available after one in which it was not.
        switched_off: rounds in which it was not available after one in which it was.
        utility: cumulative credited utility, raw and unclipped; 0 before the first participation, nan where the client
            has taken part and nobody has ever measured what it gained.
        initial_loss: held-out loss of the initial model, nan where nobody measured it.
        eval_loss: last known held-out loss of the global model.
        eval_accuracy: last known held-out accuracy of the global model.
        train_loss: last known mean training loss of the client's local epochs.
        local_gain: last known gain by its own local training.
        personal_accuracy: last known held-out accuracy of its personal model, nan where it has none.
        latency_s: last known latency of a reply or, where it was late or timed out, how long it was waited for.
    """

    rounds: int
    first_round: IntArray
    available: IntArray
    selected: IntArray
    participated: IntArray
    late: IntArray
    missed: IntArray
    last_selected: IntArray
    last_participated: IntArray
    last_overdue: IntArray
    last_evaluated: IntArray
    present: IntArray
    switched_on: IntArray
    switched_off: IntArray
    expected_available: FloatArray
    utility: FloatArray
    initial_loss: FloatArray
    eval_loss: FloatArray
    eval_accuracy: FloatArray
    train_loss: FloatArray
    local_gain: FloatArray
    personal_accuracy: FloatArray
    latency_s: FloatArray

    @staticmethod
    def empty(num_clients: int) -> Ledger:
        """Return the ledger of a run that has not begun."""
        count = np.zeros(num_clients, dtype=np.int64)
        unknown = np.full(num_clients, np.nan)
        total = np.zeros(num_clients)
        return Ledger(
            rounds=0,
            first_round=count,
            available=count,
            selected=count,
            participated=count,
            late=count,
            missed=count,
            last_selected=count,
            last_participated=count,
            last_overdue=count,
            last_evaluated=count,
            present=count,
            switched_on=count,
            switched_off=count,
            expected_available=total,
            utility=total,
            initial_loss=unknown,
            eval_loss=unknown,
            eval_accuracy=unknown,
            train_loss=unknown,
            local_gain=unknown,
            personal_accuracy=unknown,
            latency_s=unknown,
        )

    @property
    def rounds_present(self) -> IntArray:
        """Rounds since each client first registered, that round included; 0 while it has not."""
        return np.where(self.first_round > 0, self.rounds - self.first_round + 1, 0)

    @property
    def normalized_utility(self) -> FloatArray:
        """Utility per opportunity, u_k / n_k; nan while n_k = 0."""
        return ratio(self.utility, self.available)

    def to_arrays(self) -> State:
        """Return the ledger as named arrays, for the journal."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @staticmethod
    def from_arrays(arrays: State) -> Ledger:
        """Return the ledger that `to_arrays` took apart."""
        values = {f.name: arrays[f.name] for f in fields(Ledger)}
        return Ledger(**{**values, "rounds": int(values["rounds"])})  # type: ignore[arg-type]


def account(ledger: Ledger, record: RoundRecord) -> Ledger:
    """Return the ledger after one more round."""
    newly = record.registered & (ledger.first_round == 0)
    overdue = (record.outcome == LATE) | (record.outcome == TIMED_OUT)
    return replace(
        ledger,
        rounds=record.round,
        first_round=np.where(newly, record.round, ledger.first_round),
        available=ledger.available + record.available,
        selected=ledger.selected + record.selected,
        participated=ledger.participated + record.participated,
        late=ledger.late + (record.outcome == LATE),
        missed=np.where(record.participated, 0, ledger.missed + record.selected),
        last_selected=np.where(record.selected, record.round, ledger.last_selected),
        last_participated=np.where(record.participated, record.round, ledger.last_participated),
        last_overdue=np.where(overdue, record.round, ledger.last_overdue),
        last_evaluated=np.where(np.isnan(record.eval_loss), ledger.last_evaluated, record.round),
        present=record.available.astype(np.int64),
        switched_on=ledger.switched_on + (record.available & (ledger.present == 0) & ~newly),
        switched_off=ledger.switched_off + (~record.available & (ledger.present == 1)),
        expected_available=ledger.expected_available + record.availability_true,
        utility=_credited(ledger, record),
        eval_loss=_latest(ledger.eval_loss, record.eval_loss),
        eval_accuracy=_latest(ledger.eval_accuracy, record.eval_accuracy),
        train_loss=_latest(ledger.train_loss, record.train_loss),
        local_gain=_latest(ledger.local_gain, record.local_gain),
        personal_accuracy=_latest(ledger.personal_accuracy, record.personal_accuracy),
        latency_s=_latest(ledger.latency_s, np.where(record.participated | overdue, record.latency_s, np.nan)),
    )


def _credited(ledger: Ledger, record: RoundRecord) -> FloatArray:
    """Return the utility after a round: an unmeasured gain adds nothing, and stays nan where none was measured.

    It is infinite once it is more than a float can hold.
    """
    unknown = np.isnan(record.credit) & ((ledger.participated == 0) | np.isnan(ledger.utility))
    with np.errstate(over="ignore"):
        credited = np.nan_to_num(ledger.utility, posinf=np.inf, neginf=-np.inf) + np.nan_to_num(record.credit)
    return np.where(unknown, np.nan, np.where(record.participated, credited, ledger.utility))


def _latest(known: FloatArray, measured: FloatArray) -> FloatArray:
    unknown = np.isnan(measured)
    return known if unknown.all() else np.where(unknown, known, measured)
