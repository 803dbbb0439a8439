"""What a recording holds, in figures: how long, how often, in which runs and at what time of day."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from parityfl.core.availability.recording import DAY_S, HOUR_S, Recording
from parityfl.core.fairness import ratio
from parityfl.core.types import FloatArray


@dataclass(frozen=True)
class Sojourns:
    """The runs of one state, over all devices; a run that the recording's end cuts short counts as it is.

    Attributes:
        count: how many.
        mean_s: their mean length, nan where there is none.
        median_s: their median length, nan where there is none.
    """

    count: int
    mean_s: float
    median_s: float


@dataclass(frozen=True)
class TraceStatistics:
    """A recording of D devices in figures.

    Attributes:
        devices: names in file order.
        first_s: when each device's observation begins, on the file's clock, shape (D,).
        last_s: when it ends, shape (D,).
        pi: share of its observation in which each device is available, shape (D,).
        on: the runs of availability.
        off: the runs between them.
        heat_map: share of each hour of the day in which each device is available, nan where the device was never
            observed in that hour, shape (D, 24).
        hourly: mean of the heat map over the devices observed in that hour, shape (24,).
        ignored: how often each event word that is not part of the format occurred.
    """

    devices: tuple[str, ...]
    first_s: FloatArray
    last_s: FloatArray
    pi: FloatArray
    on: Sojourns
    off: Sojourns
    heat_map: FloatArray
    hourly: FloatArray
    ignored: Mapping[str, int]

    @property
    def span_days(self) -> FloatArray:
        """How long each device was observed, in days, shape (D,)."""
        return (self.last_s - self.first_s) / DAY_S


def trace_statistics(recording: Recording) -> TraceStatistics:
    """Return the figures of a recording."""
    length_s = recording.ends_s(recording.last_s) - recording.start_s
    heat_map = _heat_map(recording)
    observed = np.isfinite(heat_map)
    return TraceStatistics(
        devices=recording.devices,
        first_s=recording.first_s,
        last_s=recording.last_s,
        pi=np.bincount(recording.device, weights=length_s * recording.on) / recording.span_s,
        on=_sojourns(length_s[recording.on]),
        off=_sojourns(length_s[~recording.on]),
        heat_map=heat_map,
        hourly=ratio(np.where(observed, heat_map, 0.0).sum(axis=0), observed.sum(axis=0)),
        ignored=recording.ignored,
    )


def _sojourns(length_s: FloatArray) -> Sojourns:
    runs = length_s[length_s > 0]  # a state that begins at the last record has no length
    if len(runs) == 0:
        return Sojourns(0, float("nan"), float("nan"))
    return Sojourns(len(runs), float(runs.mean()), float(np.median(runs)))


def _heat_map(recording: Recording) -> FloatArray:
    devices = len(recording.devices)
    on_s, seen_s = np.zeros((devices, 24)), np.zeros((devices, 24))
    for index, steps in enumerate(recording.steps()):
        first_s, last_s = recording.first_s[index], recording.last_s[index]
        times = np.append(recording.start_s[steps], last_s)
        on_until = np.append(0.0, np.cumsum(np.diff(times) * recording.on[steps]))
        whole_hours = np.arange(np.floor(first_s / HOUR_S) + 1, np.ceil(last_s / HOUR_S)) * HOUR_S
        edges = np.concatenate([[first_s], whole_hours, [last_s]])
        hour = (edges[:-1] // HOUR_S % 24).astype(np.int64)
        on_s[index] = np.bincount(hour, np.diff(np.interp(edges, times, on_until)), minlength=24)
        seen_s[index] = np.bincount(hour, np.diff(edges), minlength=24)
    return ratio(on_s, seen_s)
