"""Workers that are processes of this machine: each has a workbench of its own on one thread, and shares its data.

The standard library's multiprocessing starts them, and each has a pipe of its own, which ends with the process: so one
that is killed takes no other's work with it, and nothing stands between a job and its worker but that pipe.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, TypeVar

from parityfl.config import Config
from parityfl.core.errors import first_line
from parityfl.engine.fleet import Say
from parityfl.workers.crew import PATIENCE, Crew, ThisProcess, WorkerLostError
from parityfl.workers.fork_server import context, leave_with_parent, open_server, start
from parityfl.workers.jobs import Job, perform
from parityfl.workers.oom import Starvation, let_go_first
from parityfl.workers.shared_memory import Board, SharedHoldings
from parityfl.workers.shared_updates import Left, Place, Shelf, collect

if TYPE_CHECKING:
    from parityfl.training.workbench import Workbench

R = TypeVar("R")

_FITS_BYTES = 2**15 if sys.platform == "linux" else 2**11
"""The longest message that the event loop sends itself: a worker has at most two, and the pipe takes both even if the
worker reads neither. The pipe is a pair of sockets, which hold 200 KiB on Linux and 8 on macOS. Were it full, the event
loop would wait for a worker that waits for the event loop."""


def prepare() -> None:
    """Begin to import torch in the process from which workers are forked, while this process does the same."""
    open_server(["parityfl.workers.preload"])


@dataclass(frozen=True)
class WorkerSetup:
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
    """A worker in a process of its own, which begins to start at once; another takes its place when it dies.

    Args:
        setup: what it is given.
        starvation: tells whether it died for want of memory, after which no other takes its place; one for all workers.
    """

    depth = 2  # the next job waits in its pipe
    starting = False  # a process always starts, or is known at once not to

    def __init__(self, setup: WorkerSetup, starvation: Starvation | None = None) -> None:
        self._setup = setup
        self._starvation = starvation or Starvation()
        self._shelf = Shelf(setup.board.size)
        self._deaths = 0
        self._closed = False
        self._life = _Life(setup, self._shelf)

    async def run(self, job: Job[R]) -> R:
        """Do a job in the worker's process."""
        life, place = self._life, self._shelf.lend()
        try:
            result = await life.ask(job, place)
        except _EndedError as end:
            reason, usable = self._bury(life)
            raise WorkerLostError(reason, charge=int(end.at_work), usable=usable) from None
        self._deaths = 0
        return collect(result, place)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._closed = True
        self._life.end()

    def _bury(self, life: _Life) -> tuple[str, bool]:
        """Replace a dead process, once for all jobs that it had; return how it died and if the worker can go on."""
        if life is self._life and not self._closed:
            self._deaths += 1
            starved = self._starvation.struck()
            died = "its worker process was killed for want of memory" if starved else "its worker process died"
            life.death = life.unstarted or died
            if self._deaths <= PATIENCE and not starved:
                life.end()
                self._life = _Life(self._setup, self._shelf)
        return life.death, life is not self._life and not self._closed


