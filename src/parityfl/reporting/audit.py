"""The parity figures of any framework's log: who could take part, who did, and what it was worth to them."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TextIO

import numpy as np
import polars as pl
from rich.table import Table

from parityfl.core.errors import DataError, first_line
from parityfl.core.fairness import parity_figures
from parityfl.reporting.coabsence import co_absence
from parityfl.reporting.tables import number

REQUIRED = ("round", "client_id", "available", "participated")
"""Columns that a log must have."""

OPTIONAL = ("selected", "utility_increment", "time_s")
"""Columns that it may have."""

OURS = ("outcome", "utility", "normalized_utility")
"""Columns by which a clients.csv of ours is known; its `utility` is cumulative."""

CHUNK = 1 << 20
"""How many characters are looked at at a time."""

ALONE = (
    "No learning is seen here: utility CV and Jain reward forgetting, and are to be read with credited / net, net-gain "
    "CV and the accuracies of the worst 10 % and of the low-availability half, which the report of a run has."
)
"""What must stand beside a utility's CV where there are no accuracies to put beside it."""


def read_log(path: str | Path) -> pl.DataFrame:
    """Return a log's round, client_id, available, selected, participated, increment and time_s, in the file's order.

    A log has a row per round and client: round, client_id, available (0 or 1), participated (0 or 1), and where there
    are such columns selected (else whoever participated was selected), utility_increment (else each participation
    counts 1) and time_s (else the round's number is the time). Or it is a clients.csv of ours. Rows may be in any
    order, and other columns are ignored. A client's shares count from the round of its first row; in a later round
    without a row of it, it was not available.

    Raises:
        DataError: the file cannot be read or is no such log; the message names column, line, value and remedy.
    """
    return _Log(str(path), _read(Path(path))).typed()


def figures(log: pl.DataFrame) -> dict[str, float]:
    """Return the counts and metrics of what `read_log` returned, nan where undefined."""
    clients = _clients(log)
    return {
        "num_clients": clients.height,
        "num_never_available": int((clients["available"] == 0).sum()),
        "num_rounds": int(clients["rounds"].max()),  # type: ignore[arg-type]
        **parity_figures(
            *(clients[name].to_numpy() for name in ("rounds", "available", "selected", "participated", "utility"))
        ),
    }


def reading(log: pl.DataFrame) -> str:
    """Return what to read beside the figures of a log: what they do not tell, and who was absent together."""
    found = co_absence(log.group_by("round").agg(pl.col("time_s").min()), log)
    if found.skipped:
        together = f"Whether clients are absent together was not tested: {found.skipped}."
    else:
        strongest = "" if found.pairs.is_empty() else ", first {} and {}".format(*found.pairs.row(0)[:2])
        together = f"Pairs absent together beyond independence: {found.pairs.height} of {found.tested}{strongest}."
    return f"{ALONE} {together}"


def figures_table(figures: Mapping[str, float], title: str) -> Table:
    """Return figures by name as a table for the terminal."""
    table = Table("Figure", title=title)
    table.add_column("Value", justify="right")
    for name, value in figures.items():
        table.add_row(name, str(value) if isinstance(value, int) else number(None if math.isnan(value) else value))
    return table


@dataclass(frozen=True)
class _Log:
    """The columns that are needed of a log, as text; line k + 2 of the file is row k."""

    path: str
    text: pl.DataFrame

    def typed(self) -> pl.DataFrame:
        """Return the columns of `read_log`, after checking every row."""
        flags = {name: self._flag(name) for name in ("available", "participated")}
        flags["selected"] = self._flag("selected") if "selected" in self.text.columns else flags["participated"]
        frame = pl.DataFrame({"round": self._round(), "client_id": self._client(), **flags})
        self._refuse(frame["participated"] > frame["selected"], "participated", "who takes part was selected")
        self._refuse(frame["selected"] > frame["available"], "available", "who is selected or takes part was available")
        twice = frame.select("round", "client_id").is_duplicated()
        self._refuse(twice, "client_id", "write one row per round and client")
        return frame.with_columns(self._increment(frame).alias("increment"), self._time(frame).alias("time_s"))

    def _round(self) -> pl.Series:
        number = self._number("round")
        whole = (number == number.floor()) & (number.abs() < 2.0**53)
        self._refuse(~whole, "round", "write the round as a whole number")
        return number.cast(pl.Int64)

    def _client(self) -> pl.Series:
        self._refuse(self.text["client_id"].is_null(), "client_id", "write the client's name")
        return self.text["client_id"]

    def _flag(self, column: str) -> pl.Series:
        flag = self.text[column].cast(pl.Float64, strict=False)
        self._refuse(~flag.is_in([0.0, 1.0]), column, "write 0 or 1")
        return flag.cast(pl.Int64)

    def _time(self, frame: pl.DataFrame) -> pl.Series:
        """Return when each row's round began; times ascend with the rounds."""
        if "time_s" not in self.text.columns:
            return frame["round"].cast(pl.Float64)
        time = self._number("time_s")
        begin = pl.DataFrame({"round": frame["round"], "time": time}).group_by("round").agg(pl.col("time").min())
        early = begin.sort("round").filter(pl.col("time").diff() <= 0)["round"].implode()
        self._refuse(frame["round"].is_in(early), "time_s", "write a later time than that of the round before")
        return time

    def _increment(self, frame: pl.DataFrame) -> pl.Series:
        """Return what each row adds to its client's utility."""
        if "utility_increment" in self.text.columns:
            took = frame["participated"] == 1
            remedy = "write what the participation was worth, or leave the column out"
            worth = self._number("utility_increment", took, remedy)
            return frame.select(pl.when(took).then(worth).otherwise(0.0)).to_series()
        if "utility" in self.text.columns:
            total = self._number("utility", self.text["utility"].is_not_null())
            known = pl.col("total").forward_fill().shift(1).fill_null(0.0).over("client_id", order_by="round")
            return frame.with_columns(total=total).select(pl.col("total") - known).to_series()
        return frame["participated"].cast(pl.Float64)

    def _number(self, column: str, needed: pl.Series | None = None, remedy: str = "write a number") -> pl.Series:
        """Return a column as numbers, null where there is none; refuse that where one is needed (None: in all rows)."""
        number = self.text[column].cast(pl.Float64, strict=False)
        absent = ~number.is_finite().fill_null(False)
        self._refuse(absent if needed is None else absent & needed, column, remedy)
        return number

    def _refuse(self, wrong: pl.Series, column: str, remedy: str) -> None:
        """Raise for the first row that is wrong, or unknown."""
        row = wrong.fill_null(True).arg_max()
        if row is not None and wrong.fill_null(True)[row]:
            value = self.text[column][row] or ""
            raise DataError(f"{self.path}, line {row + 2}: {column} = {value!r}: {remedy}")


