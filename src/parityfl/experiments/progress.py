"""What the terminal shows of a run: a progress bar, or one line per round where there is no terminal."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from parityfl.core.ledger import INVALID
from parityfl.core.types import Vector
from parityfl.engine.fleet import ClosedRound
from parityfl.experiments.suite import Cell, Result


class ProgressObserver:
    """Shows every round as it closes. A context manager: the bar is taken down on the way out, however it ends."""

    def __init__(self, console: Console, label: str) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._label = label
        self._has_refused = False
        self._task = self._bar.add_task(label, total=None, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, weights: Vector, rounds_done: int, rounds_total: int) -> None:
        """Set the bar to where the run begins."""
        self._bar.update(self._task, completed=rounds_done, total=rounds_total)

    def round_closed(self, closed: ClosedRound) -> None:
        """Advance the bar, or print the round's line; say once why an update was refused."""
        refused = np.flatnonzero(closed.record.outcome == INVALID).tolist()
        if refused and not self._has_refused:
            self._has_refused = True
            why = f"{closed.reasons.get(refused[0], 'no reason given')}; clients.csv has all (outcome invalid)"
            self._say(f"round {closed.record.round}: {len(refused)} of the updates refused, the first: {why}")
        line = describe(closed)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=closed.record.round, figures=line)
        else:
            self._say(f"round {closed.record.round}: {line}")

    def _say(self, line: str) -> None:
        self._console.print(f"{self._label} {line}", highlight=False, markup=False, soft_wrap=True)


class SuiteProgress:
    """Shows how a suite gets on: the cells that are over, and on a terminal a bar for each that is running.

    A context manager, as `ProgressObserver`.
    """

    def __init__(self, console: Console, cells: int) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._all = self._bars.add_task("runs", total=cells)
        self._running: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, cell: Cell) -> None:
        """Add the cell's bar."""
        self._running[cell.name] = self._bars.add_task(f"  {cell.name}", total=cell.config.rounds.count)

    def advanced(self, cell: Cell, rounds: int) -> None:
        """Move the cell's bar."""
        self._bars.update(self._running[cell.name], completed=rounds)

    def finished(self, result: Result) -> None:
        """Take the cell's bar away, and say in a line what became of it."""
        name = result.cell.name
        if name in self._running:
            self._bars.remove_task(self._running.pop(name))
        self._bars.advance(self._all)
        end = f"failed: {result.failure}" if result.failure else "done before" if result.skipped else "done"
        self._console.print(f"{name} {end}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def counting(console: Console, label: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, and nothing elsewhere; yield what advances it by one."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


def describe(closed: ClosedRound) -> str:
    """Return a round in one line."""
    figures = closed.figures
    people = f"{figures['num_participated']}/{figures['num_selected']} of {figures['num_available']} there"
    parts = [people]
    for label, column in (("accuracy", "global_accuracy"), ("gap", "conditional_selection_gap")):
        if not math.isnan(figures[column]):
            parts.append(f"{label} {figures[column]:.3f}")
    return ", ".join([*parts, f"{figures['round_s']:.2f} s"])