@contextmanager
def local_crew(bench: Workbench, workers: int, say: Say) -> Iterator[Crew]:
    """Yield the crew that trains and evaluates on this machine; no worker is left afterwards.

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
        setup = WorkerSetup(bench.config, SharedHoldings.copy_of(bench.holdings), board, bench.modules)
        crew = Crew(_worker_processes(setup, workers), board, here, say)
    else:
        crew = Crew([here()], board, None, say)
    wanted = bench.config.engine.workers or workers
    fewer = f" (engine.workers = {wanted}, but there are {workers} clients)" if spread and wanted > workers else ""
    say(f"{f'{workers} worker processes{fewer}' if spread else 'this process'}, one thread each, {bench.describe()}")
    try:
        yield crew
    finally:
        crew.close()


def _worker_processes(setup: WorkerSetup, count: int) -> list[WorkerProcess]:
    """Return so many workers; where one cannot be made, none of those before it stays."""
    starvation = Starvation()
    with ExitStack() as made:
        workers = [made.enter_context(closing(WorkerProcess(setup, starvation))) for _ in range(count)]
        made.pop_all()  # from now on they are the crew's to close
    return workers


class _EndedError(Exception):
    """The process has ended.

    Args:
        at_work: whether it did this job when it ended by itself.
    """

    def __init__(self, at_work: bool) -> None:
        super().__init__()
        self.at_work = at_work


@dataclass(frozen=True)
class _Given:
    """A job that a process has; its place is held until the process can no longer write there."""

    answer: asyncio.Future[Any]
    place: Place | None


class _Life:
    """One process of a worker, and the pipe to it: it answers one job after the other, in their order.

    Attributes:
        death: how it ended: by us, unless somebody has looked and found otherwise.
        unstarted: that it could not be started, and why; '' where it could, or nobody knows yet.
    """

    def __init__(self, setup: WorkerSetup, shelf: Shelf) -> None:
        self.death = "its worker process was ended"
        self.unstarted = ""
        self._given: deque[_Given] = deque()
        self._giving = asyncio.Lock()
        self._ready = False
        self._ended = False
        self._pipe, theirs = context().Pipe()  # which ends with the process
        self._process = context().Process(target=_work, args=(theirs, setup, shelf), daemon=True)
        self._starting = asyncio.create_task(self._begin(theirs))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipe.fileno(), self._hear)

    async def ask(self, job: Job[R], place: Place | None) -> R | Left:
        """Return what the process makes of a job.

        Raises:
            _EndedError: it ended before.
        """
        given = _Given(self._loop.create_future(), place)
        message = ForkingPickler.dumps((job, None if place is None else place.number))
        if len(message) <= _FITS_BYTES and not self._giving.locked():  # the pipe takes it at once
            self._enter(given)
            self._send(message)
        else:
            await asyncio.shield(self._give(given, message))  # if cancelled half-way, it would spoil the pipe
        answer: R | Left = await given.answer
        return answer

    def end(self) -> None:
        """End the process, whatever it is doing: no job has brought that about."""
        self._give_up(by_itself=False)
        self._kill()

    async def _begin(self, theirs: Connection[Any, Any]) -> None:
        """Start the process; where that fails keep why, and close its end of the pipe, as if it had ended."""
        try:
            await asyncio.to_thread(self._start, theirs)
        except Exception as error:  # whatever it is, no job has brought it about
            self.unstarted = f"its worker process could not be started ({first_line(error)})"
            theirs.close()

    def _start(self, theirs: Connection[Any, Any]) -> None:
        """Start the process, in a thread, which may come to it only after `end`."""
        start(self._process, theirs)
        if self._ended:  # who ended it found no process yet
            self._kill()

    async def _give(self, given: _Given, message: memoryview) -> None:
        async with self._giving:
            self._enter(given)
            await asyncio.to_thread(self._send, message)

    def _enter(self, given: _Given) -> None:
        if self._ended:
            raise _EndedError(at_work=False)
        self._given.append(given)

    def _send(self, message: memoryview) -> None:
        with suppress(OSError):  # the process has ended, which `_hear` notices
            self._pipe.send_bytes(message)

    def _hear(self) -> None:
        """Take an answer, of which the first bytes are there and the rest is soon, or notice the end of the process."""
        try:
            said = self._pipe.recv_bytes()
        except (EOFError, OSError):
            self._loop.remove_reader(self._pipe.fileno())
            self._starting.add_done_callback(lambda _: self._give_up(by_itself=True))  # once it is known if it started
            return
        result, error = _read(said)
        if not self._ready:
            self._ready = True
            return
        answer = self._given.popleft().answer
        if not answer.done():
            answer.set_result(result) if error is None else answer.set_exception(error)

    def _give_up(self, *, by_itself: bool) -> None:
        self._loop.remove_reader(self._pipe.fileno())
        self._ended = True
        for number, given in enumerate(self._given):
            if not given.answer.done():
                given.answer.set_exception(_EndedError(at_work=by_itself and self._ready and number == 0))

    def _kill(self) -> None:
        if self._process.is_alive():
            self._process.kill()


def _work(owner: Connection[Any, Any], setup: WorkerSetup, shelf: Shelf) -> None:
    """Do what is asked until nobody can ask any more; the main function of a worker's process."""
    leave_with_parent()
    let_go_first()
    from parityfl.training.workbench import Workbench  # noqa: PLC0415 - torch, which this module's other users are spared

    for module in setup.modules:
        import_module(module)
    bench = Workbench(setup.config, device="cpu", holdings=setup.holdings.open())
    gc.freeze()  # what stands now stays: the collector need not look through torch's objects again and again
    with owner, suppress(EOFError, ConnectionError):
        owner.send((None, None))
        while True:
            asked = owner.recv_bytes()
            try:
                job, number = ForkingPickler.loads(asked)
                result = perform(job, bench, setup.board)
                answer = ForkingPickler.dumps((result if number is None else shelf.leave(result, number), None))
            except Exception as error:  # the owner's to judge
                answer = _told(error)
            owner.send_bytes(answer)


def _told(error: Exception) -> memoryview:
    """Return an answer that is an error: itself or, where that cannot be sent, its traceback."""
    text = traceback.format_exc()
    error.add_note(text)
    try:
        answer = ForkingPickler.dumps((None, error))
        ForkingPickler.loads(answer)
    except Exception:  # some cannot be pickled, and some not unpickled
        return ForkingPickler.dumps((None, RuntimeError(text)))
    return answer


def _read(said: bytes) -> tuple[Any, Exception | None]:
    """Return the result or the error that was sent; that it cannot be unpickled is an error, too."""
    try:
        result, error = ForkingPickler.loads(said)
    except Exception as fault:  # such as where its class is another one here
        return None, fault
    return result, error
