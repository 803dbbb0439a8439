"""A crew does jobs side by side, hands their results out in order, and goes on when one of its workers is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from parityfl.core.errors import UnfinishedError
from parityfl.engine.fleet import Say
from parityfl.workers.jobs import Job, PooledJob, Trained, TrainManyJob, perform
from parityfl.workers.shared_memory import Board

if TYPE_CHECKING:
    from parityfl.training.workbench import Workbench

R = TypeVar("R")

Complete = Callable[[Job[Any]], Awaitable[Job[R]]]
"""Adds to a job what is fetched only once it has a worker, so that nothing is held for jobs that wait."""

AHEAD = 4
"""How many jobs per worker may be done or under way before the first of them is fetched."""

CHANCES = 2
"""How many workers may be lost over a job that is not `repeatable` until it is given up: it may be what kills them."""

PATIENCE = 3
"""How often in a row a worker may be lost without having done a job before it is given up."""


class WorkerLostError(Exception):
    """The process that a job was given to has ended.

    Args:
        reason: how it ended, for a message.
        charge: how many of the job's `CHANCES` this used up; 0 where it had not begun, as far as can be known.
        usable: whether another process has taken its place.
    """

    def __init__(self, reason: str, charge: int, usable: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.charge = charge
        self.usable = usable


class Worker(Protocol):
    """Does jobs one after the other.

    Attributes:
        depth: how many jobs it may be given at once, so that it need not wait for the next.
    """

    depth: int

    @property
    def starting(self) -> bool:
        """Whether it cannot work yet, and may never be able to: it is given nothing while another one can work."""
        ...

    async def run(self, job: Job[R]) -> R:
        """Do a job.

        Raises:
            WorkerLostError: its process has died.
            MemoryError: there is not enough memory.
        """
        ...

    def close(self) -> None:
        """End, whatever is under way."""
        ...


class ThisProcess:
    """A worker in this process: a thread, off the event loop."""

    depth = 1
    starting = False

    def __init__(self, bench: Workbench, board: Board) -> None:
        self._bench = bench
        self._board = board

    async def run(self, job: Job[R]) -> R:
        """Do a job in a thread."""
        return await asyncio.to_thread(perform, job, self._bench, self._board)

    def close(self) -> None:
        """Do nothing: there is no process to end."""


@dataclass(eq=False)
class _Post:
    """A worker, and what it has been given and has not done: how many jobs, and their cost."""

    worker: Worker
    jobs: int = 0
    cost: int = 0


@dataclass(frozen=True)
class Lost:
    """In the place of a result: the job's worker died, and the job is not done again."""

    reason: str


class Crew:
    """Workers and the board that they read from. Used from one event loop.

    Args:
        workers: who does the jobs.
        board: the model vectors of the round.
        substitute: makes a worker of this process, for when all others are gone; None where it is the only one.
        say: tells the user of losses.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        board: Board,
        substitute: Callable[[], Worker] | None,
        say: Say = lambda _: None,
    ) -> None:
        self.board = board
        self._posts = [_Post(worker) for worker in workers]
        self._substitute = substitute
        self._say = say
        self._arrivals = count()
        self._waiting: list[tuple[int, int, asyncio.Future[_Post]]] = []  # a heap of (- cost, arrival, place)

    @staticmethod
    def alone(bench: Workbench) -> Crew:
        """Return a crew of this process only."""
        board = Board(bench.layout.size)
        return Crew([ThisProcess(bench, board)], board, None)

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._posts)

    async def run(
        self, jobs: Iterable[Job[R]], ahead: int | None = None, complete: Complete[R] | None = None
    ) -> AsyncGenerator[R | Lost, None]:
        """Yield the jobs' results in order, each as soon as it and all before it are there.

        Only so many jobs are begun ahead of the one that is waited for, so memory does not grow with their number:
        `ahead`, or `AHEAD` for each worker. Of these the costliest begin first, so that none is left for the end. A job
        is done as `complete` returns it.
        """
        under_way: deque[asyncio.Task[R | Lost]] = deque()
        try:
            for job in jobs:
                under_way.append(asyncio.create_task(self._do(job, complete or _as_it_is)))
                if len(under_way) >= (ahead or AHEAD * self.size):
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)  # several may fail: only the first is raised

    async def run_groups(self, groups: Sequence[TrainManyJob | PooledJob]) -> AsyncGenerator[Trained | Lost, None]:
        """Yield the results of the groups' parts in order, each as soon as its group and all before it are there."""
        async with aclosing(self.run(groups)) as outcomes:
            for group in groups:
                outcome = await anext(outcomes)
                for result in [outcome] * len(group.parts) if isinstance(outcome, Lost) else outcome:
                    yield result

    async def gather(self, jobs: Iterable[Job[R]]) -> list[R]:
        """Return all results of repeatable jobs, in order."""
        async with aclosing(self.run(jobs)) as results:
            return [result async for result in results if not isinstance(result, Lost)]

    def close(self) -> None:
        """End all workers."""
        for post in self._posts:
            post.worker.close()

    async def _do(self, job: Job[R], complete: Complete[R]) -> R | Lost:
        charged = 0
        while True:
            async with self._place(job.cost) as post:
                try:
                    return await post.worker.run(await complete(job))
                except WorkerLostError as loss:
                    if not loss.usable:
                        self._dismiss(post, loss.reason)
                    charged += loss.charge
                    if charged >= CHANCES and not job.repeatable:
                        return Lost(loss.reason)
                except MemoryError as error:
                    self._run_short(post, error)

    @asynccontextmanager
    async def _place(self, cost: int) -> AsyncIterator[_Post]:
        """Wait for a place at a post, and hold it."""
        place: asyncio.Future[_Post] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (-cost, next(self._arrivals), place))
        asyncio.get_running_loop().call_soon(self._hand_out)  # once all jobs of this step wait
        try:
            yield await place
        finally:
            if place.done() and not place.cancelled():
                post = place.result()
                post.jobs, post.cost = post.jobs - 1, post.cost - cost
                self._hand_out()

    def _hand_out(self) -> None:
        """Give the costliest waiting job a place with the worker that has least to do, as long as that has one free.

        So no job waits behind a large one while other workers have less to do.
        """
        while self._waiting:
            post = min(self._posts, key=lambda post: (post.worker.starting, post.cost, post.jobs))
            if post.jobs >= post.worker.depth:
                return
            minus_cost, _, place = heappop(self._waiting)
            if not place.done():  # the job may have been cancelled
                post.jobs, post.cost = post.jobs + 1, post.cost - minus_cost
                place.set_result(post)

    def _run_short(self, post: _Post, error: MemoryError) -> None:
        if self._substitute is None:
            raise UnfinishedError(
                f"out of memory with one worker ({error}): lower training.batch_size or take a smaller model"
            ) from None
        self._dismiss(post, "out of memory")

    def _dismiss(self, post: _Post, reason: str) -> None:
        """Go on with one worker less; without any in this process."""
        if post not in self._posts:
            return
        self._posts.remove(post)
        post.worker.close()
        if not self._posts and self._substitute is not None:
            self._posts.append(_Post(self._substitute()))
            self._substitute = None
            self._say(f"{reason}: no worker process is left, going on in this process")
        else:
            self._say(f"{reason}: going on with {self.size} worker{'' if self.size == 1 else 's'}")


async def _as_it_is(job: Job[R]) -> Job[R]:
    return job
