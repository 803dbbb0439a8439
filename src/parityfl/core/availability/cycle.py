"""What daily cycles share: a wave in time of day, and how far it may swing a probability."""

from math import inf, isfinite

import numpy as np

from parityfl.core.availability.recording import HOUR_S
from parityfl.core.keys import require
from parityfl.core.types import FloatArray


def wave(time_s: float, start_h: float, peak_h: FloatArray, period_h: float) -> FloatArray:
    """Return cos(2 pi (hour - peak_h) / period_h), where hour = start_h + time_s / 3600."""
    return np.cos(2 * np.pi * (start_h + time_s / HOUR_S - peak_h) / period_h)


def swing(pi: FloatArray, amplitude: FloatArray) -> FloatArray:
    """Return the largest departure from pi, a share `amplitude` of what keeps it between 0 and 1."""
    return amplitude * np.minimum(pi, 1.0 - pi)


def check_cycle(start_h: float, period_h: float) -> None:
    """Raise `ConfigError` unless both are finite and `period_h` is positive."""
    require(isfinite(start_h), "availability.start_h", start_h, "give the hour of the day of the first round")
    require(0 < period_h < inf, "availability.period_h", period_h, "give hours above 0, such as 24")
