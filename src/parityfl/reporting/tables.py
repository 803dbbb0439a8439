"""The comparison as a CSV file, as Markdown, and as the text of tables."""

from collections.abc import Sequence
from math import isinf
from pathlib import Path
from typing import Any

import polars as pl

from parityfl.files import replace_file
from parityfl.reporting.comparison import METRICS, Comparison, Difference, Metric, Row
from parityfl.reporting.intervals import Estimate
from parityfl.reporting.reaching import TARGETS, Pace, paces

UNKNOWN = "–"
NO_PAIRS = "No pairs: a difference needs a baseline run and another method's run with the same seed and setting."


def comparison_frame(comparison: Comparison) -> pl.DataFrame:
    """Return a row per setting and method.

    Each figure has its mean, its interval (`_low`, `_high`) and, for methods other than the baseline, the mean paired
    difference over seeds with its interval, number of pairs and sign-test p (`_difference`, `_difference_low`,
    `_difference_high`, `_difference_pairs`, `_difference_sign_p`). How soon it is where the baseline ends stands in
    `_reached_round`, the median over seeds, and `_reached_runs`, how many runs got there. What is unknown is null.
    """
    by_seed = {(d.setting, d.method, d.metric.column): d for d in comparison.differences if d.pairs == "seeds"}
    pace = {(found.setting, found.method, found.target.column): found for found in paces(comparison)}
    return pl.DataFrame(
        [_record(row, by_seed, comparison.baseline) | _reached(row, pace) for row in comparison.rows],
        infer_schema_length=None,
    )


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write `comparison_frame`."""
    replace_file(path, comparison_frame(comparison).write_csv().encode(), shared=True)


def write_markdown(comparison: Comparison, path: Path) -> None:
    """Write the comparison's tables and notes as Markdown."""
    replace_file(path, markdown(comparison).encode(), shared=True)


def markdown(comparison: Comparison) -> str:
    """Return the comparison's tables and notes as Markdown."""
    parts = [_markdown_table(comparison_cells(comparison)), *_markdown_differences(comparison)]
    parts += _markdown_paces(comparison)
    notes = [*comparison.unpaired, *comparison.notes]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    made = [f"Made with {made_with(comparison)}.", f"Manifest: {comparison.manifest}"] if comparison.manifest else []
    return "\n\n".join([*parts, READING, *made]) + "\n"


def made_with(comparison: Comparison) -> str:
    """Return the versions that the runs that count were made with."""
    return ", ".join(f"{name} {version}" for name, version in comparison.versions.items()) or "unknown versions"


def comparison_cells(comparison: Comparison) -> list[list[str]]:
    """Return the comparison table as text, its header first."""
    several = len(comparison.settings) > 1
    header = [
        "Method",
        "Parts",
        *(metric.title for metric in comparison.metrics),
        "Runs",
        "Clients",
        "Rounds",
        "Seeds",
    ]
    rows = [[row.method, row.parts, *_figures(row, comparison.metrics), *_counts(row)] for row in comparison.rows]
    if not several:
        return [header, *rows]
    return [["Setting", *header], *([row.setting, *cells] for row, cells in zip(comparison.rows, rows, strict=True))]


def difference_cells(differences: Sequence[Difference]) -> list[list[str]]:
    """Return paired differences as text, the header first."""
    several = len({difference.setting for difference in differences}) > 1
    header = ["Method", "Figure", "Mean difference", "95 % interval", "Pairs", "Larger in", "Sign test p", "Verdict"]
    rows = [[*([d.setting] if several else []), *_difference_row(d)] for d in differences]
    return [[*(["Setting"] if several else []), *header], *rows]


def pace_cells(found: Sequence[Pace]) -> list[list[str]]:
    """Return how soon methods are where the baseline ends as text, the header first."""
    several = len({pace.setting for pace in found}) > 1
    header = ["Method", "Figure", "To reach", "Median round", "Rounds", "Reached in"]
    rows = [[*([pace.setting] if several else []), *_pace_row(pace)] for pace in found]
    return [[*(["Setting"] if several else []), *header], *rows]


def number(value: float | None, signed: bool = False) -> str:
    """Return a figure with three decimals, as all in its column have; only from a million on with a power of ten."""
    if value is None:
        return UNKNOWN
    return format(value, f"{'+' if signed else ''}.3{'f' if abs(value) < 1e6 else 'e'}")


