"""Commands of ours as processes of their own, which are asked to stop on the way out and end with this process."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import IO, Protocol

from parityfl.workers.cores import ONE_THREAD

STOP_PATIENCE_S = 15.0
"""How long a child may take to leave after it was asked to."""


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
        env={**os.environ, **ONE_THREAD, **(environment or {})},
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
