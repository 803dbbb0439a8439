"""Processes of our own: started on a leash, stopped with us; and work of ours that stops when we are told to."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Protocol

from parityfl.core.machine import available_cores

CORES = "PARITYFL_CORES"
"""Names in the environment how many cores a run may use; without it all that the process may."""

STOP_PATIENCE_S = 15.0
"""How long a child may take to leave after it was asked to."""


def cores() -> int:
    """Return how many cores this process may use, at least 1."""
    given = os.environ.get(CORES, "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return available_cores()


def let_go_first(process: int | str = "self") -> None:
    """See that the kernel, where it lacks memory, ends this process of ours and none that cannot be replaced (Linux).

    Else it takes the largest. Anybody may offer a process of their own; no right is needed.
    """
    with contextlib.suppress(OSError):  # another system, or it has ended already
        Path(f"/proc/{process}/oom_score_adj").write_text("1000", encoding="ascii")


@asynccontextmanager
async def child(
    arguments: Sequence[str],
    *,
    stdout: IO[bytes] | int | None = DEVNULL,
    stderr: IO[bytes] | int | None = None,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """Start one of our commands on a leash; on the way out ask it to stop, and make sure that it did.

    Args:
        arguments: the command and its arguments, without ``--leash``.
        stdout: where its standard output goes; None for where ours goes.
        stderr: the same for its standard error.
        pass_fds: descriptors that it inherits.
        environment: variables of its own, beside ours.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "parityfl",
        *arguments,
        "--leash",
        stdin=PIPE,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        pass_fds=pass_fds,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        await stop(process)


class Stoppable(Protocol):
    """A process, of asyncio or of multiprocessing.

    Attributes:
        returncode: its exit code; minus the signal that killed it; None while it runs.
    """

    @property
    def returncode(self) -> int | None: ...  # noqa: D102 - see above

    async def wait(self) -> int:
        """Wait for its end and return its exit code."""
        ...

    def terminate(self) -> None:
        """Ask it to leave."""
        ...

    def kill(self) -> None:
        """End it."""
        ...


async def stop(process: Stoppable) -> None:
    """Ask a child to leave, and make sure that it does."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_PATIENCE_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def run_until_stopped(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a coroutine to its end; SIGTERM stops it as Ctrl-C does, with a KeyboardInterrupt after it has cleaned up."""

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work()

    before = signal.getsignal(signal.SIGTERM)
    try:
        asyncio.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # which the loop has put back to the system's own
