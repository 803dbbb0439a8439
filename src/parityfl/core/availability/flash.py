r"""The trace format of FLASH: a JSON object of devices, each with the log of its phone's events.

Yang et al., "Characterizing Impacts of Heterogeneity in Federated Learning upon Large-Scale Smartphone Data",
WWW 2021. A device is ``{"guid": ..., "messages": "2020-01-29 18:42:18 \twifi\n...", "model": ...}``.
Deviations from FLASH's own timer: idle is a choice of `RULES`, an interval that is open at the end counts, and
intervals are closed on the left and open on the right.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from parityfl.core.availability.recording import HOUR_S, LONGEST_S, Recording, last_at_instant, recording
from parityfl.core.errors import DataError
from parityfl.core.types import FloatArray, IntArray

CHARGING, WIFI, SCREEN_OFF, LOCKED = 1, 2, 4, 8

RULES: Mapping[str, int] = {
    "charging_wifi": CHARGING | WIFI,
    "charging_wifi_off": CHARGING | WIFI | SCREEN_OFF,
    "charging_wifi_locked": CHARGING | WIFI | LOCKED,
    "wifi": WIFI,
}
"""What must hold for a device to be available, as bits of its state."""

_EVENTS: Mapping[str, tuple[int, bool]] = {
    "battery_charged_on": (CHARGING, True),
    "battery_charged_off": (CHARGING, False),
    "wifi": (WIFI, True),
    "2g": (WIFI, False),
    "3g": (WIFI, False),
    "4g": (WIFI, False),
    "5g": (WIFI, False),
    "unknown": (WIFI, False),
    "screen_off": (SCREEN_OFF, True),
    "screen_on": (SCREEN_OFF, False),
    "screen_lock": (LOCKED, True),
    "screen_unlock": (LOCKED, False),
}
_PERCENTAGE = re.compile(r"\d+(\.\d+)?%")
_STAMP_LENGTH = len("2020-01-29 18:42:18")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FlashLog:
    """The states of all devices, flat, ordered by device and then time, one record per device and instant.

    Attributes:
        devices: names in file order, D of them.
        device: the device of each record, shape (M,).
        time_s: seconds since 1970, the file's clock read as UTC, shape (M,).
        state: bits of `CHARGING`, `WIFI`, `SCREEN_OFF` and `LOCKED`, shape (M,).
        ignored: how often each unknown event occurred.
    """

    devices: tuple[str, ...]
    device: IntArray
    time_s: FloatArray
    state: IntArray
    ignored: Mapping[str, int]


def read_flash(text: str, path: str) -> FlashLog:
    """Parse a FLASH file.

    All bits are False before the first record. Lines are sorted by time, stably; records at one instant are applied in
    file order and only the final state counts. A battery percentage changes nothing; a word that is not part of the
    format is counted and ignored.

    Args:
        text: what the file holds.
        path: its name, for messages.

    Raises:
        DataError: it is not JSON, not an object of devices, or a line is malformed; or the records of a device span no
            time, or those of all devices more than `LONGEST_S`.
    """
    ignored: Counter[str] = Counter()
    messages = _messages(text, path)
    tables = [_states(_lines(body, f"{path}, device {name!r}"), ignored) for name, body in messages.items()]
    for name, table in zip(messages, tables, strict=True):
        if len(table) == 0 or table[0, 0] == table[-1, 0]:
            raise DataError(f"{path}, device {name!r}: its messages span no time; remove the device from the file")
    _require_one_life(dict(zip(messages, tables, strict=True)), path)
    if ignored:
        _log.warning("%s: ignored %d records of unknown events: %s", path, ignored.total(), ", ".join(sorted(ignored)))
    device = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    time_s, state = np.concatenate(tables).T
    final = last_at_instant(device, time_s.astype(np.float64))
    return FlashLog(tuple(messages), device[final], time_s[final].astype(np.float64), state[final], dict(ignored))


def _require_one_life(tables: Mapping[str, IntArray], path: str) -> None:
    """Refuse devices, each with its records in order of time, that span more than `LONGEST_S` between them."""
    first = min(tables, key=lambda name: int(tables[name][0, 0]))
    last = max(tables, key=lambda name: int(tables[name][-1, 0]))
    start_s, end_s = int(tables[first][0, 0]), int(tables[last][-1, 0])
    if end_s - start_s > LONGEST_S:
        raise DataError(
            f"{path}, device {last!r}: its last record is of {_stamp(end_s)}, more than 100 years after "
            f"{_stamp(start_s)} of device {first!r}: put the wrong one right, or remove its device from the file"
        )


def apply_rule(log: FlashLog, rule: str, max_gap_h: float | None = None) -> Recording:
    """Return when the devices of a log are available.

    A state persists until the next record, or, with `max_gap_h`, for so many hours at most; that of the last persists.
    """
    mask = RULES[rule]
    device, time_s, on = log.device, log.time_s, (log.state & mask) == mask
    first = np.append(True, device[1:] != device[:-1])
    last = np.append(first[1:], True)
    window_s = time_s[first], time_s[last]
    if max_gap_h is not None:
        expires = np.flatnonzero(~last & (np.append(np.diff(time_s), 0.0) > max_gap_h * HOUR_S))
        device = np.insert(device, expires + 1, device[expires])
        time_s = np.insert(time_s, expires + 1, time_s[expires] + max_gap_h * HOUR_S)
        on = np.insert(on, expires + 1, False)
    return recording(log.devices, window_s, device, time_s, on, ignored=log.ignored)


def _messages(text: str, path: str) -> dict[str, str]:
    """Return the log text of each device."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not a trace: neither JSON ({error}) nor CSV with the header client_id,start_s,end_s; "
            "give a FLASH trace or such a CSV"
        ) from None
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path} is not a FLASH trace: it must be a JSON object of devices and holds {_kind(content)}")
    for name, device in content.items():
        if not isinstance(device, dict) or not isinstance(device.get("messages"), str):
            raise DataError(
                f"{path}, device {name!r} is not a FLASH device: it must be an object with the text 'messages'"
            )
    return {name: device["messages"] for name, device in content.items()}


