"""Cells of a suite as processes of this machine, forked where everything is imported that a run needs.

To import torch and matplotlib takes longer than a small run does.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, TYPE_CHECKING, Any

from parityfl.experiments.child_processes import stop
from parityfl.workers.cores import CORES
from parityfl.workers.fork_server import context, leave_with_parent, open_server, start

if TYPE_CHECKING:
    from parityfl.experiments.suite import Running

NEEDED = (
    "parityfl.cli", "parityfl.experiments.local", "parityfl.workers.preload", "parityfl.experiments.progress",
    "matplotlib.figure", "matplotlib.backends.backend_svg", "jinja2",
)  # fmt: skip
"""What every cell needs, but nothing that starts threads when imported, as polars does: a fork would lack them."""

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2


def prepare() -> None:
    """Begin to import what cells need where they are forked from, while this process does other things."""
    open_server(NEEDED)


@asynccontextmanager
async def launch_fork(arguments: Sequence[str], errors: IO[bytes], *, share: int) -> AsyncIterator[Running]:
    """Start one of our commands as a process; it ends with the context, and with this process.

    Args:
        arguments: the command and its arguments.
        errors: where its standard error goes.
        share: how many cores it may use, at least 1.
    """
    prepare()
    theirs: Connection[Any, Any] = Connection(os.dup(errors.fileno()), readable=False)
    process = context().Process(target=_command, args=(theirs, tuple(arguments), share))
    starting = asyncio.create_task(_started(process, theirs))
    try:
        yield await asyncio.shield(starting)
    finally:
        await stop(await starting)  # what is not there yet cannot be stopped


async def _started(process: BaseProcess, given: Connection[Any, Any]) -> ForkedRun:
    await asyncio.to_thread(start, process, given)
    return ForkedRun(process)


class ForkedRun:
    """A process that has been started; used from one event loop."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(process.sentinel, self._hear_end)

    @property
    def returncode(self) -> int | None:
        """Its exit code; minus the signal that killed it; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """Ask it to leave."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def _hear_end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        self._ended.set_result(self._process.exitcode)


def _command(errors: Connection[Any, Any], arguments: Sequence[str], share: int) -> None:
    """Be a command: the main function of a cell's process."""
    leave_with_parent()
    with errors, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), _STANDARD_OUTPUT)
        os.dup2(errors.fileno(), _STANDARD_ERROR)
    os.environ[CORES] = str(share)
    sys.argv = ["parityfl", *arguments]
    runpy.run_module("parityfl", run_name="__main__", alter_sys=True)
