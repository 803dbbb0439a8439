"""The values that the six concepts exchange. N is the number of clients, d the number of model parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from parityfl.core.ledger import Ledger

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Vector = NDArray[np.float32]
"""A model, an update or a direction: flat, float32, shape (d,)."""
LEAST_STEP, MOST_STEP = 1e-30, 1e30
"""The smallest and the largest size of steps: in float32 neither a size nor one over it is 0 or infinite."""

State = Mapping[str, NDArray[Any]]
"""What a method remembers from round to round: named arrays, which the journal can store as they are.

State goes in and comes back; a method object holds hyper-parameters only. An array whose first axis has length N
and whose name begins with ``row_`` changes only in the rows of the round's participants, so that the journal need
store no more than these.
"""

MAX_LABELS = 10_000
"""How many classes a run can have."""
MAX_CLASS_NAME = 200
"""How many characters the name of a class can have."""
MAX_LOSS = 1e12
"""The largest mean cross-entropy, in nats, that counts as measured: a model whose loss is above it has diverged."""


class Outcome(StrEnum):
    """How a selected client's round ended. Each selected client has exactly one."""

    COMPLETED = "completed"
    LATE = "late"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    INVALID = "invalid"
    FAILED = "failed"


class AvailabilityProcess(Protocol):
    """Who could take part at a time: a pure function of (client, time, seed)."""

    def available(self, time_s: float) -> BoolArray:
        """Return who is available at `time_s` seconds after the run began, shape (N,)."""
        ...

    def probability(self, time_s: float) -> FloatArray | None:
        """Return the true P(available at `time_s`) of each client, shape (N,), or None where it is unknown."""
        ...


@dataclass(frozen=True)
class World:
    """What is known of a run beside its history.

    It never changes, but where the data are the devices' own: there each round has a World of its own, with what the
    devices that have registered by then have told of their data.

    Attributes:
        seed: the run's seed.
        num_clients: N.
        per_round: m, how many clients a round wants.
        interval_s: seconds of virtual time from one round to the next.
        num_samples: training examples per client, 0 where unknown, shape (N,).
        label_counts: training examples per client and label, shape (N, number of labels); (N, 0) where unknown.
        availability: the model that drives the experiment; None in a live run, where nobody knows the truth.
        mean_utility: the true mean utility per participation, shape (N,), in `schedule` only; else None.
    """

    seed: int
    num_clients: int
    per_round: int
    interval_s: float
    num_samples: IntArray
    label_counts: IntArray
    availability: AvailabilityProcess | None = None
    mean_utility: FloatArray | None = None

    def true_availability(self, time_s: float) -> FloatArray:
        """Return the true P(available at `time_s`) of each client, shape (N,), nan where nobody knows it."""
        truth = None if self.availability is None else self.availability.probability(time_s)
        return np.full(self.num_clients, np.nan) if truth is None else truth


@dataclass(frozen=True)
class View:
    """What a selector sees.

    Attributes:
        round: the round's number, from 1.
        time_s: seconds since the run began.
        available: indices of the available clients, ascending, int64.
        count: how many to select, at least 1 and at most ``len(available)``.
        ledger: the history up to the end of the round before.
        world: the facts beside the history.
    """

    round: int
    time_s: float
    available: IntArray
    count: int
    ledger: Ledger
    world: World


@dataclass(frozen=True)
class Selection:
    """Whom a selector chose.

    Attributes:
        clients: the chosen indices, ascending, int64, distinct, all available, at most ``view.count`` of them.
        probability: P(selected | all that the selector saw), shape (N,), 0 for the unavailable, summing to
            ``len(clients)``; None where the selector has no tractable one.
    """

    clients: IntArray
    probability: FloatArray | None


@dataclass(frozen=True)
class Update:
    """What a client learned in a round.

    Attributes:
        client: the client's index.
        delta: the client's model minus the model it was sent, float32, shape (d,); with `engine.pre_aggregate` the
            weighted mean of these over the clients that were trained together.
        num_samples: training examples of the client.
        train_loss: mean training loss over the client's local epochs.
        loss_before: the client's held-out loss of the model it was sent; nan where it has no held-out part.
        loss_after: its held-out loss after local training.
        control: change of the client's control variate (objective `scaffold`), shape (d,), or None.
        personal_accuracy: held-out accuracy of the client's personal model (objective `ditto`), or nan.
        staleness: rounds since the model that it trained from; 0 for an update of this round.
    """

    client: int
    delta: Vector
    num_samples: int
    train_loss: float
    loss_before: float = float("nan")
    loss_after: float = float("nan")
    control: Vector | None = None
    personal_accuracy: float = float("nan")
    staleness: int = 0


@dataclass(frozen=True)
class RoundContext:
    """What an aggregator may know beside the updates themselves.

    Attributes:
        round: the round's number, from 1.
        weights: the global model that was sent out, shape (d,). Not to be changed.
        registered: who is registered, shape (N,): all in an experiment, and at first fewer in a live run.
        available: who was available, shape (N,).
        selected: who was selected, shape (N,).
        probability: as in `Selection`.
        ledger: the history up to the end of the round before.
        world: the facts beside the history.
        local_lr: the clients' learning rate.
        local_epochs: the clients' number of epochs.
    """

    round: int
    weights: Vector
    registered: BoolArray
    available: BoolArray
    selected: BoolArray
    probability: FloatArray | None
    ledger: Ledger
    world: World
    local_lr: float
    local_epochs: int

    @property
    def known(self) -> BoolArray:
        """Who has ever registered, also before the coordinator was restarted, shape (N,)."""
        return self.registered | (self.ledger.first_round > 0)

    @property
    def population(self) -> int:
        """How many clients have ever registered: a mean over all clients is over these."""
        return int(np.sum(self.known))


@dataclass(frozen=True)
class Step:
    """What an aggregator returns.

    Attributes:
        direction: where the model should go, shape (d,); the server adds `server_lr` times this (or hands it to its
            optimiser). None leaves the model as it is.
        state: the state for the next round.
        client_weight: the weight that each client's (remembered) update had, shape (N,), nan where it had none;
            None where the rule has no such notion. Logged as `surrogate_weight`.
        notes: figures worth a line in the summary, such as a clip rate.
    """

    direction: Vector | None
    state: State
    client_weight: FloatArray | None = None
    notes: Mapping[str, float] = field(default_factory=dict)