def _kind(content: object) -> str:
    return f"an empty {type(content).__name__}" if content in ({}, []) else f"a {type(content).__name__}"


def _lines(body: str, place: str) -> Iterator[tuple[int, str]]:
    """Yield the time and the event, in lower case, of each line that is not blank."""
    for number, line in enumerate(body.split("\n"), 1):
        if not line.strip():
            continue
        stamp, _, event = line.partition("\t")
        try:
            yield _seconds(stamp.strip()), event.strip().lower()
        except ValueError:
            raise DataError(
                f"{place}, line {number} of its messages is {line!r}: it must be 'YYYY-mm-dd HH:MM:SS', a tab and an "
                "event"
            ) from None


def _seconds(stamp: str) -> int:
    """Return seconds since 1970 of a naive timestamp, read as UTC on every machine."""
    if len(stamp) != _STAMP_LENGTH:
        raise ValueError(stamp)
    return int(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp())


def _stamp(time_s: int) -> str:
    """Return what `_seconds` reads."""
    return str(datetime.fromtimestamp(time_s, UTC).replace(tzinfo=None))


def _states(lines: Iterator[tuple[int, str]], ignored: Counter[str]) -> IntArray:
    """Return the time and the state after each line, in order of time, shape (lines, 2)."""
    state, table = 0, []
    for time_s, event in sorted(lines, key=lambda line: line[0]):
        if event in _EVENTS:
            bit, value = _EVENTS[event]
            state = state | bit if value else state & ~bit
        elif not _PERCENTAGE.fullmatch(event):
            ignored[event] += 1
        table.append((time_s, state))
    return np.array(table, dtype=np.int64).reshape(-1, 2)
