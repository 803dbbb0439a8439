"""What stands below the figures that compare methods: some of it depends on what they show."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from parityfl.reporting.comparison import Row
from parityfl.reporting.method_figures import ACCURACIES, PARITIES, UNBOUNDED, fronts

COMPRESSED = f" The axis of a ratio that exceeds {UNBOUNDED} is logarithmic above 1."


def captions(rows: Sequence[Row]) -> dict[str, str]:
    """Return the captions of `METHOD_FIGURES`, by name."""
    return {
        "accuracy": f"Thick: mean over seeds. Thin: each seed.{_coinciding(rows, ACCURACIES)}",
        "parity": "Utility CV means little without credited / net beside it. Axes show the range after the first "
        f"quarter of the rounds.{COMPRESSED}{_coinciding(rows, PARITIES)}",
        "trade-off": "Mean over seeds at the last evaluated round, with its 95 % interval where there are two seeds or "
        f"more, cut where a figure cannot be.{COMPRESSED}{_front(rows)}",
        "clients": "Left: the share of all utility that the least served clients have together, a line per seed. "
        "Right: each client's accuracy against how often it was there.",
    }


def _front(rows: Sequence[Row]) -> str:
    """Return what the line is, '' where none is drawn."""
    if not any(len(front) > 1 for front in fronts(rows).values()):
        return ""
    return (
        " The line joins the methods that no other beats in both figures (the Pareto front of the means; intervals "
        "that overlap leave it open)."
    )


def _coinciding(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """Return which methods have the same curves in which panels, '' where none have."""
    panels: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for column, title in titles.items():
        for methods in _alike(rows, column):
            panels[methods].append(title[0].lower() + title[1:])
    found = [f"{_joined(methods)} coincide in {_joined(where)}" for methods, where in panels.items()]
    return f" One curve hides others: {'; '.join(found)}." if found else ""


def _alike(rows: Sequence[Row], column: str) -> list[tuple[str, ...]]:
    """Return the methods whose runs have the same figure in every round, where two or more do."""
    groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for row in rows:
        if any(run.rounds[column].count() for run in row.runs):
            groups[tuple((run.seed, *run.rounds[column]) for run in row.runs)].append(row.method)
    return [tuple(methods) for methods in groups.values() if len(methods) > 1]


def _joined(names: Sequence[str]) -> str:
    """Return names as a sentence has them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
