"""A plain trace format: a CSV of intervals in which clients are available, ``client_id,start_s,end_s``."""

import csv
import io

import numpy as np

from parityfl.core.availability.recording import DAY_S, LONGEST_S, Recording, recording
from parityfl.core.errors import DataError

HEADER = "client_id,start_s,end_s"


def is_intervals(text: str) -> bool:
    """Return whether a file begins with the header of this format."""
    return text.partition("\n")[0].replace(" ", "").strip() == HEADER


def read_intervals(text: str, path: str) -> Recording:
    """Parse a CSV of intervals [start_s, end_s), in any order; those of one client may overlap.

    All clients are observed from the last midnight (multiple of 86,400) at or before the earliest start until the
    latest end, and are unavailable outside their intervals. A row with start_s = end_s adds no availability: with it
    a client that is never on is declared, or the observation extended.

    Raises:
        DataError: there is no row, or a row has not three fields, or not two finite times with start_s <= end_s; or
            the rows span no time, or more than `LONGEST_S`.
    """
    records = _records(text, path)
    rows = [_row(fields, path, number) for number, fields in records]
    if not rows:
        raise DataError(f"{path} holds no interval: give a row client_id,start_s,end_s for each")
    _require_one_life([(number, *row[1:]) for (number, _), row in zip(records, rows, strict=True)], path)
    names = {name: index for index, name in enumerate(dict.fromkeys(row[0] for row in rows))}
    client = np.array([names[row[0]] for row in rows])
    start_s, end_s = np.array([row[1:] for row in rows]).T
    begin_s, finish_s = float(np.floor(start_s.min() / DAY_S) * DAY_S), float(end_s.max())
    if begin_s == finish_s:
        raise DataError(
            f"{path} spans no time: every interval ends at {finish_s:g}; give intervals with end_s > start_s"
        )

    everyone, one = np.arange(len(names)), np.ones(len(rows))
    device = np.concatenate([everyone, client, client])
    time_s = np.concatenate([np.full(len(names), begin_s), start_s, end_s])
    change = np.concatenate([np.zeros(len(names)), one, -one])
    order = np.lexsort((time_s, device))
    open_intervals = np.cumsum(change[order])  # every interval closes, so the count is 0 again at each new device
    window_s = np.full(len(names), begin_s), np.full(len(names), finish_s)
    return recording(tuple(names), window_s, device[order], time_s[order], open_intervals > 0)


def _require_one_life(times: list[tuple[int, float, float]], path: str) -> None:
    """Refuse rows, each a line number with its two times, that span more than `LONGEST_S`."""
    first, start_s, _ = min(times, key=lambda row: row[1])
    last, _, end_s = max(times, key=lambda row: row[2])
    if end_s - start_s > LONGEST_S:
        raise DataError(
            f"{path}, line {last} ends at {end_s:.15g}, more than 100 years after {start_s:.15g} in line {first}: are "
            "these milliseconds? give seconds, and a real end in place of a far one that stands for none"
        )


def _records(text: str, path: str) -> list[tuple[int, list[str]]]:
    """Return line number and fields of each row below the header that is not blank."""
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    try:
        return [(reader.line_num, fields) for fields in reader if fields][1:]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num} is not CSV ({error}): write {HEADER}") from None


def _row(fields: list[str], path: str, number: int) -> tuple[str, float, float]:
    try:
        name, start_s, end_s = fields[0].strip(), float(fields[1]), float(fields[2])
        valid = len(fields) == 3 and name != "" and np.isfinite([start_s, end_s]).all() and start_s <= end_s
    except (ValueError, IndexError):
        valid = False
    if not valid:
        raise DataError(
            f"{path}, line {number} is {','.join(fields)!r}: write {HEADER} with two numbers of seconds, "
            "start_s not above end_s"
        )
    return name, start_s, end_s