def significant(value: float | None) -> str:
    """Return a figure of any scale with three significant digits."""
    return UNKNOWN if value is None else format(value, ".3g")


def interval(estimate: Estimate, signed: bool = False) -> str:
    """Return an interval's ends."""
    if estimate.low is None:
        return UNKNOWN
    return f"[{number(estimate.low, signed)}, {number(estimate.high, signed)}]"


READING = (
    "Accuracies are fractions of 1. A figure is the mean over seeds at the last evaluated round, with its 95 % "
    "t interval where there are two seeds or more. Utility CV and Jain are to be read with credited / net and net-gain "
    "CV: a method that forgets and earns the same gain again is credited for it every time."
)


def _record(row: Row, by_seed: dict[tuple[str, str, str], Difference], baseline: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "setting": row.setting or None,
        "method": row.method,
        "selector_aggregator": row.parts,
        "status": f"missing: {row.missing}" if row.missing else "ok",
        "baseline": baseline,
        "runs": len(row.runs),
        "clients": row.clients,
        "rounds": row.rounds,
        "seeds": row.seeds or None,
    }
    for metric in METRICS:
        record |= _columns(metric.column, row.estimates[metric.column])
    for metric in METRICS:
        record |= _difference_columns(metric.column, by_seed.get((row.setting, row.method, metric.column)))
    return record


def _columns(column: str, estimate: Estimate | None) -> dict[str, float | None]:
    ends = (estimate.mean, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip((column, f"{column}_low", f"{column}_high"), ends, strict=True))


def _difference_columns(column: str, difference: Difference | None) -> dict[str, float | None]:
    name = f"{column}_difference"
    return {
        **_columns(name, difference.estimate if difference else None),
        f"{name}_pairs": difference.estimate.n if difference else None,
        f"{name}_sign_p": difference.sign_p if difference else None,
    }


def _reached(row: Row, found: dict[tuple[str, str, str], Pace]) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for target in TARGETS:
        pace = found.get((row.setting, row.method, target.column))
        known = pace is not None and not isinf(pace.median)
        columns[f"{target.column}_reached_round"] = pace.median if pace and known else None
        columns[f"{target.column}_reached_runs"] = pace.reached if pace else None
    return columns


def _figures(row: Row, metrics: Sequence[Metric]) -> list[str]:
    if row.missing:
        return [f"missing: {row.missing}", *[UNKNOWN] * (len(metrics) - 1)]
    return [_figure(row.estimates[metric.column], len(row.runs)) for metric in metrics]


def _figure(estimate: Estimate | None, runs: int) -> str:
    if estimate is None:
        return UNKNOWN
    parts = [number(estimate.mean)]
    parts += [f"± {number(estimate.half_width)}"] if estimate.low is not None else []
    parts += [f"(n = {estimate.n})"] if estimate.n != runs else []
    return " ".join(parts)


def _counts(row: Row) -> list[str]:
    return [str(len(row.runs)), row.clients, row.rounds, row.seeds or UNKNOWN]


def _difference_row(difference: Difference) -> list[str]:
    found = difference.estimate
    return [
        difference.method,
        difference.metric.title,
        number(found.mean, signed=True),
        interval(found, signed=True),
        f"{found.n} {difference.pairs if found.n > 1 else difference.pairs[:-1]}",
        f"{difference.positive} of {found.n}",
        "< 0.001" if difference.sign_p is not None and difference.sign_p < 0.001 else number(difference.sign_p),
        difference.verdict,
    ]


def _pace_row(pace: Pace) -> list[str]:
    def written(number: float) -> str:
        return f"> {pace.within}" if isinf(number) else f"{number:g}"

    first, last = written(min(pace.rounds)), written(max(pace.rounds))
    return [
        pace.method,
        pace.target.title,
        number(pace.value.mean),
        written(pace.median),
        first if first == last else f"{first} to {last}",
        f"{pace.reached} of {len(pace.rounds)}",
    ]


def _markdown_paces(comparison: Comparison) -> list[str]:
    found = paces(comparison)
    if not found:
        return []
    return [f"How soon they are where {comparison.baseline} ends:", _markdown_table(pace_cells(found))]


def _markdown_differences(comparison: Comparison) -> list[str]:
    if len(comparison.rows) < 2:
        return []
    if not comparison.differences:
        return [NO_PAIRS]
    return [
        f"Paired differences from {comparison.baseline}:",
        _markdown_table(difference_cells(comparison.differences)),
    ]


def _markdown_table(cells: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
