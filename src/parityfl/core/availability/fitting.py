"""Synthetic models fitted to a recording: the same pi and the same bursts, or the same day, for any population size."""

import numpy as np

from parityfl.core.availability.diurnal import Diurnal
from parityfl.core.availability.gilbert_elliott import GilbertElliott
from parityfl.core.availability.recording import Recording
from parityfl.core.availability.trace_statistics import trace_statistics
from parityfl.core.errors import DataError
from parityfl.core.types import IntArray


def fit_gilbert_elliott(recording: Recording, interval_s: float) -> GilbertElliott:
    """Fit a two-state chain to each device, for rounds of `interval_s` seconds.

    pi is the device's share of time. The mean on-run is the maximum-likelihood estimate of the chain on the grid of
    rounds, (rounds on that have a successor) / (those whose successor is off), the denominator at least 1; it is 1
    for a device that is never on, of which nothing can be said.

    Returns:
        The model with one value of `pi` and `mean_on_rounds` per device.
    """
    on_rounds, departures = _departures(recording, interval_s)
    mean_on = np.maximum(on_rounds / np.maximum(departures, 1), 1.0)
    return GilbertElliott(pi=trace_statistics(recording).pi.tolist(), mean_on_rounds=mean_on.tolist())


def fit_diurnal(recording: Recording) -> Diurnal:
    """Fit a sinusoid in the time of day to each device, by the first harmonic of its hourly profile.

    The mean of the 24 hours is pi, and the least-squares cosine gives amplitude and peak; averaging over an hour
    flattens a cosine by sinc(1/24), which is made good. An amplitude above what `diurnal` allows is cut to 1.

    Returns:
        The model with one value of `pi`, `amplitude` and `peak_h` per device.

    Raises:
        DataError: a device was not observed in every hour of the day.
    """
    profile = trace_statistics(recording).heat_map
    short = np.flatnonzero(np.isnan(profile).any(axis=1))
    if len(short):
        name = recording.devices[int(short[0])]
        raise DataError(f"device {name!r} was not observed in every hour of the day: fit devices of a day or more")
    pi = np.clip(profile.mean(axis=1), 0.0, 1.0)
    middle_of_hour = 2 * np.pi * (np.arange(24) + 0.5) / 24
    harmonic = profile @ np.exp(1j * middle_of_hour) * 2 / 24 / np.sinc(1 / 24)
    room = np.minimum(pi, 1 - pi)
    amplitude = np.divide(np.abs(harmonic), room, out=np.zeros(len(pi)), where=room > 0)
    peak_h = np.angle(harmonic) * 24 / (2 * np.pi) % 24
    return Diurnal(pi=pi.tolist(), amplitude=np.minimum(amplitude, 1.0).tolist(), peak_h=peak_h.tolist())


def _departures(recording: Recording, interval_s: float) -> tuple[IntArray, IntArray]:
    """Return how many instants of each device's grid are on and have a successor, and after how many it is off."""
    counts = []
    for index, steps in enumerate(recording.steps()):
        grid = np.arange(recording.first_s[index], recording.last_s[index], interval_s)
        on = recording.on[steps][np.searchsorted(recording.start_s[steps], grid, side="right") - 1]
        counts.append((np.sum(on[:-1]), np.sum(on[:-1] & ~on[1:])))
    on_rounds, departures = np.array(counts, dtype=np.int64).T
    return on_rounds, departures
