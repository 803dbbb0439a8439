"""Rows of results: sides measured in turn, told as JSON lines on standard output, progress on standard error."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from statistics import median
from time import perf_counter

from setting import setting

REPEATS = 5
"""How often each side is measured; a quick run measures once and proves only that the script works."""


@dataclass(frozen=True)
class Row:
    """One side of one comparison.

    Attributes:
        name: what is measured, such as ``cnn, seconds a round``; the sides of a comparison share it.
        unit: of the figures, such as ``s``.
        side: whose figures these are, such as ``parityfl`` or ``bare loop``.
        median: nan where the side could not be measured.
        min: the least.
        max: the greatest.
        n: how many measurements; 0 where it could not be measured.
        command: what measured it.
        note: why it is missing, or a word about it.
        setting: with what it was measured; see `setting.py`.
    """

    name: str
    unit: str
    side: str
    median: float
    min: float
    max: float
    n: int
    command: str
    note: str = ""
    setting: str = ""


def row(name: str, unit: str, side: str, values: Sequence[float], note: str = "") -> Row:
    """Return the row of some measurements."""
    if not values:
        return Row(name, unit, side, nan, nan, nan, 0, command(), note or "missing", setting())
    return Row(name, unit, side, median(values), min(values), max(values), len(values), command(), note, setting())


def command() -> str:
    """Return the command that is running."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def emit(rows: Iterable[Row]) -> None:
    """Print rows."""
    for each in rows:
        plain = {key: None if value != value else value for key, value in asdict(each).items()}  # noqa: PLR0124 - nan
        print(json.dumps(plain), flush=True)


def read(text: str) -> list[Row]:
    """Return the rows of JSON lines."""
    documents = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [Row(**{key: nan if value is None else value for key, value in each.items()}) for each in documents]


def in_turn(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call all sides one after the other, and that so many times; return what each returned."""
    found: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side, measure in sides.items():
            found[side].append(measure())
            say(f"{repeat + 1}/{repeats} {side}: {found[side][-1]:.4g}")
    return found


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return a function that does the work and returns how many seconds it took."""

    def measure() -> float:
        began = perf_counter()
        work()
        return perf_counter() - began

    return measure


def say(text: str) -> None:
    """Tell how it gets on."""
    print(f"  {text}", file=sys.stderr, flush=True)


def parser(about: str | None) -> ArgumentParser:
    """Return a parser with what all scripts take."""
    made = ArgumentParser(description=(about or "").partition("\n")[0])
    made.add_argument("--quick", action="store_true", help="measure once, at the smallest size")
    return made


def repeats(arguments: Namespace) -> int:
    """Return how often to measure."""
    return 1 if arguments.quick else REPEATS
