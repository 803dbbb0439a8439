"""What the figures share: canvas, colours, axes over rounds, Lorenz curves."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from parityfl.reporting.svg import INK, STYLE

VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY = "#b43f29", "#12a96a", "#a72da8", "#d77e0d", "#0299f5", "#666e75"
"""Colours of data, with `svg.BLUE`. One set for both themes, for what is drawn as an image cannot follow the page.

Each has a contrast of 3 or more to the light page and to the dark one, and any two are 26 or more apart in CIELAB to
those who see all colours, no red or no green (simulated after Machado et al., 2009), 15 to those who see no blue.
"""

FEW = 40
"""So many clients are called by their names on an axis, more by their places."""

MANY = 200
"""More bars or points than this are drawn as an image."""

Limits = tuple[float | None, float | None]

styled = matplotlib.rc_context(STYLE)
"""Decorator: draw in the project's style, whatever the caller's settings, and leave those as they are."""


def panels(
    count: int, height: float = 3.1, sharey: bool = False, width_ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure, nine inches wide, with `count` axes side by side."""
    figure = Figure(figsize=(9, height), layout=ConstrainedLayoutEngine(wspace=0.04), dpi=150)
    axes = figure.subplots(1, count, squeeze=False, sharey=sharey, width_ratios=width_ratios)
    return figure, list(axes[0])


def curve(axes: Axes, rounds: pl.DataFrame, column: str, **look: Any) -> None:
    """Draw a column of rounds.csv over the rounds in which it is known; a short run shows its points."""
    known = rounds.select("round", column).drop_nulls()
    marker = "o" if known.height < 3 else None
    axes.plot(known["round"].to_numpy(), known[column].to_numpy(), marker=marker, markersize=3, **look)


def bars(
    axes: Axes,
    places: NDArray[Any],
    heights: NDArray[Any],
    bottoms: ArrayLike = 0.0,
    *,
    colours: Any,
    label: str | None = None,
) -> None:
    """Draw bars at places that are 1 apart, as one collection: matplotlib takes far longer over a patch for each.

    Args:
        axes: where.
        places: their middles, shape (n,).
        heights: negative ones go down, shape (n,).
        bottoms: where they begin, one for all or shape (n,).
        colours: one for all, or one each.
        label: what the legend calls them.
    """
    many = len(places) > MANY
    half = 0.5 if many else 0.425
    begin = np.broadcast_to(bottoms, heights.shape)
    left, right, end = places - half, places + half, begin + heights
    corners = np.stack([left, begin, left, end, right, end, right, begin], axis=1).reshape(-1, 4, 2)
    drawn = PolyCollection(list(corners), facecolors=colours, linewidths=0, label=label, rasterized=many)
    drawn.sticky_edges.y.append(0)
    axes.add_collection(drawn)
    axes.autoscale_view()


def over_rounds(axes: Axes, ylabel: str, limits: Limits) -> None:
    """Label axes over rounds."""
    axes.set(xlabel="round", ylabel=ylabel, ylim=limits)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def settled(frames: Sequence[pl.DataFrame], columns: Sequence[str], include: float = 0) -> Limits:
    """Return limits that show what the columns do after the first quarter of the rounds.

    Ratios over the first few rounds can be a hundred times what they settle to and would flatten all the rest.
    """
    late = [frame.slice(frame.height // 4)[column].drop_nulls() for frame in frames for column in columns]
    values = [include, 0.0, *(float(value) for series in late for value in series)]
    margin = 0.08 * (max(values) - min(values)) or 1.0
    return min(values) - (margin if min(values) < 0 else 0), max(values) + margin


def clients_on(axis: Axis, clients: Sequence[str], order: str) -> None:
    """Put clients at 1, 2, ... on an axis, in an order: by name where they are few, long names cut, else by rank."""
    axis.set_label_text(f"client, {order}" if len(clients) <= FEW else f"rank of the client, {order}")
    if len(clients) > FEW:
        even = MaxNLocator(integer=True, steps=[1, 2, 5, 10]).tick_values(1, len(clients))
        axis.set_ticks([1, *(rank for rank in even if 1 < rank <= len(clients))])
        return
    cut = [name if len(name) <= 12 else name[:11] + "…" for name in clients]
    upright = isinstance(axis, XAxis) and sum(map(len, cut)) > 50
    axis.set_ticks(range(1, len(cut) + 1), cut, rotation=90 if upright else 0)


def legend(axes: Axes) -> None:
    """Put a legend above the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    wide = axes.get_figure().axes == [axes]  # type: ignore[union-attr]
    columns = min(len(labels), 3) if wide else 1
    if labels:
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)


def shared_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of one axes below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))


def lorenz(axes: Axes, utility: NDArray[np.float64], **look: Any) -> None:
    """Draw the Lorenz curve of utilities, any order: which share the least served clients have together.

    It is not defined, and nothing is drawn, where the utilities do not sum to a positive figure.
    """
    total = float(utility.sum())
    if total > 0:
        shares = np.concatenate([[0.0], np.cumsum(np.sort(utility)) / total])
        axes.plot(np.linspace(0, 1, len(shares)), shares, **look)


def lorenz_axes(axes: Axes) -> None:
    """Label Lorenz axes and draw the line of perfect parity."""
    if not axes.lines:
        axes.text(0.5, 0.9, "not defined:\nutilities sum to no gain", ha="center", va="top", transform=axes.transAxes)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    axes.text(0.48, 0.52, "parity", ha="right", va="bottom", fontsize=8)
    axes.set(xlabel="share of clients ever available,\nleast served first", ylabel="share of normalised utility")
    axes.set_xlim(0, 1)
