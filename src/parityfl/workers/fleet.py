"""The crew as a fleet: its workers train the selected clients, through the code that a container runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import numpy as np

from parityfl.core.screening import update_fault
from parityfl.core.types import AvailabilityProcess, IntArray, Outcome
from parityfl.engine.fleet import Late, Presence, Reply, TrainTask
from parityfl.training.memory import ClientMemory
from parityfl.workers.crew import Crew, Lost
from parityfl.workers.grouping import Batching, Pooling
from parityfl.workers.jobs import Job, Trained, TrainJob

HELD_BYTES = 2**28
"""How much of a round's vectors may be held until it is their turn, so that the largest clients can begin first."""


class CrewFleet:
    """Every selected client trains, and completes unless its worker is lost or its update is refused.

    Args:
        crew: who trains.
        process: who is available when.
        num_samples: training examples of every client, shape (N,).
        memory: what clients keep between rounds; None where their objective keeps nothing.
        grouping: which clients make one job; None trains each by itself.
        max_norm: the largest norm of an update that is taken; None for any that is finite.
    """

    def __init__(
        self,
        crew: Crew,
        process: AvailabilityProcess,
        num_samples: IntArray,
        memory: ClientMemory | None,
        grouping: Batching | Pooling | None = None,
        *,
        max_norm: float | None = None,
    ) -> None:
        self._max_norm = max_norm
        self._grouping = grouping
        self._crew = crew
        self._process = process
        self._num_samples = num_samples
        self._memory = memory

    async def look(self, round: int, time_s: float) -> Presence:
        """Return who the availability model says is there."""
        available = self._process.available(time_s)
        return Presence(np.ones_like(available), available)

    async def train(self, task: TrainTask) -> AsyncGenerator[Reply, None]:
        """Have the crew train the clients; replies come in their order."""
        self._crew.board.put("weights", task.weights)
        if task.control is not None:
            self._crew.board.put("control", task.control)
        clients = task.clients.tolist()
        jobs = (self._job(task, client) for client in clients)
        if self._grouping is None:
            running = self._crew.run(jobs, self._ahead(task), partial(self._with_memory, task))
        else:
            running = self._grouping.run(self._crew, [await self._with_memory(task, job) for job in jobs])
        async with aclosing(running) as results:
            for client in clients:
                yield await self._reply(task, client, await anext(results))

    def _ahead(self, task: TrainTask) -> int | None:
        """Return how many clients may begin before the first one's result is fetched.

        All, where they can be held and there are several workers, between whom it matters which one begins first.
        """
        vectors = 1 + (task.control is not None) + (self._memory is not None)
        fits = len(task.clients) * vectors * task.weights.nbytes <= HELD_BYTES
        return len(task.clients) if fits and self._crew.size > 1 else None

    def late_updates(self) -> list[Late]:
        """Return none: nobody is late on this machine."""
        return []

    def _job(self, task: TrainTask, client: int) -> TrainJob:
        start = task.start(client)
        return TrainJob(
            round=task.round,
            client=client,
            start=None if start is task.weights else start,
            controlled=task.control is not None,
            memory=None,
            cost=int(self._num_samples[client]),
        )

    async def _with_memory(self, task: TrainTask, job: Job[Trained]) -> TrainJob:
        """Return a client's job with what the client keeps; where that must be read, off the event loop."""
        assert isinstance(job, TrainJob)
        base = int(task.memory_round[job.client])
        if self._memory is None or base == 0:
            return job
        kept = self._memory.held(job.client, base)
        if kept is None:
            kept = await asyncio.to_thread(self._memory.recall, job.client, base)
        return replace(job, memory=kept)

    async def _reply(self, task: TrainTask, client: int, result: Trained | Lost) -> Reply:
        if isinstance(result, Lost):
            return Reply(client, Outcome.FAILED, reason=result.reason, reproducible=False)
        update, kept = result
        fault = update_fault(update, self._max_norm)
        if kept is not None and self._memory is not None:
            base = int(task.memory_round[client])
            await asyncio.to_thread(self._memory.store, client, task.round, kept, base)
        return Reply(client, Outcome.INVALID, reason=fault) if fault else Reply(client, Outcome.COMPLETED, update)
