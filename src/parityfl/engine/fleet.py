"""The one seam between the round loop and the outside world: a fleet of clients, near or far."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

from parityfl.core.ledger import Ledger, RoundRecord
from parityfl.core.rounds import Result
from parityfl.core.types import BoolArray, FloatArray, IntArray, Update, Vector, World


@dataclass(frozen=True)
class Facts:
    """What devices have told of data that are their own. C is the number of labels.

    Attributes:
        num_samples: training examples, 0 where unknown, shape (N,).
        label_counts: the same by label, shape (N, C).
    """

    num_samples: IntArray
    label_counts: IntArray


@dataclass(frozen=True)
class Presence:
    """What the coordinator sees when a round begins, each of shape (N,).

    Attributes:
        registered: who has ever registered.
        available: who could take part now.
        facts: what is known by now of the devices' own data; None where the data are the run's.
    """

    registered: BoolArray
    available: BoolArray
    facts: Facts | None = None

    def world(self, known: World) -> World:
        """Return the facts of the run as they are in this round."""
        if self.facts is None:
            return known
        return replace(known, num_samples=self.facts.num_samples, label_counts=self.facts.label_counts)


@dataclass(frozen=True)
class TrainTask:
    """What a round asks of its selected clients.

    Attributes:
        round: the round's number, from 1.
        time_s: seconds since the run began; on the virtual clock both sides evaluate availability at this time.
        clients: whom to ask, indices, ascending.
        weights: the global model, shape (d,).
        start: the model that a client trains from: `weights` itself unless the aggregation rule says otherwise.
        control: the server's control variate (objective `scaffold`), shape (d,), or None.
        memory_round: for each client the last round that it completed, shape (N,), 0 for never: what a client keeps
            between rounds (objective `ditto`) must be as of that round.
        deadline_s: seconds after which a reply is late, on the run's own clock; the fleet may have a shorter one.
    """

    round: int
    time_s: float
    clients: IntArray
    weights: Vector
    start: Callable[[int], Vector]
    control: Vector | None
    memory_round: IntArray
    deadline_s: float = inf


@dataclass(frozen=True)
class Reply(Result):
    """How one selected client's round ended: an update, or a reason.

    Attributes:
        reason: one line for the log, empty when completed.
        reproducible: whether a repetition with the same seed would come to the same outcome; not so where a wall-clock
            time-out, a lost worker, the wire or a broken client decided it. Then the run is not deterministic.
    """

    reason: str = ""
    reproducible: bool = True


@dataclass(frozen=True)
class Late:
    """An update that comes after its round has closed.

    Attributes:
        update: the update, with the staleness that it has in the round that it enters.
        enters: that round, the first one to begin after it has come.
    """

    update: Update
    enters: int

    @property
    def origin(self) -> int:
        """The round in which its client was asked."""
        return self.enters - self.update.staleness


@dataclass(frozen=True)
class ClientEvaluation:
    """The global model on the clients' own held-out parts, each of shape (N,), nan where nobody measured."""

    loss: FloatArray
    accuracy: FloatArray


class Fleet(Protocol):
    """Clients that can be looked at and asked to train."""

    async def look(self, round: int, time_s: float) -> Presence:
        """Return who is there at the beginning of a round."""
        ...

    def train(self, task: TrainTask) -> AsyncGenerator[Reply, None]:
        """Yield exactly one reply for each of `task.clients`, in their order, and end by the round's deadline.

        A reply is yielded as soon as it and all before it are there, so that updates are folded while later ones
        are still on their way. Nothing that a client does raises.
        """
        ...

    def late_updates(self) -> list[Late]:
        """Return, once each, the updates that came, or are known to come, after their round had closed."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """A model measured: on the test set and on every client's held-out part; nan where nobody measured.

    Attributes:
        global_loss: mean test loss.
        global_accuracy: test accuracy.
        ema_global_accuracy: test accuracy of the server's moving average of the model.
        clients: the clients' held-out parts.
    """

    global_loss: float
    global_accuracy: float
    ema_global_accuracy: float
    clients: ClientEvaluation


class Evaluator(Protocol):
    """Measures a model and its moving average, off the event loop."""

    async def __call__(self, round: int, weights: Vector, average: Vector, *, on_test_set: bool = True) -> Evaluation:
        """Evaluate the model after `round` (0: the initial model), both vectors of shape (d,).

        The clients' held-out parts are measured always, the global figures only `on_test_set`.
        """
        ...


@dataclass(frozen=True)
class ClosedRound:
    """A round that is over, as observers see it.

    Attributes:
        record: what happened to every client.
        ledger: the history, this round included.
        figures: the row of rounds.csv by column, nan where unknown.
        weights: the model after the round, not to be changed.
        reasons: one line for each selected client that did not complete, by index.
    """

    record: RoundRecord
    ledger: Ledger
    figures: Mapping[str, float]
    weights: Vector
    reasons: Mapping[int, str]


class Observer(Protocol):
    """Told of every round: a progress bar, the web page's events, a test."""

    def started(self, weights: Vector, rounds_done: int, rounds_total: int) -> None:
        """Called once with the model that the next round begins with."""
        ...

    def round_closed(self, closed: ClosedRound) -> None:
        """Called after a round is in the journal and the CSV files."""
        ...


Watch = Callable[[], AbstractContextManager[Observer | None]]
"""Makes what watches a run that really starts, such as a progress bar."""

Say = Callable[[str], None]
"""Tells the user one line."""
