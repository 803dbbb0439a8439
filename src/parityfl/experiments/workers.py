"""Worker processes of the local engine: each a workbench of its own on one thread, its data shared with the others.

The standard library runs them, each in a pool of its own, so that one that is killed takes no other's work with it.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from parityfl.config import Config
from parityfl.experiments.crew import PATIENCE, WorkerLostError
from parityfl.experiments.jobs import Job, perform
from parityfl.experiments.shared import Board, SharedHoldings
from parityfl.experiments.shelf import Left, Place, Shelf, collect

if TYPE_CHECKING:
    from parityfl.training.workbench import Workbench

R = TypeVar("R")

_MAIN = threading.Lock()
"""Held by who has taken the main module away."""


def worker_context() -> BaseContext:
    """Return how processes are started.

    Where it can be relied on, a server process imports torch once and forks the workers from there; it is no fork of
    this process.
    """
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def prepare() -> None:
    """Begin to import torch in the server process from which workers are forked, while this process does the same."""
    context = worker_context()
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["parityfl.experiments.nursery"])
        with _bare_main():
            forkserver.ensure_running()


@dataclass(frozen=True)
class Station:
    """What a worker is given when it starts.

    Attributes:
        config: the resolved configuration.
        holdings: the data.
        board: where the round's model vectors are.
        modules: modules to import first, which register the model and the objective.
    """

    config: Config
    holdings: SharedHoldings
    board: Board
    modules: Sequence[str]


class WorkerProcess:
    """A worker in a process of its own, which begins to start at once; another takes its place when it dies."""

    depth = 2  # the next job waits in its pipe

    def __init__(self, station: Station) -> None:
        self._station = station
        self._shelf = Shelf(station.board.size)
        self._deaths = 0
        self._oom_kills = _oom_kills()
        self._closed = False
        self._start()

    async def run(self, job: Job[R]) -> R:
        """Do a job in the worker's process."""
        life, future, place = self._life, None, self._shelf.lend()
        try:
            await asyncio.shield(life.ready)
            future = life.pool.submit(_run, job, None if place is None else place.number)
            future.add_done_callback(partial(life.over, place))
            result = await asyncio.wrap_future(future)
        except BrokenProcessPool:
            usable = self._bury(life)
            at_work = life.death != "" and future is not None and future is life.victim
            raise WorkerLostError(life.death, charge=int(at_work), usable=usable) from None
        self._deaths = 0
        return collect(result, place)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._closed = True
        self._life.pool.shutdown(wait=False, cancel_futures=True)
        self._life.ready.add_done_callback(_kill)

    def _start(self) -> None:
        pool = ProcessPoolExecutor(1, worker_context(), initializer=_begin, initargs=(self._station, self._shelf))
        self._life = _Life(pool, asyncio.create_task(asyncio.to_thread(_meet, pool)))

    def _bury(self, life: _Life) -> bool:
        """Replace a dead process, once for all jobs that it had; return whether the worker can go on."""
        if self._closed or life is not self._life:
            return not self._closed
        self._deaths += 1
        before, self._oom_kills = self._oom_kills, _oom_kills()
        starved = self._oom_kills > before
        life.death = "its worker process was killed for want of memory" if starved else "its worker process died"
        usable = self._deaths <= PATIENCE and not starved
        if usable:
            self._start()
        return usable


@dataclass
class _Life:
    """One process of a worker.

    Attributes:
        pool: runs it.
        ready: done when it can work.
        victim: what it was working on when it ended. A job that meets the dead pool may hear of the end before that
            one does, so who hears first says nothing.
        death: how it ended; empty while it lives, and when it was ended on purpose.
    """

    pool: ProcessPoolExecutor
    ready: asyncio.Task[psutil.Process]
    victim: Future[Any] | None = None
    death: str = ""

    def over(self, place: Place | None, done: Future[Any]) -> None:
        """Note the first job that a dead pool gives up, which gives them up in the order in which they were given.

        Until then `place` is held, also for a job that nobody waits for any more: the process may still write there.
        """
        if self.victim is None and not done.cancelled() and isinstance(done.exception(), BrokenProcessPool):
            self.victim = done


_place: tuple[Workbench, Board, Shelf] | None = None
"""In a worker's process: its workbench, the board, and the shelf for its updates."""


def _begin(station: Station, shelf: Shelf) -> None:
    """Set up a worker's process; called in it, once."""
    global _place  # noqa: PLW0603 -- a pool's initializer has no other way to hand something to its jobs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then ends this one
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    from parityfl.training.workbench import Workbench  # noqa: PLC0415 - torch, which this module's other users are spared

    for module in station.modules:
        import_module(module)
    _place = Workbench(station.config, device="cpu", holdings=station.holdings.open()), station.board, shelf
    gc.freeze()  # what stands now stays: the collector need not look through torch's objects again and again


def _run(job: Job[R], number: int | None) -> R | Left:
    """Do a job and leave an update in a place of the shelf, if there is one; called in a worker's process."""
    assert _place is not None
    bench, board, shelf = _place
    result = perform(job, bench, board)
    return result if number is None else shelf.leave(result, number)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _meet(pool: ProcessPoolExecutor) -> psutil.Process:
    """Have a pool start its process and return that, ready for work."""
    with _bare_main():
        future = pool.submit(os.getpid)
    return psutil.Process(future.result())


def _kill(ready: asyncio.Task[psutil.Process]) -> None:
    with suppress(psutil.NoSuchProcess, BrokenProcessPool, RuntimeError, asyncio.CancelledError):
        ready.result().kill()


def _oom_kills() -> int:
    """Return how many processes this machine has killed for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def _bare_main() -> Iterator[None]:
    """Keep multiprocessing from running the user's script again in the processes that are started inside.

    It would do so to find there what the script defines, of which a worker needs nothing.
    """
    with _MAIN:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
