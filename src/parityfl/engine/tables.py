"""The lines of a run's tables (core/columns.py): what stands in each column, and how a number is written."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from parityfl.core.columns import CLIENT_COLUMNS, ROUND_COLUMNS
from parityfl.core.fairness import availability_interval, ratio
from parityfl.core.ledger import OUTCOME_CODES, Ledger, RoundRecord
from parityfl.core.rounds import staleness
from parityfl.core.shortfall import shortfall

Values = NDArray[np.generic]

_MEASURED = tuple(CLIENT_COLUMNS)[2:]
"""Columns of clients.csv but for the round and the client's name."""


def header(columns: Iterable[str]) -> str:
    """Return the first line of a table."""
    return ",".join(columns) + "\n"


def lines(columns: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table from its columns of written cells, each of the same length."""
    return "".join(",".join(cells) + "\n" for cells in zip(*columns, strict=True))


def round_line(figures: Mapping[str, float]) -> str:
    """Return the line of rounds.csv; nan is written as nothing."""
    return ",".join(text(figures[column]) for column in ROUND_COLUMNS) + "\n"


def client_lines(record: RoundRecord, ledger: Ledger, device_ids: Sequence[str]) -> str:
    """Return the lines of clients.csv of a round, a line per registered client; `ledger` includes the round."""
    here = np.flatnonzero(record.registered)
    columns = _client_columns(record, ledger)
    cells = [[str(record.round)] * len(here), [device_ids[index] for index in here.tolist()]]
    cells += [_texts(name, np.asarray(columns[name])[here]) for name in _MEASURED]
    return lines(cells)


def shortfall_lines(ledger: Ledger, device_ids: Sequence[str]) -> str:
    """Return the lines of shortfall.csv, a line per registered client."""
    here = np.flatnonzero(ledger.first_round > 0)
    parts = shortfall(ledger)
    columns: list[Values] = [
        ledger.rounds_present,
        ledger.available,
        ledger.selected,
        ledger.participated,
        ledger.late,
        ledger.utility,
        parts.share,
        parts.total,
        parts.physical,
        parts.scheduling,
        parts.execution,
        parts.learning,
    ]
    cells = [[device_ids[index] for index in here.tolist()]]
    cells += [[text(value) for value in column[here].tolist()] for column in columns]
    return lines(cells)


def _client_columns(record: RoundRecord, ledger: Ledger) -> dict[str, Values]:
    rounds = ledger.rounds_present
    low, high = availability_interval(ledger.available, rounds, ledger.switched_on, ledger.switched_off)
    derived: dict[str, Values] = {
        "participated": record.participated,
        "outcome": np.asarray(OUTCOME_CODES)[record.outcome],
        "availability_estimate": ratio(ledger.available, rounds),
        "availability_low": low,
        "availability_high": high,
        "utility": ledger.utility,
        "normalized_utility": ledger.normalized_utility,
        "staleness": staleness(ledger),
    }
    return derived | {name: getattr(record, name) for name in _MEASURED if name not in derived}


def _texts(name: str, values: Values) -> list[str]:
    if CLIENT_COLUMNS[name] is int:
        return ["" if math.isnan(value) else str(int(value)) for value in values.tolist()]
    return [text(value) for value in values.tolist()]


def text(value: float | str) -> str:
    """Write a float in its shortest round-trip form, a count as a whole number, what is not finite as nothing."""
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""
    return str(value)
