"""A trace file in the terminal: its figures, its day, its devices, and models fitted to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parityfl.core.availability.diurnal import Diurnal
from parityfl.core.availability.fitting import fit_diurnal, fit_gilbert_elliott
from parityfl.core.availability.flash import RULES
from parityfl.core.availability.gilbert_elliott import GilbertElliott
from parityfl.core.availability.recording import Recording
from parityfl.core.availability.trace import read_recording
from parityfl.core.availability.trace_statistics import Sojourns, TraceStatistics, trace_statistics
from parityfl.core.errors import ConfigError, DataError
from parityfl.core.fairness import ratio
from parityfl.core.types import FloatArray, IntArray

SHADES = " ·░▒▓█"
"""From never to always available; an hour in which nobody was observed is a question mark."""

MOST_ROWS = 40
"""The heat map has so many rows at most; where there are more devices, a row is the mean of several."""

_HOURS = "".join(f"{hour:<6d}" for hour in range(0, 24, 3))


def read_trace(path: Path, rule: str) -> Recording:
    """Return what a trace file says under a rule.

    Raises:
        ConfigError: no such rule.
        DataError: the file cannot be read; the message names the place.
    """
    if rule not in RULES:
        raise ConfigError(f"unknown rule {rule!r}: there are {', '.join(RULES)}")
    return read_recording(str(path), rule)


def trace_view(recording: Recording) -> RenderableType:
    """Return a recording's figures, its hourly profile and its heat map for the terminal."""
    statistics = trace_statistics(recording)
    table = Table(show_header=False, box=None)
    for title, value in trace_figures(statistics).items():
        table.add_row(title, value)
    return Group(table, "", _hourly(statistics), "", heat_map(statistics))


def trace_figures(statistics: TraceStatistics) -> dict[str, str]:
    """Return the figures of a recording by title, as text."""
    pi, days = statistics.pi, statistics.span_days
    first, last = (np.datetime64(int(edge), "s") for edge in (statistics.first_s.min(), statistics.last_s.max()))
    below = ", ".join(f"{np.sum(pi < limit)} below {limit}" for limit in (0.05, 0.1))
    quantiles = " / ".join(f"{value:.3f}" for value in np.quantile(pi, (0, 0.25, 0.5, 0.75, 1)))
    return {
        "devices": str(len(statistics.devices)),
        "clock": f"{first} to {last}",
        "span": f"{days.min():.1f} / {np.median(days):.1f} / {days.max():.1f} days (least, median, most)",
        "pi": f"mean {pi.mean():.3f}, sd {pi.std():.3f}; {np.sum(pi == 0)} never available, {below}",
        "pi quantiles": f"{quantiles} (0, 25, 50, 75, 100 %)",
        "on-runs": _sojourns(statistics.on),
        "off-runs": _sojourns(statistics.off),
        "ignored events": ", ".join(f"{word} {count}" for word, count in statistics.ignored.items()) or "none",
    }


def heat_map(statistics: TraceStatistics) -> Text:
    """Return a row per device, or per few devices, and a column per hour of the day; most available first."""
    order = np.argsort(-statistics.pi, kind="stable")
    groups = np.array_split(order, min(MOST_ROWS, len(order)))
    labels = [_label(statistics.devices, group) for group in groups]
    width = max(len(label) for label in labels)
    lines = [f"{'hour':>{width}}   pi  {_HOURS}"]
    for label, group in zip(labels, groups, strict=True):
        shades = "".join(2 * _shade(value) for value in _mean(statistics.heat_map[group]))
        lines.append(f"{label:>{width}} {statistics.pi[group].mean():.2f}  {shades}")
    return Text("\n".join([*lines, f"shades from 0 to 1: '{SHADES}'"]), no_wrap=True)


def estimate_lines(recording: Recording, interval_s: float) -> str:
    """Return models fitted to a recording as TOML: gilbert-elliott, and diurnal commented out."""
    chain = _section("gilbert-elliott", fit_gilbert_elliott(recording, interval_s), ("pi", "mean_on_rounds"))
    intro = f"# Fitted to {len(recording.devices)} devices, for rounds.interval_s = {interval_s:g}. A value per client:"
    clients = f"# set population.clients = {len(recording.devices)}."
    try:
        cycle = _section("diurnal", fit_diurnal(recording), ("pi", "amplitude", "peak_h"))
    except DataError as error:
        cycle = [f"no diurnal fit: {error}"]
    return "\n".join(
        [intro, clients, *chain, "", "# Or, with the time of day and without bursts:", *map(_comment, cycle)]
    )


def _section(name: str, model: GilbertElliott | Diurnal, keys: Sequence[str]) -> list[str]:
    values = {key: [round(value, 6) for value in getattr(model, key)] for key in keys}
    return ["[availability]", f'name = "{name}"', *(f"{key} = {value}" for key, value in values.items())]


def _comment(line: str) -> str:
    return f"# {line}"


def _hourly(statistics: TraceStatistics) -> Text:
    bars = "".join(2 * _bar(value, np.nanmax(statistics.hourly)) for value in statistics.hourly)
    low, high = np.nanargmin(statistics.hourly), np.nanargmax(statistics.hourly)
    lowest, highest = statistics.hourly[low], statistics.hourly[high]
    text = f"hour  {_HOURS}\n      {bars}\nmean pi from {lowest:.3f} at {low} h to {highest:.3f} at {high} h"
    return Text(text, no_wrap=True)


def _sojourns(runs: Sojourns) -> str:
    if runs.count == 0:
        return "none"
    return f"{runs.count}, mean {runs.mean_s / 60:.1f} min, median {runs.median_s / 60:.1f} min"


def _label(devices: Sequence[str], group: IntArray) -> str:
    return devices[int(group[0])] if len(group) == 1 else f"{len(group)} devices"


def _mean(rows: FloatArray) -> FloatArray:
    """Return the mean of the known values of each column, nan where there are none."""
    known = np.isfinite(rows)
    return ratio(np.where(known, rows, 0.0).sum(axis=0), known.sum(axis=0))


def _shade(value: float) -> str:
    if np.isnan(value):
        return "?"
    return SHADES[0] if value == 0 else SHADES[1 + int(min(value, 0.999) * (len(SHADES) - 1))]


def _bar(value: float, highest: float) -> str:
    blocks = "▁▂▃▄▅▆▇█"
    if np.isnan(value):
        return "?"
    return blocks[int(min(value / highest, 0.999) * len(blocks))] if highest > 0 else blocks[0]
