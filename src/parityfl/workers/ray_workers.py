"""Workers that are actors on a Ray cluster, and train and evaluate through the code that a container runs.

An actor is a worker of the crew: it has the data and a workbench, takes any client's job, and answers in the crew's
order. The data and the round's model vectors lie in Ray's object store, once a node, whatever the number of actors.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from parityfl.config import Config
from parityfl.core.errors import ConfigError, ParityflError, first_line
from parityfl.core.types import Vector
from parityfl.engine.fleet import Say
from parityfl.workers.crew import CHANCES, PATIENCE, Crew, ThisProcess, WorkerLostError
from parityfl.workers.jobs import Job, PooledJob, TrainJob, perform
from parityfl.workers.ray_cluster import connected
from parityfl.workers.shared_memory import Board

if TYPE_CHECKING:
    from parityfl.training.holdings import Holdings
    from parityfl.training.workbench import Workbench

R = TypeVar("R")

_TOO_LONG = "its Ray actor was not done in the time of a round (rounds.deadline_s, rounds.train_timeout_s)"

START_S = 60.0
"""How long an actor may take to start, with torch to import."""


@contextmanager
def ray_crew(bench: Workbench, say: Say, start_s: float = START_S) -> Iterator[Crew]:
    """Yield the crew of actors that trains and evaluates; no actor is left afterwards.

    Args:
        bench: this process's workbench.
        say: tells the user what was chosen, and of losses.
        start_s: how long an actor may take to start: beyond that the cluster has no place for it.

    Raises:
        ConfigError: Ray is not installed, or the cluster could not know the model or the objective.
        FleetError: there is no cluster at `engine.address`.
    """
    config = bench.config
    if "__main__" in bench.modules:
        raise ConfigError(
            "engine.name = 'ray' with a model or objective that is defined in the script itself: put it into a module "
            "that every node can import, or use engine.name = 'local'"
        )
    with connected(config.engine.address) as ray:
        board = RayBoard(ray, bench.layout.size)
        places = int(ray.cluster_resources().get("CPU", 0))
        wanted = config.engine.workers or places
        count = max(1, min(wanted, places))
        timer = RoundTimer(config.rounds.net_s)
        setup = ActorSetup(ray, config, ray.put(bench.holdings), board, bench.modules, timer, start_s)
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        fewer = f" (engine.workers = {wanted}, but there are {places} CPUs)" if wanted > count else ""
        cluster = f"a cluster of {nodes} node{'' if nodes == 1 else 's'}"
        say(f"{count} Ray actors on {cluster}{fewer}, one thread each, {bench.describe()}")
        crew = Crew([RayWorker(setup) for _ in range(count)], board, lambda: ThisProcess(bench, board), say)
        try:
            yield crew
        finally:
            crew.close()


class RayBoard(Board):
    """A board whose vectors also lie in the object store.

    Attributes:
        references: where, by name; a name that was never put up has none.
    """

    def __init__(self, ray: Any, size: int) -> None:
        super().__init__(size)
        self._ray = ray
        self.references: dict[str, Any] = {}

    def put(self, name: str, vector: Vector) -> None:
        """Put up a vector; actors that still read the one before it are not disturbed."""
        super().put(name, vector)
        self.references[name] = self._ray.put(vector)


class RoundTimer:
    """Tells how long a round may still take: so many seconds from when its first job was given out.

    The run's deadlines are seeded, on the virtual clock; this limit, by the wall clock, is for what is broken.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._round = 0
        self._ends = 0.0

    def left(self, job: Job[R]) -> float | None:
        """Return the seconds left for a job; None for one that belongs to no round."""
        if not isinstance(job, TrainJob | PooledJob):
            return None
        if job.round != self._round:
            self._round, self._ends = job.round, time.monotonic() + self._seconds
        return max(0.0, self._ends - time.monotonic())


@dataclass(frozen=True)
class ActorSetup:
    """What an actor is given when it starts.

    Attributes:
        ray: the package, connected.
        config: the resolved configuration.
        holdings: reference to the data.
        board: where the round's model vectors are.
        modules: modules to import first, which register the model and the objective.
        timer: when a round closes.
        start_s: how long it may take.
    """

    ray: Any
    config: Config
    holdings: Any
    board: RayBoard
    modules: Sequence[str]
    timer: RoundTimer
    start_s: float


