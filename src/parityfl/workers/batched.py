"""Batched mode: many small clients at once, by the fastest kernel that this machine has for them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from parityfl.core.types import Update, Vector
from parityfl.engine.fleet import Say
from parityfl.workers.crew import Crew, Lost
from parityfl.workers.jobs import RateJob, TrainJob, TrainManyJob

if TYPE_CHECKING:
    from parityfl.training.many import Kernel
    from parityfl.training.workbench import Workbench

LARGEST_GROUP = 64
"""Clients at once; more do not make a step cheaper, and their examples must fit into memory together."""

Trained = tuple[Update, Vector | None]


@dataclass(frozen=True)
class Batching:
    """How clients are trained together: those of a like size.

    Attributes:
        kernel: how a group is computed.
    """

    kernel: Kernel

    async def run(self, crew: Crew, jobs: Sequence[TrainJob]) -> AsyncGenerator[Trained | Lost, None]:
        """Yield the results of the clients' jobs, in order, when all are there."""
        groups = self._groups(jobs, crew.size)
        results: dict[int, Trained | Lost] = {}
        many = (TrainManyJob(tuple(jobs[place] for place in group), self.kernel) for group in groups)
        async with aclosing(crew.run(many)) as outcomes:
            for group in groups:
                outcome = await anext(outcomes)
                parts = [outcome] * len(group) if isinstance(outcome, Lost) else outcome
                results.update(zip(group, parts, strict=True))
        for place in range(len(jobs)):
            yield results.pop(place)

    def _groups(self, jobs: Sequence[TrainJob], workers: int) -> list[list[int]]:
        """Cut the jobs into groups of a like size, those with a memory apart from those without."""
        order = sorted(range(len(jobs)), key=lambda place: (jobs[place].memory is not None, jobs[place].cost))
        fresh = sum(job.memory is None for job in jobs)
        return [group for run in (order[:fresh], order[fresh:]) for group in _cut(run, group_size(len(jobs), workers))]


def group_size(clients: int, workers: int) -> int:
    """Return how many clients are trained at once: all, shared out among the workers."""
    return max(1, min(LARGEST_GROUP, ceil(clients / workers)))


def _cut(places: Sequence[int], size: int) -> list[list[int]]:
    return [list(places[start : start + size]) for start in range(0, len(places), size)]


async def choose_batching(bench: Workbench, crew: Crew, say: Say) -> Batching | None:
    """Measure the ways to train a group of clients and return the fastest; None where that is one after the other."""
    population = bench.config.population
    known = np.flatnonzero(bench.num_samples)[: group_size(population.per_round, crew.size)].tolist()
    costs = bench.num_samples.tolist()
    parts = tuple(TrainJob(0, client, None, controlled=False, memory=None, cost=costs[client]) for client in known)
    crew.board.put("weights", bench.initial_weights())
    ways = [None, *bench.kernels]
    rates = [(await crew.gather([RateJob(parts, way)]))[0] for way in ways]
    best = int(np.argmax(rates))
    kernel, gain = ways[best], rates[best] / rates[0]
    shown = ", ".join(f"{way or 'one by one'} {_shown(rate)}" for way, rate in zip(ways, rates, strict=True))
    say(f"batched mode, {len(parts)} clients at once, images/s: {shown}; {kernel or 'one by one'} it is ({gain:.1f} x)")
    return None if kernel is None else Batching(kernel)


def _shown(rate: float) -> str:
    return f"{rate:.0f}" if rate else "out of memory"
