"""Pre-aggregation: a worker trains several clients and sends back one vector for all of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from parityfl.core.aggregation.combine import pool
from parityfl.core.screening import update_fault
from parityfl.core.types import Update
from parityfl.workers.batched import Trained
from parityfl.workers.crew import Crew, Lost
from parityfl.workers.jobs import OfParts, TrainJob
from parityfl.workers.shared_memory import Board

if TYPE_CHECKING:
    from parityfl.training.workbench import Workbench


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
class Pooling:
    """How clients are shared out: successive ones together, so that the sums do not depend on who the workers are.

    Attributes:
        size: how many clients a job has, 1 or more; the last one of a round may have fewer.
    """

    size: int

    async def run(self, crew: Crew, jobs: Sequence[TrainJob]) -> AsyncGenerator[Trained | Lost, None]:
        """Yield the results of the clients' jobs, in order, each as soon as its group and all before it are there."""
        groups = [tuple(jobs[start : start + self.size]) for start in range(0, len(jobs), self.size)]
        async with aclosing(crew.run(PooledJob(group) for group in groups)) as outcomes:
            for group in groups:
                outcome = await anext(outcomes)
                for result in [outcome] * len(group) if isinstance(outcome, Lost) else outcome:
                    yield result
