"""A grid of runs: every combination of the values that a suite lists, each a run in a folder of its own.

A suite is a TOML file: configuration tables that all runs share, and a table `[grid]` of configuration keys with a list
of values each; a value may be a table where the key is a section. Runs are processes of their own, so that one that
fails or is killed takes no other with it.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Protocol

import psutil

from parityfl.config import Config, read_file, resolve
from parityfl.core.errors import ConfigError, FolderError, first_line
from parityfl.core.machine import available_memory
from parityfl.engine.folder import RunFolder, disk_errors, is_empty
from parityfl.telling import PREFIX
from parityfl.workers.cores import cores

LONGEST_NAME = 80
"""Characters of a cell's name; a longer one is cut and told apart by its configuration's hash."""

RUN_BYTES = 2**31
"""How much memory a run is taken to need, where nobody says how many are to be done at a time."""

LOGS = "logs"
"""The folder of a suite's folder where the runs' standard errors go; it is made before anything else."""

LOOK_EVERY_S = 0.5
"""How often the progress of running cells is read from their folders."""


@dataclass(frozen=True)
class Cell:
    """One run of a suite: the name of its folder, and its configuration."""

    name: str
    config: Config


@dataclass(frozen=True)
class Result:
    """What became of a cell.

    Attributes:
        cell: which.
        skipped: it had been done before.
        failure: why it is not done, '' where it is.
    """

    cell: Cell
    skipped: bool = False
    failure: str = ""


class Watcher(Protocol):
    """Told how a suite gets on."""

    def started(self, cell: Cell) -> None:
        """A cell's process has been started."""
        ...

    def advanced(self, cell: Cell, rounds: int) -> None:
        """A running cell has closed so many rounds."""
        ...

    def finished(self, result: Result) -> None:
        """A cell is done, was done before, or has failed."""
        ...


class Running(Protocol):
    """A process that has been started."""

    async def wait(self) -> int:
        """Wait for its end and return its exit code; below 0 is minus the signal that killed it."""
        ...


Launch = Callable[[Sequence[str], IO[bytes]], AbstractAsyncContextManager[Running]]
"""Starts one of our commands, given its arguments and where its standard error goes; it ends with the context."""


