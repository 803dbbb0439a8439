"""What a workbench can be asked to do, as values that can be sent to the process in which one stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from traceback import clear_frames
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from parityfl.core.aggregation.combine import pool
from parityfl.core.errors import first_line
from parityfl.core.screening import update_fault
from parityfl.core.types import BoolArray, FloatArray, Update, Vector
from parityfl.training.holdings import PartName
from parityfl.workers.shared_memory import Board

if TYPE_CHECKING:
    from parityfl.training.many import Kernel
    from parityfl.training.workbench import Workbench

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Trained = tuple[Update, Vector | None]
"""A client's update, and what the client keeps."""


class Job(Protocol[R_co]):
    """A piece of work, the same wherever it is done.

    Attributes:
        repeatable: whether it is done again however often the process that does it dies.
        cost: how many images it looks at, which says how long it takes beside others of its kind.
    """

    repeatable: ClassVar[bool]

    @property
    def cost(self) -> int: ...  # noqa: D102 - see above

    def run(self, bench: Workbench, board: Board) -> R_co:
        """Do it."""
        ...


@dataclass(frozen=True)
class TrainJob:
    """Train one client.

    Attributes:
        round: the round's number.
        client: the client's index.
        start: the model that it trains from; None for the weights on the board.
        controlled: whether the board has the server's control variate.
        memory: what the client kept, or None.
        cost: its training examples.
    """

    repeatable: ClassVar[bool] = False

    round: int
    client: int
    start: Vector | None
    controlled: bool
    memory: Vector | None
    cost: int

    def run(self, bench: Workbench, board: Board) -> Trained:
        """Return the client's update and what it keeps."""
        start = board["weights"] if self.start is None else self.start
        return bench.train(self.round, self.client, start, board["control"] if self.controlled else None, self.memory)


@dataclass(frozen=True)
class OfParts:
    """Several clients' jobs as one.

    Attributes:
        parts: each client's own job, of one round.
    """

    parts: tuple[TrainJob, ...]

    @property
    def cost(self) -> int:
        """The cost of all parts."""
        return sum(part.cost for part in self.parts)


@dataclass(frozen=True)
class TrainManyJob(OfParts):
    """Train several clients at once; all or none of the parts have a memory.

    Attributes:
        kernel: how.
    """

    repeatable: ClassVar[bool] = False

    kernel: Kernel

    def run(self, bench: Workbench, board: Board) -> list[Trained]:
        """Return what each part would, but for the last digits."""
        first = self.parts[0]
        return bench.train_many(
            first.round,
            [part.client for part in self.parts],
            [board["weights"] if part.start is None else part.start for part in self.parts],
            kernel=self.kernel,
            control=board["control"] if first.controlled else None,
            memories=[part.memory for part in self.parts if part.memory is not None] or None,
        )


@dataclass(frozen=True)
class PooledJob(OfParts):
    """Train clients one after the other; memory and answer are those of one update, whatever their number.

    None of the parts has a memory.
    """

    repeatable: ClassVar[bool] = False

    @property
    def round(self) -> int:
        """The round's number."""
        return self.parts[0].round

    def run(self, bench: Workbench, board: Board) -> list[Trained]:
        """Return the clients' updates, pooled; one that is to be refused is kept out and comes as it is."""
        refused: list[Update] = []
        weigh = bench.config.aggregator.build().weight
        assert weigh is not None, "a configuration that asks for this with another rule is refused"

        def sound() -> Iterator[Update]:
            for part in self.parts:
                update, _ = part.run(bench, board)
                if update_fault(update, bench.config.security.max_update_norm):
                    refused.append(update)
                else:
                    yield update

        pooled = pool(sound(), weigh, bench.layout.size)
        known = {update.client: update for update in [*pooled, *refused]}
        return [(known[part.client], None) for part in self.parts]


@dataclass(frozen=True)
class RateJob(OfParts):
    """Measure how many images a second a way of training does, the best of three tries; what is learned is dropped.

    The rate is 0 where there is not enough memory for the kernel.

    Attributes:
        kernel: how; None for one after the other.
    """

    repeatable: ClassVar[bool] = True

    kernel: Kernel | None

    def run(self, bench: Workbench, board: Board) -> float:
        """Return images a second."""
        try:
            return self.cost / min(self._seconds(bench, board) for _ in range(3))
        except (MemoryError, RuntimeError) as error:
            if self.kernel is None or not _is_short_of_memory(error):
                raise
            return 0.0

    def _seconds(self, bench: Workbench, board: Board) -> float:
        began = perf_counter()
        if self.kernel is None:
            for part in self.parts:
                part.run(bench, board)
        else:
            TrainManyJob(self.parts, self.kernel).run(bench, board)
        return perf_counter() - began


@dataclass(frozen=True)
class MeasureJob:
    """Measure a model of the board on the examples from `start` to `stop` of a part."""

    repeatable: ClassVar[bool] = True

    model: str
    part: PartName
    start: int
    stop: int

    @property
    def cost(self) -> int:
        """The examples."""
        return self.stop - self.start

    def run(self, bench: Workbench, board: Board) -> tuple[FloatArray, BoolArray]:
        """Return each example's loss and correctness."""
        return bench.measure(self.part, board[self.model], self.start, self.stop)


def perform(job: Job[R], bench: Workbench, board: Board) -> R:
    """Do a job.

    Raises:
        MemoryError: there is not enough memory, however torch says so.
        PartError: the model or the objective is one of another package and raised.
    """
    with bench.blaming():
        try:
            return job.run(bench, board)
        except (MemoryError, RuntimeError) as error:
            if not _is_short_of_memory(error):
                raise
            clear_frames(error.__traceback__)  # it holds what the job had, and who does the job next needs the memory
            raise MemoryError(first_line(error)) from None


def _is_short_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text
