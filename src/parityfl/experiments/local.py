"""The engine of this machine, or of a Ray cluster: clients train in workers through the code that a container runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parityfl.config import Config
from parityfl.core.screening import update_fault
from parityfl.core.types import AvailabilityProcess, IntArray, Outcome
from parityfl.engine.fleet import Late, Presence, Reply, TrainTask
from parityfl.engine.folder import CLIENTS, RunFolder
from parityfl.engine.lockstep import LockstepFleet
from parityfl.engine.loop import run_rounds
from parityfl.experiments.batched import Batching, Trained, choose_batching
from parityfl.experiments.build import (
    WorkbenchEvaluator,
    build_conditions,
    build_spec,
    build_world,
    require_startable,
    say_availability,
)
from parityfl.experiments.children import cores
from parityfl.experiments.crew import Crew, Lost, Say, ThisProcess
from parityfl.experiments.jobs import Job, TrainJob
from parityfl.experiments.pooling import Pooling
from parityfl.experiments.ray import ray_crew
from parityfl.experiments.run import Watch
from parityfl.experiments.shared import Board, SharedHoldings
from parityfl.experiments.workers import Starvation, Station, WorkerProcess, prepare
from parityfl.training.holdings import Holdings, load_holdings
from parityfl.training.memory import ClientMemory

if TYPE_CHECKING:
    from parityfl.training.workbench import Workbench

SMALL_RUN = 10_000_000
"""Pixels that a whole run trains on, each as often as it is used, below which starting workers takes longer than it
saves: about a second of training."""

HELD_BYTES = 2**28
"""How much of a round's vectors may be held until it is their turn, so that the largest clients can begin first."""


def choose_workers(config: Config, holdings: Holdings) -> int:
    """Return how many processes train, by rule; the results do not depend on it. 1: this one does, without workers.

    As many as `engine.workers` says, but no more than there are clients to train.
    """
    if config.engine.workers is not None:
        return min(config.engine.workers, config.population.clients)
    images = config.rounds.count * config.population.per_round * holdings.num_samples.mean() * config.training.epochs
    return 1 if images * np.prod(holdings.shape) < SMALL_RUN else cores()


async def run_local(config: Config, out: Path, *, resume: bool, watch: Watch, say: Say) -> None:
    """Run a configuration of the `local` or `ray` engine into a folder; see `parityfl.experiments.run.execute`."""
    elsewhere = config.engine.name == "ray"
    if not elsewhere and (config.engine.workers or 1) > 1:
        prepare()  # else only when it is known how much there is to do
    holdings = load_holdings(config)
    workers = 1 if elsewhere else choose_workers(config, holdings)
    if workers > 1:
        prepare()
    from parityfl.training.workbench import Workbench  # noqa: PLC0415 - now that the workers import torch as well

    bench = Workbench(config, device="cpu" if elsewhere else None, holdings=holdings)  # as the actors compute
    world = build_world(config, bench.num_samples, bench.label_counts)
    spec = build_spec(config, world, bench.layout, bench.initial_weights)
    folder = RunFolder(out)
    if folder.check(spec.document, resume):
        return
    require_startable(config, world, bench.layout.size)
    assert world.availability is not None
    with ray_crew(bench, say) if elsewhere else local_crew(bench, workers, say) as crew, watch() as observer:
        folder.prepare(spec.document, resume)
        say_availability(config, world, say)
        memory = ClientMemory(out / CLIENTS) if config.objective.build().keeps_memory else None
        grouping = await choose_grouping(bench, crew, say)
        limit = config.security.max_update_norm
        clients = LocalFleet(crew, world.availability, bench.num_samples, memory, grouping, max_norm=limit)
        fleet = LockstepFleet(clients, world, build_conditions(config))
        observers = [] if observer is None else [observer]
        async with folder.locked():
            await run_rounds(spec, fleet, WorkbenchEvaluator(bench, crew), folder, observers=observers)


async def choose_grouping(bench: Workbench, crew: Crew, say: Say) -> Batching | Pooling | None:
    """Return which clients make one job; None where each is one of its own."""
    engine = bench.config.engine
    if engine.mode == "batched":
        return await choose_batching(bench, crew, say)
    return None if engine.pre_aggregate is None else Pooling(engine.pre_aggregate)


@contextmanager
def local_crew(bench: Workbench, workers: int, say: Say) -> Iterator[Crew]:
    """Yield who trains and evaluates on this machine; nobody is left afterwards.

    Args:
        bench: this process's workbench.
        workers: how many processes.
        say: tells the user what was chosen, and of losses.
    """
    board = Board(bench.layout.size)

    def here() -> ThisProcess:
        return ThisProcess(bench, board)

    spread = workers > 1 and bench.device.type == "cpu" and "__main__" not in bench.modules
    if spread:
        station = Station(bench.config, SharedHoldings.copy_of(bench.holdings), board, bench.modules)
        crew = Crew(_worker_processes(station, workers), board, here, say)
    else:
        crew = Crew([here()], board, None, say)
    wanted = bench.config.engine.workers or workers
    fewer = f" (engine.workers = {wanted}, but there are {workers} clients)" if spread and wanted > workers else ""
    say(f"{f'{workers} worker processes{fewer}' if spread else 'this process'}, one thread each, {bench.describe()}")
    try:
        yield crew
    finally:
        crew.close()


def _worker_processes(station: Station, count: int) -> list[WorkerProcess]:
    """Return so many workers; where one cannot be made, none of those before it stays."""
    starvation = Starvation()
    with ExitStack() as made:
        workers = [made.enter_context(closing(WorkerProcess(station, starvation))) for _ in range(count)]
        made.pop_all()  # from now on they are the crew's to close
    return workers


class LocalFleet:
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
