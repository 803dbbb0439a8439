"""The figures that compare methods. A method without finished runs is never drawn."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil, inf
from textwrap import fill
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.scale import SymmetricalLogScale
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from parityfl.reporting.comparison import Comparison, Difference, Row
from parityfl.reporting.drawing import (
    GREEN,
    MANY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    curve,
    lorenz,
    lorenz_axes,
    over_rounds,
    panels,
    settled,
    shared_legend,
    styled,
)
from parityfl.reporting.intervals import Estimate
from parityfl.reporting.svg import BLUE, INK

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", "--", "-.", ":")
MARKERS = "os^Dvp"

ACCURACIES = {
    "global_accuracy": "Global model",
    "worst10_client_accuracy": "Worst 10 % of the clients",
    "low_availability_accuracy": "Low-availability half",
}
"""The accuracies over rounds, by column."""

PARITIES = {
    "conditional_selection_gap": "Conditional selection gap",
    "utility_cv": "Utility CV",
    "net_gain_cv": "Net-gain CV",
    "credited_to_net": "Credited / net",
}
"""The figures of parity over rounds, by column."""

UNBOUNDED = 10
"""An axis of ratios that exceed this is logarithmic above 1: one of a small net gain would flatten all others."""

ABREAST = 4
"""So many panels of paired differences stand side by side."""

COSTS = {"conditional_selection_gap": "conditional selection gap", "net_gain_cv": "net-gain CV"}
"""What accuracy is set against: figures of parity that rank methods, of which less is better."""


@styled
def accuracy_by_method(rows: Sequence[Row]) -> Figure:
    """Accuracy over rounds: a thin line per seed, a thick one for each method's mean."""
    figure, axes = panels(len(ACCURACIES), height=3.3, sharey=True)
    for panel, (column, title) in zip(axes, ACCURACIES.items(), strict=True):
        _method_curves(panel, rows, column, title)
        over_rounds(panel, "", (0, 1))
    axes[0].set_ylabel("accuracy (fraction of 1)")
    shared_legend(figure, axes[0])
    return figure


@styled
def parity_by_method(rows: Sequence[Row]) -> Figure:
    """Conditional selection gap, and utility CV beside net-gain CV and credited / net, over rounds."""
    figure, (gap, spread, kept, ratio) = panels(len(PARITIES), height=3.3)
    frames = [run.rounds for row in rows for run in row.runs]
    for panel, (column, title) in zip((gap, spread, kept, ratio), PARITIES.items(), strict=True):
        _method_curves(panel, rows, column, title)
    over_rounds(gap, "max − min of selected / available", (0, 1.02))
    over_rounds(spread, "coefficient of variation", settled(frames, ["utility_cv"]))
    over_rounds(kept, "", settled(frames, ["net_gain_cv"]))
    over_rounds(ratio, "utility credited per net gain", settled(frames, ["credited_to_net"], include=1))
    for panel in (kept, ratio):
        _compress(panel.yaxis, panel.get_ylim())
    ratio.axhline(1, color=INK, linewidth=0.8)
    shared_legend(figure, gap)
    return figure


@styled
def clients_by_method(rows: Sequence[Row]) -> Figure:
    """Lorenz curves of normalised utility, and each client's accuracy against its availability, all seeds."""
    figure, (shares, points) = panels(2, height=3.6)
    tables = [[run.standing for run in row.runs] for row in rows]
    many = sum(table.height for of_row in tables for table in of_row) > MANY
    for position, row in enumerate(rows):
        for label, table in zip(_label_once(row), tables[position], strict=False):
            lorenz(shares, table["normalized_utility"].drop_nulls().to_numpy(), **_line(position))
            both = table.select("availability_estimate", "eval_accuracy").drop_nulls().to_numpy()
            look = {**_point(position), "label": label}
            points.scatter(both[:, 0], both[:, 1], s=18, alpha=0.65, linewidths=0, rasterized=many, **look)
    lorenz_axes(shares)
    points.set(xlabel="share of rounds available", ylabel="accuracy on the client's own data")
    points.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    shared_legend(figure, points)
    return figure


@styled
def trade_off_by_method(rows: Sequence[Row]) -> Figure:
    """Accuracy against two figures of parity, a point per method; those that no other beats in both are joined."""
    figure, axes = panels(len(COSTS), height=3.6, sharey=True)
    joined = fronts(rows)
    for panel, (column, title) in zip(axes, COSTS.items(), strict=True):
        for position, row in enumerate(rows):
            cost, gain = row.estimates[column], row.estimates["global_accuracy"]
            if cost is not None and gain is not None:
                look = {**_point(position), "label": row.method}
                panel.errorbar(cost.mean, gain.mean, yerr=_reach(gain), xerr=_reach(cost), linewidth=1, **look)
        front = joined[column]
        panel.plot([cost for cost, _ in front], [gain for _, gain in front], color=INK, linewidth=0.8, zorder=0)
        panel.set(xlabel=f"{title}: less is better")
    gap, spread = axes
    gap.set_ylim(_possible(gap.get_ylim(), 1))
    gap.set_xlim(_possible(gap.get_xlim(), 1))
    spread.set_xlim(_possible(spread.get_xlim(), inf))
    _compress(spread.xaxis, [cost for cost, _ in _points(rows, "net_gain_cv")])
    axes[0].set_ylabel("global accuracy: more is better")
    shared_legend(figure, axes[0])
    return figure


