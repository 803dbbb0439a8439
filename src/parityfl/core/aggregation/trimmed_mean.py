"""The coordinate-wise trimmed mean."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import stack
from parityfl.core.keys import at_least_below
from parityfl.core.types import RoundContext, State, Step, Update


@aggregator("trimmed-mean")
@dataclass(frozen=True)
class TrimmedMean(Aggregator):
    """Average each coordinate after leaving out its lowest and its highest values.

    Definition 2 of Yin et al. Deviation: ceil(trim n) values are left out at each end, where n trim need not be whole,
    but never so many that none remains; so 3 to 10 participants lose one each side at the default. Needs all updates
    of a round at once.

    Attributes:
        server_lr: step along the mean.
        trim: share left out at each end, in [0, 0.5).
    """

    source: ClassVar[str] = "Yin et al., ICML 2018"

    server_lr: float = 1.0
    trim: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_below("aggregator.trim", self.trim, 0, 0.5)

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return the trimmed mean, or None in a round without updates."""
        rows = stack(updates)
        count = len(rows)
        if not count:
            return Step(None, state)
        cut = min(ceil(self.trim * count - 1e-9), (count - 1) // 2)  # .28 x 25 is a little more than 7
        rows.sort(axis=0)
        return Step(np.mean(rows[cut : count - cut], axis=0, dtype=np.float32), state)
