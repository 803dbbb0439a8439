"""Which clients make one job: those of a like size in batched mode, successive ones where updates are pooled.

Batched mode trains many small clients at once, by the fastest kernel that this machine has for them. With pooling, or
pre-aggregation, a worker trains several clients and sends back one vector for all of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from parityfl.engine.fleet import Say
from parityfl.workers.crew import Crew, Lost
from parityfl.workers.jobs import PooledJob, RateJob, Trained, TrainJob, TrainManyJob

if TYPE_CHECKING:
    from parityfl.training.many import Kernel
    from parityfl.training.workbench import Workbench

T = TypeVar("T")

LARGEST_GROUP = 64
"""Clients at once; more do not make a step cheaper, and their examples must fit into memory together."""


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
        many = [TrainManyJob(tuple(jobs[place] for place in group), self.kernel) for group in groups]
        trained = [result async for result in crew.run_groups(many)]
        results = dict(zip(chain.from_iterable(groups), trained, strict=True))
        trained.clear()  # so that each is held no longer than until it is asked for
        for place in range(len(jobs)):
            yield results.pop(place)

    def _groups(self, jobs: Sequence[TrainJob], workers: int) -> list[Sequence[int]]:
        """Cut the jobs into groups of a like size, those with a memory apart from those without."""
        order = sorted(range(len(jobs)), key=lambda place: (jobs[place].memory is not None, jobs[place].cost))
        fresh = sum(job.memory is None for job in jobs)
        size = group_size(len(jobs), workers)
        return [group for run in (order[:fresh], order[fresh:]) for group in _cut(run, size)]


@dataclass(frozen=True)
class Pooling:
    """How clients are shared out: successive ones together, so that the sums do not depend on who the workers are.

    Attributes:
        size: how many clients a job has, 1 or more; the last one of a round may have fewer.
    """

    size: int

    def run(self, crew: Crew, jobs: Sequence[TrainJob]) -> AsyncGenerator[Trained | Lost, None]:
        """Yield the results of the clients' jobs, in order, each as soon as its group and all before it are there."""
        return crew.run_groups([PooledJob(tuple(group)) for group in _cut(jobs, self.size)])


def group_size(clients: int, workers: int) -> int:
    """Return how many clients are trained at once: all, shared out among the workers."""
    return max(1, min(LARGEST_GROUP, ceil(clients / workers)))


def _cut(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


async def choose_grouping(bench: Workbench, crew: Crew, say: Say) -> Batching | Pooling | None:
    """Return which clients make one job; None where each is one of its own."""
    engine = bench.config.engine
    if engine.mode == "batched":
        return await choose_batching(bench, crew, say)
    return None if engine.pre_aggregate is None else Pooling(engine.pre_aggregate)


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