def fronts(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Return the Pareto front of the methods' means, for each figure that accuracy is set against."""
    return {column: undominated(_points(rows, column)) for column in COSTS}


def undominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto front: points (cost, gain) that no other beats in both, by rising cost; each once."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


@styled
def paired_differences(comparison: Comparison, setting: str) -> Figure:
    """Paired differences from the baseline with their 95 % intervals, a panel per figure that ranks methods."""
    ranked = [metric for metric in comparison.metrics if metric.better]
    shown = [d for d in comparison.differences if d.setting == setting and d.pairs == "seeds"]
    methods = list(dict.fromkeys(difference.method for difference in shown))
    lines = ceil(len(ranked) / ABREAST)
    figure = Figure(figsize=(9, lines * (1.3 + 0.32 * len(methods))), layout="constrained", dpi=150)
    grid = figure.subplots(lines, ceil(len(ranked) / lines), squeeze=False, sharey=True)
    for panel in grid.flat[len(ranked) :]:
        panel.remove()
    for panel, metric in zip(grid.flat, ranked, strict=False):
        for difference in (d for d in shown if d.metric == metric):
            _mark(panel, methods.index(difference.method), difference)
        panel.axvline(0, color=INK, linewidth=0.8)
        panel.set_title(fill(metric.title, 22), fontsize=8.5)
        panel.set_xlabel("more is better" if metric.better > 0 else "less is better", fontsize=8)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=3))
        if metric.column == "net_gain_cv":
            _compress(panel.xaxis, [d.estimate.mean for d in shown if d.metric == metric])
        panel.grid(visible=False, axis="y")
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
    grid[0, 0].set_yticks(range(len(methods)), methods)
    grid[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    return figure


METHOD_FIGURES: dict[str, tuple[Callable[[Sequence[Row]], Figure], str]] = {
    "accuracy": (accuracy_by_method, "Line charts: accuracy over rounds of each method"),
    "parity": (
        parity_by_method,
        "Line charts: selection gap, utility CV, net-gain CV and credited over net of each method",
    ),
    "trade-off": (trade_off_by_method, "Accuracy of each method against its selection gap and its net-gain CV"),
    "clients": (clients_by_method, "Lorenz curves of each method, and clients' accuracy against their availability"),
}
"""The figures that compare methods by name, with what a reader who cannot see them is told."""


def _method_curves(axes: Axes, rows: Sequence[Row], column: str, title: str) -> None:
    for position, row in enumerate(rows):
        if not row.runs:
            continue
        look = _line(position)
        for run in row.runs if len(row.runs) > 1 else ():
            curve(axes, run.rounds, column, color=look["color"], linewidth=0.7, alpha=0.35)
        mean = (
            pl.concat([run.rounds.select("round", column) for run in row.runs]).group_by("round").agg(pl.mean(column))
        )
        curve(axes, mean.sort("round"), column, **look, label=row.method)
    axes.set_title(title)


def _points(rows: Sequence[Row], column: str) -> list[tuple[float, float]]:
    """Return (cost, accuracy) of the methods that have both."""
    both = [(row.estimates[column], row.estimates["global_accuracy"]) for row in rows]
    return [(cost.mean, gain.mean) for cost, gain in both if cost and gain]


def _possible(limits: tuple[float, float], most: float) -> tuple[float, float]:
    """Return limits that end a little outside what a figure can be, 0 to `most`, where intervals would go on."""
    return max(limits[0], -0.02), min(limits[1], most + 0.02)


def _compress(axis: Axis, values: Iterable[float]) -> None:
    """Make an axis logarithmic beyond 1 and -1 where a ratio on it is large."""
    if max(map(abs, values), default=0) > UNBOUNDED:
        scale = SymmetricalLogScale(axis, linthresh=1)
        axes = axis.axes
        axes.set_xscale(scale) if isinstance(axis, XAxis) else axes.set_yscale(scale)
        axis.set_major_locator(SymmetricalLogLocator(base=100, linthresh=1))
        axis.set_major_formatter("{x:g}")


def _line(position: int) -> dict[str, Any]:
    return {"color": COLOURS[position % len(COLOURS)], "linestyle": DASHES[_shifted(position) % len(DASHES)]}


def _point(position: int) -> dict[str, Any]:
    return {"color": COLOURS[position % len(COLOURS)], "marker": MARKERS[_shifted(position) % len(MARKERS)]}


def _shifted(position: int) -> int:
    """Return a number that moves on by one more when the colours begin anew, so that no pair comes twice for long."""
    return position + position // len(COLOURS)


def _label_once(row: Row) -> list[str | None]:
    return [row.method, *[None] * len(row.runs)]


def _reach(estimate: Estimate) -> list[list[float]] | None:
    """Return how far an interval reaches below and above its mean; None where there is none."""
    if estimate.low is None or estimate.high is None:
        return None
    return [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]


def _mark(axes: Axes, place: int, difference: Difference) -> None:
    found = difference.estimate
    axes.plot(found.mean, place, "o", color=BLUE, markersize=4.5)
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [place, place], color=BLUE, linewidth=1.6)