def usual_jobs(cells: int) -> int:
    """Return how many of so many runs to do at a time on this machine: one a core, as far as there is memory."""
    free = min(psutil.virtual_memory().available, available_memory())  # known on every system, and in a container
    return max(1, min(cells, cores(), int(free // RUN_BYTES)))


def read_suite(path: Path) -> list[Cell]:
    """Return the cells of a suite file, in the order of its grid; of several that are the same run, the first.

    Raises:
        ConfigError: the file cannot be read, or a cell's configuration is wrong; the message says which cell's.
    """
    base = dict(read_file(path))
    table = base.pop("grid", {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"grid in {path} is no table: write [grid] once, with a list of values for each key")
    grid = dict(_axes(table))
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    several = [key for key, values in grid.items() if len(values) > 1] or list(grid)
    unique: dict[str, tuple[str, Config]] = {}
    for chosen in combinations:
        name = "-".join(_word(key, chosen[key]) for key in several) or path.stem
        config = _resolved(base, chosen, name)
        unique.setdefault(config.hash, (name, config))
    return _named(list(unique.values()))


async def run_suite(
    cells: Sequence[Cell], out: Path, *, jobs: int, resume: bool, watcher: Watcher, launch: Launch
) -> list[Result]:
    """Run the cells that are not done, `jobs` at a time, each into a folder of its own under `out`.

    A cell that a run under `out` has begun goes on in that run's folder: its name may have been another when the grid
    was smaller.

    Args:
        cells: what to run.
        out: the folder: absent or empty, or with `resume` one of this suite.
        jobs: how many runs at a time, at least 1.
        resume: skip the cells that are done, and go on with those that are not.
        watcher: told how it gets on.
        launch: starts a run.

    Returns:
        What became of each cell, in their order.

    Raises:
        FolderError: `out` is not empty and `resume` is off, or what is in it is no suite, or it cannot be written.
    """
    with disk_errors(out):
        _check_folder(out, resume)
        (out / LOGS).mkdir(parents=True, exist_ok=True)
    begun, places = _begun(out), asyncio.Semaphore(jobs)
    with TemporaryDirectory(prefix="parityfl-") as scratch:

        async def run(cell: Cell) -> Result:
            folder = begun.get(cell.config.hash, out / cell.name)
            async with places:
                if cell.config.hash in begun and _is_done(folder):
                    result = Result(cell, skipped=True)
                else:
                    result = await _outcome(cell, folder, Path(scratch), watcher, launch)
            watcher.finished(result)
            return result

        try:
            async with asyncio.TaskGroup() as group:  # which waits for all, also when they are cancelled
                tasks = [group.create_task(run(cell)) for cell in cells]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def absent(results: Sequence[Result], out: Path) -> list[str]:
    """Return a line for each cell that failed and of which there are no rows under `out`."""
    there = {configuration for configuration, folder in _begun(out).items() if (folder / "rounds.csv").exists()}
    return [
        f"{result.cell.name} is missing: {result.failure}"
        for result in results
        if result.failure and result.cell.config.hash not in there
    ]


def _axes(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield the dotted keys of the grid with their values."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _axes(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value:
            yield f"{prefix}{key}", value
        else:
            raise ConfigError(f"grid.{prefix}{key} = {value!r}: give a list of at least one value{_such_as(value)}")


def _such_as(value: Any) -> str:
    return "" if value == [] else f", such as [{value!r}]"


def _resolved(base: Mapping[str, Any], chosen: Mapping[str, Any], name: str) -> Config:
    try:
        config = resolve([base], chosen)
    except ConfigError as error:
        raise ConfigError(f"cell {name}: {error}") from None
    if not config.rounds.virtual:
        raise ConfigError(f"cell {name}: rounds.clock = 'wall' needs devices of its own: a suite takes 'virtual'")
    return config


def _word(key: str, value: Any) -> str:
    """Return how a value of the grid reads in a cell's name."""
    section, _, last = key.rpartition(".")
    if isinstance(value, Mapping):
        rest = (f"{last}{_text(item)}" for last, item in value.items() if last != "name")
        return _clean("-".join([str(value.get("name", key)), *rest]))
    plain = key == "method" or (last == "name" and section)
    return _clean(_text(value) if plain else f"{last}{_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "_".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _clean(text: str) -> str:
    text = re.sub(r"(?<=\de)\+(?=\d)", "", text)  # 1e+39, lest it read like 1e-39
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")


def _named(found: Sequence[tuple[str, Config]]) -> list[Cell]:
    """Return cells with distinct names of bounded length."""
    names = [name for name, _ in found]

    def distinct(name: str, config: Config) -> str:
        fits = names.count(name) == 1 and len(name) <= LONGEST_NAME
        return name if fits else f"{name[:LONGEST_NAME]}-{config.hash[:8]}"

    return [Cell(distinct(name, config), config) for name, config in found]


def _check_folder(out: Path, resume: bool) -> None:
    """Raise FolderError unless a suite may write into the folder."""
    if is_empty(out):
        return
    if not resume:
        raise FolderError(f"output folder {out} is not empty: choose another --out, or go on with --resume")
    if (out / "config.json").exists():
        raise FolderError(f"output folder {out} holds a single run, and no suite to resume: choose another --out")
    if not (out / LOGS).is_dir() and not any(out.glob("*/config.json")):
        raise FolderError(f"output folder {out} holds no suite to resume: choose another --out")


def _begun(out: Path) -> dict[str, Path]:
    """Return the folders under `out` in which there is a run, by the hash of its configuration; of several one done."""
    folders = [path.parent for path in sorted(out.glob("*/config.json"))]
    folders.sort(key=_is_done)
    return {_hash_in(folder): folder for folder in folders}


def _is_done(folder: Path) -> bool:
    """Return whether the run in a folder has come to its end, as far as its summary can be read."""
    try:
        return bool(RunFolder(folder).summary().get("status") == "done")
    except OSError:
        return False


def _hash_in(folder: Path) -> str:
    """Return the hash of the configuration of the run in a folder; '' where there is none that can be read."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


async def _outcome(cell: Cell, folder: Path, scratch: Path, watcher: Watcher, launch: Launch) -> Result:
    """Run a cell. What keeps it from being started is its failure: the others may have what it lacks, or have begun."""
    try:
        return Result(cell, failure=await _run_cell(cell, folder, scratch, watcher, launch))
    except (OSError, EOFError) as error:  # the latter where the process from which cells are forked is gone
        return Result(cell, failure=f"it could not be run ({first_line(error)})")


async def _run_cell(cell: Cell, folder: Path, scratch: Path, watcher: Watcher, launch: Launch) -> str:
    """Return why the cell's run is not done, '' where it is."""
    file, log = scratch / f"{cell.name}.json", folder.parent / LOGS / f"{cell.name}.log"
    file.write_text(json.dumps(cell.config.document()), encoding="utf-8")
    watcher.started(cell)
    with log.open("wb") as errors:
        async with launch(["run", str(file), "--out", str(folder), "--resume"], errors) as process:
            code = await _wait(process, cell, folder, watcher)
    return _reason(code, log) if code else ""


async def _wait(process: Running, cell: Cell, folder: Path, watcher: Watcher) -> int:
    """Return the process's exit code, telling of the rounds that it closes meanwhile."""
    while True:
        with suppress(TimeoutError):
            return await asyncio.wait_for(process.wait(), LOOK_EVERY_S)
        watcher.advanced(cell, _rounds_closed(folder))


def _rounds_closed(folder: Path) -> int:
    try:
        return max(0, (folder / "rounds.csv").read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def _reason(code: int, log: Path) -> str:
    """Return why a run ended as it did: its signal, or its exit code and last words."""
    if code < 0:
        return f"killed by signal {-code}; see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1].removeprefix(PREFIX) if lines else "no message"
    return f"{said} (exit code {code}; see {log})"
