"""Write the page of results from the rows that the scripts have printed.

    python benchmarks/page.py ROWS_FOLDER docs/benchmarks.md

Every `*.jsonl` of the folder is what one script printed. Beside the page goes the figure of how rounds scale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

from rows import Row, read
from sides import AT_ONCE, ENGINE, EVALUATION, IDIOM, IN_ROUNDS, LOOP, MEASURING, PLAIN, USUAL, all_cores, beside

NOTES = Path(__file__).with_name("notes.md")
"""What explains the figures, written by hand."""

Medians = Mapping[tuple[str, str], float]
"""By name and side."""


@dataclass(frozen=True)
class Figure:
    """One median of a comparison, or the ratio of two.

    Attributes:
        name: of the comparison.
        upper: the side.
        lower: by which side it is divided; none: it is not.
    """

    name: str
    upper: str
    lower: str = ""

    def of(self, medians: Medians) -> float:
        """Return it; nan where something is missing."""
        value = medians.get((self.name, self.upper), nan)
        return value / medians.get((self.name, self.lower), nan) if self.lower else value


@dataclass(frozen=True)
class Goal:
    """What was wanted, and the figure that shows it.

    Attributes:
        text: in words.
        figure: what it is measured by.
        at_least: whether it must reach the bound, or must not exceed it.
        bound: in the unit of the figure.
        unit: `x` for a ratio.
    """

    text: str
    figure: Figure
    at_least: bool
    bound: float
    unit: str = "x"

    def line(self, medians: Medians, mark: str = "") -> str:
        """Return its row of the table; `mark` says with what it was measured."""
        value = self.figure.of(medians)
        met = value >= self.bound if self.at_least else value <= self.bound
        verdict = ("not measured" if isnan(value) else "met" if met else "**missed**") + mark
        bound = f"{'at least' if self.at_least else 'at most'} {number(self.bound)} {self.unit}"
        return f"| {self.text} | {bound} | {number(value)} {self.unit} | {verdict} |"


def training_goals(model: str, per_round: float) -> list[Goal]:
    """Return the goals of training one model."""
    turn, run = f"{model}, the engine in turn", f"{model}, a round of a run"
    one, whole = f"{model}, a round", f"{model}, a run of 20 rounds with start-up"
    against = {
        "training, nothing held out / cores x one bare loop": beside(ENGINE, all_cores(LOOP)),
        "the same / cores x one plain torch loop": beside(ENGINE, all_cores(PLAIN)),
        "the same / bare loops on all cores at once": beside(ENGINE, AT_ONCE),
        "the same / bare loops on all cores, in rounds": beside(ENGINE, IN_ROUNDS),
        "the same with held-out parts / such loops that measure them": beside(USUAL, MEASURING),
    }
    rate = Figure(turn, beside(EVALUATION, AT_ONCE))
    return [
        *(Goal(f"{model}: {text}", Figure(turn, pair), True, 0.95) for text, pair in against.items()),
        Goal(f"{model}: selection to journal / a round", Figure(run, "the rest", "the whole round"), False, 0.05),
        Goal(f"{model}: evaluation rate / bare training rate", rate, True, 3),
        Goal(f"{model}: Flower / parityfl, a round", Figure(one, "flower", "parityfl"), True, per_round),
        Goal(f"{model}: Flower / parityfl, 20 rounds with start-up", Figure(whole, "flower", "parityfl"), True, 2.5),
    ]


def wire_goals() -> list[Goal]:
    """Return the goals of the wire."""
    single, large, small = "1 echo client of 44.7 MB", "10 echo clients of 44.7 MB", "10 echo clients of 0.166 MB"
    many, crowd = "100 echo clients of 44.7 MB", "100 echo clients of 0.0192 MB"
    above, spent = "server memory above base", "processor time of the server"
    return [
        Goal(f"{large}: the usual idiom / parityfl", Figure(large, IDIOM, "parityfl"), True, 3),
        Goal(f"{small}: the usual idiom / parityfl", Figure(small, IDIOM, "parityfl"), True, 4.5),
        Goal(f"{large}: {above}", Figure(f"{large}, {above}", "parityfl"), False, 5, "models"),
        Goal(f"{many}: {above}", Figure(f"{many}, {above}", "parityfl"), False, 5, "models"),
        Goal(f"{single}: parityfl / blocking sockets", Figure(single, "parityfl", "sockets"), False, 2.2),
        Goal(f"{crowd}: a round", Figure(crowd, "parityfl"), False, 0.1, "s"),
        Goal(f"{crowd}: {spent}", Figure(f"{crowd}, {spent}", "parityfl"), False, 0.1, "s"),
    ]


def startup_goals() -> list[Goal]:
    """Return the goals of start-up and size."""
    torch, idle = "modules that `import parityfl` brings", "memory of an idle client in the coordinator"
    return [
        Goal("`parityfl --help`", Figure("start-up", "parityfl --help"), False, 0.3, "s"),
        Goal(
            "modules of torch that `import parityfl` imports",
            Figure(torch, "parityfl"),
            False,
            0,
            "",
        ),
        Goal("first round of a digits run", Figure("start-up", "first round of a digits run"), False, 4, "s"),
        Goal("an idle client", Figure(idle, "parityfl"), False, 10_000, "bytes"),
    ]


def cluster_goals() -> list[Goal]:
    """Return the goals of the Ray engine."""
    name = "10,000 clients, 1,000 a round: own memory over 19 rounds, growth"
    processes = ("driver", "an actor", "head node's server", "raylet")
    return [Goal(f"Ray, {name}: {each}", Figure(name, each), False, 1.05) for each in processes]


GOALS = [
    *training_goals("cnn-small", 1.8),
    *training_goals("cnn", 1.25),
    *wire_goals(),
    *startup_goals(),
    *cluster_goals(),
]


def render(rows: Sequence[Row], figure: str = "", notes: str = "") -> str:
    """Return the page.

    Args:
        rows: the results.
        figure: the file name of the figure, or none.
        notes: what is to be said about them.
    """
    medians = {(each.name, each.side): each.median for each in rows}
    marks = marked(rows)
    of_name = {each.name: f" ({marks[each.setting]})" if len(marks) > 1 else "" for each in rows}
    goals = [goal.line(medians, of_name.get(goal.figure.name, "")) for goal in GOALS]
    parts = [
        "# Benchmarks",
        "Written by `./scripts/bench` from the rows in `benchmarks/results`; not to be edited. The command below a "
        "table measured it, by itself where it names a model. The sides of a table took turns in one run, but for "
        "those of `scaling.py` and `cluster.py`, which were measured one after the other. Figures are medians with "
        "their range, ratios are to the first side. What is measured is said at the head of each script.",
        settings(marks),
        "## Goals",
        "\n".join(["| what | goal | figure | |", "|---|---|---|---|", *goals]),
        *([f"![How rounds scale]({figure})"] if figure else []),
        *([notes.strip().replace("](../docs/", "](")] if notes else []),  # which lies in another folder than the page
        "## Results",
        *(table(name, group, of_name[name]) for name, group in comparisons(rows).items()),
    ]
    return "\n\n".join(parts) + "\n"


def marked(rows: Iterable[Row]) -> dict[str, str]:
    """Return a letter for each setting in which rows were measured."""
    found = dict.fromkeys(each.setting for each in rows)
    return {setting: chr(ord("A") + number) for number, setting in enumerate(found)}


def settings(marks: Mapping[str, str]) -> str:
    """Return with what the figures were measured."""
    if len(marks) < 2:
        return "".join(f"{setting}." for setting in marks)
    lines = [f"- **{letter}**: {setting}." for setting, letter in marks.items()]
    return "\n".join(["The tables were measured with, as the letter behind each says:", "", *lines])


def comparisons(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the sides of each comparison, which a script may have printed apart from one another."""
    found: dict[str, list[Row]] = {}
    for each in rows:
        found.setdefault(each.name, []).append(each)
    return found