class Actor:
    """In a process on some node: a workbench."""

    def __init__(self, config: Config, holdings: Holdings, modules: Sequence[str]) -> None:
        from parityfl.training.workbench import Workbench  # noqa: PLC0415 - torch, in the actor's process only

        for module in modules:
            import_module(module)
        self._bench = Workbench(config, device="cpu", holdings=holdings)

    def ready(self) -> int:
        """Return the process's number, once it can work."""
        return os.getpid()

    def run(self, job: Job[R], names: Sequence[str], *vectors: Vector) -> R:
        """Do a job with these vectors on the board."""
        board: Mapping[str, Vector] = dict(zip(names, vectors, strict=True))
        return perform(job, self._bench, board)  # type: ignore[arg-type] # it is only read from


class RayWorker:
    """A worker on the cluster; another takes its place, wherever there is room, when it or its node is lost.

    What was under way is done again, since training is a pure function of the round and the client: until the round
    has taken too long, after which the client's slot is lost.
    """

    depth = 2  # the next job waits in the actor's queue

    def __init__(self, setup: ActorSetup) -> None:
        self._setup = setup
        errors = setup.ray.exceptions
        self._deaths = (errors.RayActorError, errors.OutOfMemoryError, errors.ObjectLostError)
        self._losses = 0
        self._closed = False
        self._start()

    @property
    def starting(self) -> bool:
        """Whether its actor cannot work yet: the cluster may have no room for it."""
        return not self._ready.done()

    async def run(self, job: Job[R]) -> R:
        """Do a job in the actor."""
        ready, left_s = self._ready, self._setup.timer.left(job)
        if left_s == 0:
            raise WorkerLostError(_TOO_LONG, charge=CHANCES, usable=not self._closed)
        try:
            async with asyncio.timeout(left_s):
                actor = await asyncio.shield(ready)
                references = self._setup.board.references
                result: R = await actor.run.remote(job, list(references), *references.values())
        except TimeoutError:
            raise self._overdue(ready) from None
        except (*self._deaths, _NoPlaceError) as error:
            raise self._loss(ready, job, error) from None
        except ParityflError as error:  # Ray's own class of it, whose text is a traceback
            raise getattr(error, "cause", error) from error
        self._losses = 0
        return result

    def close(self) -> None:
        """End the actor, whatever it is doing."""
        self._closed = True
        self._ready.cancel()
        self._end()

    def _start(self) -> None:
        self._make()
        self._ready = asyncio.create_task(self._meet())
        self._ready.add_done_callback(_seen)

    def _make(self) -> None:
        setup = self._setup
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        options["enable_task_events"] = False  # the head node would keep 3 KB of every client of every round
        made = setup.ray.remote(**options)(Actor)
        self._actor = made.remote(setup.config, setup.holdings, setup.modules)

    async def _meet(self) -> Any:
        """Return the actor once it can work; make it again where it is lost before: its node may just have died.

        Raises:
            _NoPlaceError: it takes too long, or is lost too often.
        """
        seconds, lost = self._setup.start_s, 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        await self._actor.ready.remote()
                        return self._actor
                    except self._deaths as error:
                        lost += 1
                        if lost > PATIENCE:
                            raise _NoPlaceError(first_line(error)) from None
                    self._end()
                    self._make()
        except TimeoutError:
            raise _NoPlaceError(f"no node has room for an actor within {seconds:g} s") from None

    def _loss(self, ready: asyncio.Task[Any], job: Job[R], error: Exception) -> WorkerLostError:
        """Replace the lost actor, once for all jobs that it had; the job is done again while there is time."""
        reason = f"its Ray actor was lost ({first_line(error)})"
        if ready is self._ready and not self._closed:
            self._losses += 1
            self._end()
            self._closed = self._losses > PATIENCE or isinstance(error, _NoPlaceError)
            if not self._closed:
                self._start()
        # one of the jobs that an actor had when it was given up may be what kills it: nobody else is given them
        hopeless = self._losses > PATIENCE or self._setup.timer.left(job) == 0
        return WorkerLostError(reason, charge=CHANCES if hopeless else 0, usable=not self._closed)

    def _overdue(self, ready: asyncio.Task[Any]) -> WorkerLostError:
        """End an actor that is still at it when the round has closed; one that has yet to start is not."""
        if ready is self._ready and ready.done() and not self._closed:
            self._end()
            self._start()
        return WorkerLostError(_TOO_LONG, charge=CHANCES, usable=not self._closed)

    def _end(self) -> None:
        with suppress(Exception):  # it may be gone, and so may the cluster
            self._setup.ray.kill(self._actor)


class _NoPlaceError(Exception):
    """The cluster has no room for an actor, or none that lasts."""


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at a failure to start, so that asyncio does not log it: whoever waits for the actor is told."""
    if not task.cancelled():
        task.exception()
