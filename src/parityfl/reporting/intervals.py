"""How sure a mean is: t intervals and the sign test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95

EQUAL = 1e-9
"""How long, in units of the mean, rounding may have made the interval of equal values."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval.

    Attributes:
        mean: the arithmetic mean.
        low: lower end of the interval; None where one value gives none.
        high: upper end of the interval.
        n: how many values there were.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the interval's length; None where there is no interval."""
        return None if self.high is None else self.high - self.mean

    @property
    def has_interval(self) -> bool:
        """Whether there is one to judge by.

        Two values that are equal give none: figures as coarse as an accuracy over few examples are so by chance, more
        often than t allows for. Three or more that are equal are so seldom enough.
        """
        return self.half_width is not None and (self.n > 2 or self.half_width > EQUAL * abs(self.mean))

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return mean and Student's t interval, mean ± t(0.975, n - 1) s / sqrt(n); None without values."""
    n = len(values)
    if n == 0:
        return None
    mean = float(np.mean(values))
    if n == 1:
        return Estimate(mean, None, None, 1)
    from scipy.special import stdtrit  # noqa: PLC0415 - slow to import, and a report of one run needs none of it

    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * float(np.std(values, ddof=1)) / n**0.5
    return Estimate(mean, mean - half, mean + half, n)


def sign_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the sign test, zeros left out; None with fewer than two non-zero differences."""
    signs = [difference > 0 for difference in differences if difference != 0]
    if len(signs) < 2:
        return None
    from scipy.special import bdtr  # noqa: PLC0415 - as above

    rarer = min(sum(signs), len(signs) - sum(signs))
    return min(1.0, 2 * float(bdtr(rarer, len(signs), 0.5)))