def table(name: str, rows: list[Row], mark: str = "") -> str:
    """Return the table of one comparison; `mark` says with what it was measured."""
    lines = [f"### {name[0].upper()}{name[1:]}", "", "| side | median | range | n | ratio |", "|---|---|---|---|---|"]
    for each in rows:
        if each.n == 0:
            lines.append(f"| {each.side} | {each.note.replace('|', '/')} | | 0 | |")
            continue
        spread = f"{number(each.min)} to {number(each.max)}"
        share = each.median / rows[0].median if rows[0].median and each.unit != "x" else nan
        side = f"{each.side} ({each.note})" if each.note else each.side
        lines.append(f"| {side} | {number(each.median)} {each.unit} | {spread} | {each.n} | {number(share)} |")
    commands = sorted({each.command for each in rows})
    return "\n".join([*lines, "", *(f"`{command}`{mark}" for command in commands)])


def number(value: float) -> str:
    """Return a figure with three digits that count."""
    if isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def curves(rows: Iterable[Row]) -> dict[str, list[tuple[float, Row]]]:
    """Return the points of the figure's panels by title: where, and what was measured there."""
    panels: dict[str, list[tuple[float, Row]]] = {}
    for each in rows:
        if each.name.startswith("a round's time by "):
            where = float(re.findall(r"[\d,]+", each.side)[-1].replace(",", ""))
            panels.setdefault(each.name.removeprefix("a round's time by "), []).append((where, each))
        elif each.name.startswith("a round's scheduling, ") and each.side == "lnu":
            size = float(re.findall(r"[\d,]+", each.name)[-1].replace(",", ""))
            panels.setdefault("population (scheduling only)", []).append((size, each))
    return panels


