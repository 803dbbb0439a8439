"""Batched mode: which clients are trained together, and how."""

import asyncio
from typing import Any

import numpy as np
import pytest
from workbenches import with_workers

from parityfl.training.workbench import Workbench
from parityfl.workers.crew import Crew, Lost, WorkerLostError
from parityfl.workers.grouping import Batching, choose_batching
from parityfl.workers.jobs import TrainJob
from parityfl.workers.shared_memory import Board


def test_a_kernel_that_there_is_no_memory_for_is_not_taken(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it cost a worker: the others are measured, here one by one and vmap."""
    train_many = bench.train_many

    def short_of_memory(*arguments: Any, **options: Any) -> Any:
        if options["kernel"] == "grouped":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return train_many(*arguments, **options)

    monkeypatch.setattr(bench, "train_many", short_of_memory)
    batching, said = with_workers(bench, 1, lambda crew: choose_batching(bench, crew, print))
    assert "grouped" in bench.kernels
    assert batching is None or batching.kernel == "vmap"
    assert len(said) == 1, "nobody was dismissed"


def jobs_of(costs: dict[int, int], memory: Any = None) -> list[TrainJob]:
    return [TrainJob(1, client, None, False, memory, cost) for client, cost in costs.items()]


def test_groups_are_of_a_like_size_and_apart_from_those_with_a_memory() -> None:
    """Five of eight clients have no memory; by size their order is 3 2 1 0 4, in two groups for each of two workers."""
    jobs = [*jobs_of({0: 9, 1: 8, 2: 7, 3: 6, 4: 9}), *jobs_of({5: 1, 6: 3, 7: 2}, np.zeros(1))]
    groups = Batching("vmap")._groups(jobs, 2)
    assert groups == [[3, 2, 1, 0], [4], [5, 7, 6]]


def test_a_lost_group_is_lost_for_each_of_its_clients_and_results_keep_their_order() -> None:
    class Flaky:
        depth = 1
        starting = False

        async def run(self, job: Any) -> Any:
            if job.parts[0].client == 2:
                raise WorkerLostError("its worker process died", charge=1, usable=True)
            return [(part.client, None) for part in job.parts]

        def close(self) -> None: ...

    async def work() -> list[Any]:
        crew = Crew([Flaky(), Flaky()], Board(1), Flaky)
        return [result async for result in Batching("vmap").run(crew, jobs_of({0: 4, 1: 3, 2: 1, 3: 2}))]

    lost = Lost("its worker process died")
    assert asyncio.run(work()) == [(0, None), (1, None), lost, lost]
