"""The comparison for the terminal: methods down and as many figures across as fit, so that nothing is cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from parityfl.reporting.comparison import Comparison, Difference
from parityfl.reporting.tables import comparison_cells, difference_cells

UNLIMITED = 10_000
"""How wide the tables of a file may be: nothing folds them there."""

LABEL_WIDTH = 32
"""Names of methods and settings that are longer are folded where room is short, so that figures have some."""

SHOWN = ("Mean difference", "95 % interval", "Pairs", "Verdict")
"""What is shown of a paired difference."""

Column = tuple[str, ...]
"""A column of a table as text, its header first."""


def rich_table(comparison: Comparison) -> RenderableType:
    """Return the comparison: for each group of figures a table, or several where the terminal is narrower."""
    return _Fitting(comparison)


def rich_differences(comparison: Comparison) -> RenderableType:
    """Return the paired differences, a table for each method and setting; the report has the tests too."""
    grouped = groupby(comparison.differences, lambda found: (found.setting, found.method))
    return Group(*(_differences(*names, list(found)) for names, found in grouped))


@dataclass(frozen=True)
class _Fitting:
    """The comparison's tables, made when rich says how wide they may be."""

    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(f"Comparison: mean over seeds ± half its 95 % interval. Baseline: {self.comparison.baseline}.\n")
        unfolded = options.update(width=UNLIMITED)
        room = max(LABEL_WIDTH, options.max_width // 3)
        labels, groups = _columns(self.comparison)
        for group, columns in groups.items():
            tables: list[list[Column]] = [[]]
            for column in columns:
                wider = Measurement.get(console, unfolded, _methods(labels, [*tables[-1], column], room))
                if tables[-1] and wider.maximum > options.max_width:
                    tables.append([])
                tables[-1].append(column)
            for table in tables:
                yield _titled(group, _methods(labels, table, room))


def _columns(comparison: Comparison) -> tuple[list[Column], dict[str, list[Column]]]:
    """Return the columns that name the methods, and by group those of figures and counts."""
    columns: list[Column] = list(zip(*comparison_cells(comparison), strict=True))
    place = [column[0] for column in columns].index("Method") + 1
    parts, figures = columns[place], iter(columns[place + 1 :])
    groups: dict[str, list[Column]] = {}
    for metric in comparison.metrics:
        short = tuple(cell.partition(": ")[0] for cell in next(figures))  # why one is missing is told in a note
        groups.setdefault(metric.group, []).append(short)
    return columns[:place], groups | {"Runs": [parts, *figures]}


def _methods(labels: Sequence[Column], figures: Sequence[Column], room: int) -> Table:
    table = _table()
    for header, *_ in labels:
        table.add_column(header, overflow="fold", max_width=room)
    for header, *cells in figures:
        table.add_column(_folded(header, cells), justify="right", no_wrap=True)
    for row in list(zip(*labels, *figures, strict=True))[1:]:
        table.add_row(*map(Text, row))
    return table


def _differences(setting: str, method: str, found: Sequence[Difference]) -> Group:
    columns = {header: cells for header, *cells in zip(*difference_cells(found), strict=True)}
    table = _table()
    table.add_column("Figure")
    for header in SHOWN:
        table.add_column(_folded(header, columns[header]), justify="right", no_wrap=True)
    for row in zip(*(columns[header] for header in ("Figure", *SHOWN)), strict=True):
        table.add_row(*map(Text, row))
    title = f"{method}: paired differences from {found[0].baseline}"
    return _titled(f"{title} ({setting})" if setting else title, table)


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)


def _titled(title: str, table: Table) -> Group:
    return Group(Text(title, style="bold"), table, Text())


def _folded(header: str, cells: Sequence[str]) -> Text:
    """Return a header in lines of 14 characters, or of more where its longest word or a cell below it has more."""
    return Text("\n".join(wrap(header, max(14, *map(len, [*header.split(), *cells])), break_on_hyphens=False)))