def draw(rows: Iterable[Row], path: Path) -> bool:
    """Draw how rounds scale; return whether there was anything to draw."""
    from matplotlib.figure import Figure as Canvas  # noqa: PLC0415 - only where something is drawn

    panels = curves(rows)
    if not panels:
        return False
    canvas = Canvas(figsize=(10, 2.6 * ((len(panels) + 1) // 2)), layout="constrained")
    axes = canvas.subplots((len(panels) + 1) // 2, 2, squeeze=False).flat
    for axis, (title, points) in zip(axes, panels.items(), strict=False):
        places = [where for where, _ in sorted(points, key=lambda point: point[0])]
        found = [each for _, each in sorted(points, key=lambda point: point[0])]
        values = [each.median for each in found]
        spread = [[each.median - each.min for each in found], [each.max - each.median for each in found]]
        axis.errorbar(places, values, yerr=spread, marker="o", capsize=3, color="#1f5fa8")
        axis.set(xlabel=title, ylabel="s a round", ylim=(0, None))
        if max(places) > 100 * min(places):
            axis.set_xscale("log")
        axis.grid(alpha=0.3)
    for axis in list(canvas.axes)[len(panels) :]:
        axis.set_visible(False)
    canvas.savefig(path, metadata={"Date": None})
    return True


def load(folder: Path) -> list[Row]:
    """Return the rows in a folder."""
    return [each for file in sorted(folder.glob("*.jsonl")) for each in read(file.read_text(encoding="utf-8"))]


def main() -> None:
    """Write the page."""
    folder, page = map(Path, sys.argv[1:])
    rows = load(folder)
    figure = page.with_name(f"{page.stem}-scaling.svg")
    drawn = draw(rows, figure)
    notes = NOTES.read_text(encoding="utf-8") if NOTES.is_file() else ""
    page.write_text(render(rows, figure.name if drawn else "", notes), encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
