"""Cells of a suite as tasks of a Ray cluster, whose nodes all see the suite's folder under the same path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from parityfl.experiments.local_cells import launch_fork
from parityfl.experiments.suite import Running

RETRIES = 3
"""How often a cell whose node was lost goes on elsewhere."""


@asynccontextmanager
async def launch_task(arguments: Sequence[str], errors: IO[bytes], *, ray: Any) -> AsyncIterator[Running]:
    """Start a `run` command on some node, on one core; it ends with the context.

    Args:
        arguments: the command, its configuration file, and its options, among them an absolute ``--out``.
        errors: where its standard error goes, once it has ended.
        ray: the package, connected.
    """
    command, file, *options = arguments
    text = await asyncio.to_thread(Path(file).read_text, encoding="utf-8")
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(run_there).remote(command, text, options)
    running = RunningTask(task, errors)
    try:
        yield running
    finally:
        if not running.ended:
            ray.cancel(task, force=True)


class RunningTask:
    """A task that may be waited for several times."""

    def __init__(self, task: Any, errors: IO[bytes]) -> None:
        self._errors = errors
        self._result = asyncio.ensure_future(_awaited(task))

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._result.done()

    async def wait(self) -> int:
        """Return the command's exit code once it has ended."""
        code, said = await asyncio.shield(self._result)
        self._errors.write(said)
        return code


def run_there(command: str, configuration: str, options: Sequence[str]) -> tuple[int, bytes]:
    """Run a command to its end and return its exit code and what it said; called on a node, in a process of Ray's."""
    return asyncio.run(_run(command, configuration, options))


async def _run(command: str, configuration: str, options: Sequence[str]) -> tuple[int, bytes]:
    with TemporaryDirectory(prefix="parityfl-") as scratch:
        file, log = Path(scratch) / "config.json", Path(scratch) / "log"
        file.write_text(configuration, encoding="utf-8")
        with log.open("wb") as errors:
            async with launch_fork([command, str(file), *options], errors, share=1) as process:
                code = await process.wait()
        return code, log.read_bytes()


async def _awaited(task: Any) -> tuple[int, bytes]:
    """Return a task's result; one that Ray has given up counts as a failure that says why."""
    try:
        result: tuple[int, bytes] = await task
    except Exception as error:  # whatever Ray raises, the cell has failed
        return 1, f"{type(error).__name__}: {error}".partition("\n")[0].encode()
    return result