def _read(path: Path) -> pl.DataFrame:
    """Return the columns of the file that are needed, as text; of a log that is ours `utility` is among them."""
    try:
        content = path.read_bytes()
        _require_text(content)
        names = pl.read_csv(content, infer_schema=False, n_rows=0).columns
        _require_columns(path, names, next(csv.reader(_text(content)), []))
        needed = (*REQUIRED, *OPTIONAL, *(["utility"] if set(OURS) <= set(names) else []))
        text = _columns(content, names, [name for name in names if name in needed])
    except OSError as error:
        raise DataError(f"cannot read the log {path}: {error.strerror}; name a CSV file") from None
    except UnicodeDecodeError:
        raise DataError(f"cannot read the log {path}: it is not UTF-8 text; save it as UTF-8") from None
    except pl.exceptions.PolarsError as error:
        reason = _ragged(content) or first_line(error)
        raise DataError(f"{path} is no CSV file with a header and rows: {reason}") from None
    if text.height == 0:
        raise DataError(f"{path} has no rows: write one per round and client")
    return text


def _columns(content: bytes, names: Sequence[str], needed: Sequence[str]) -> pl.DataFrame:
    """Return some columns of a CSV file as text.

    Where columns are left out polars overlooks lines that are too long, and a quote out of place, which may swallow
    lines. For the former all columns are read as truth values, which take next to no room; for the latter as they are.

    Raises:
        PolarsError: a line is wrong, in whatever column.
    """
    if b'"' in content:
        return pl.read_csv(content, infer_schema=False).select(needed)
    pl.read_csv(content, schema_overrides=dict.fromkeys(names, pl.Boolean), ignore_errors=True)
    return pl.read_csv(content, infer_schema=False, columns=needed)


def _text(content: bytes) -> TextIO:
    """Return UTF-8 bytes as text that is read piece by piece: the whole of it would be as large again."""
    return TextIOWrapper(BytesIO(content), "utf-8", newline=None)


def _require_text(content: bytes) -> None:
    text = _text(content)
    while text.read(CHUNK):
        pass


def _require_columns(path: Path, names: Sequence[str], header: Sequence[str]) -> None:
    """Refuse a log by its columns' names; `header` has them as they are written, `names` each once."""
    twice = next((name for name, times in Counter(header).items() if times > 1), None)
    if twice is not None:
        raise DataError(f"{path} has the column {twice!r} twice: leave one of them out")
    absent = next((column for column in REQUIRED if column not in names), None)
    if absent is not None:
        raise DataError(f"{path} has no column {absent!r}: write {', '.join(REQUIRED)}; it has {', '.join(names)}")


def _ragged(content: bytes) -> str:
    """Say which line has more fields than the header; '' where none has, or it cannot be told."""
    lines = csv.reader(_text(content))
    expected = len(next(lines, []))
    longer = (
        f"line {lines.line_num} has {len(line)} fields for {expected} columns" for line in lines if len(line) > expected
    )
    try:
        return next(longer, "")
    except csv.Error:
        return ""


def _clients(log: pl.DataFrame) -> pl.DataFrame:
    """Return a row per client: its rounds, in how many it was available, selected and took part, and its utility."""
    gains = pl.col("increment").filter(pl.col("participated") == 1)
    known = gains.is_not_null().any() | (gains.len() == 0)
    rounds = log["round"].unique().sort().to_numpy()
    totals = log.group_by("client_id", maintain_order=True).agg(
        pl.col("round").min().alias("first"),
        pl.col("available", "selected", "participated").sum(),
        pl.when(known).then(pl.col("increment").sum()).alias("utility"),
    )
    counted = len(rounds) - np.searchsorted(rounds, totals["first"].to_numpy())
    return totals.with_columns(pl.Series("rounds", counted))
