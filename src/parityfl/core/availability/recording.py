"""Recordings: when each of D devices was available, as a right-continuous step function per device.

The steps of all devices lie in flat arrays, M in all, ordered by device and then time, so that every question is one
vectorised operation. Times are seconds of one clock that has a midnight at every multiple of 86,400.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from parityfl.core.types import BoolArray, FloatArray, IntArray

HOUR_S = 3600.0
DAY_S = 86400.0

LONGEST_S = 100 * 365.25 * DAY_S
"""What a file's observations may span: a longer one mixes units or clocks, and its hours would not fit into memory."""


@dataclass(frozen=True)
class Recording:
    """What a trace file says under one rule.

    Attributes:
        devices: names in file order, D of them.
        first_s: when each device's observation begins, shape (D,).
        last_s: when it ends, later than `first_s`; nothing is known outside [first_s, last_s), shape (D,).
        device: the device of each step, ascending, shape (M,).
        start_s: when each step begins; a device's first step begins at its `first_s`, shape (M,).
        on: whether the device is available from then until its next step; steps alternate, shape (M,).
        ignored: how often each event word that is not part of the format occurred.
    """

    devices: tuple[str, ...]
    first_s: FloatArray
    last_s: FloatArray
    device: IntArray
    start_s: FloatArray
    on: BoolArray
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def span_s(self) -> FloatArray:
        """How long each device was observed, shape (D,)."""
        return self.last_s - self.first_s

    @property
    def period_s(self) -> FloatArray:
        """After how long a looped device repeats, shape (D,).

        The span rounded to whole days, so that looping keeps the time of day; a span of less than half a day, which
        has no time of day to keep, repeats as it is.
        """
        span = self.span_s
        return np.where(span < DAY_S / 2, span, np.maximum(np.rint(span / DAY_S), 1.0) * DAY_S)

    @property
    def midnight_s(self) -> float:
        """The last midnight at or before the earliest observation."""
        return float(np.floor(self.first_s.min() / DAY_S) * DAY_S)

    def steps(self) -> list[slice]:
        """Return where in the flat arrays each device's steps lie, D slices."""
        bounds = np.searchsorted(self.device, np.arange(len(self.devices) + 1))
        return [slice(*pair) for pair in pairwise(bounds.tolist())]

    def ends_s(self, last_s: FloatArray) -> FloatArray:
        """Return when each step ends if its device's last one ends at `last_s` (D,), shape (M,)."""
        final = np.append(self.device[1:] != self.device[:-1], True)
        return np.where(final, last_s[self.device], np.append(self.start_s[1:], 0.0))


def recording(
    devices: tuple[str, ...],
    window_s: tuple[FloatArray, FloatArray],
    device: IntArray,
    time_s: FloatArray,
    on: BoolArray,
    *,
    ignored: Mapping[str, int] | None = None,
) -> Recording:
    """Return the recording of (device, time, on) triples that are ordered by device and then time.

    Of the triples at one instant only the last counts, and of equal ones in a row only the first.
    """
    counts = last_at_instant(device, time_s)
    device, time_s, on = device[counts], time_s[counts], on[counts]
    changes = np.append(True, (device[1:] != device[:-1]) | (on[1:] != on[:-1]))
    return Recording(devices, *window_s, device[changes], time_s[changes], on[changes], ignored or {})


def last_at_instant(device: IntArray, time_s: FloatArray) -> BoolArray:
    """Return which of the records, ordered by device and then time, is its device's last at its instant."""
    return np.append((device[1:] != device[:-1]) | (time_s[1:] != time_s[:-1]), True)
