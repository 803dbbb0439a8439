"""Krum and multi-Krum."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import stack
from parityfl.core.arrays import dot
from parityfl.core.keys import at_least
from parityfl.core.types import FloatArray, IntArray, RoundContext, State, Step, Update, Vector


@aggregator("krum")
@dataclass(frozen=True)
class Krum(Aggregator):
    """Take the update that lies closest to its neighbours, or the mean of the `keep` closest (multi-Krum).

    Blanchard et al.: an update's score is the sum of its squared distances to the n - hostile - 2 nearest others, and
    the smallest score wins, ties by the sum over all others. Their guarantee needs n > 2 hostile + 2; with fewer
    participants at least one neighbour counts. It discards honest clients that are unlike the rest, so it works
    against parity. Needs all updates of a round at once, and O(participants² d) work.

    Attributes:
        server_lr: step along the result.
        hostile: how many hostile participants to expect, 0 or more.
        keep: how many updates to average, 1 or more; 1 is Krum.
    """

    source: ClassVar[str] = "Blanchard et al., NeurIPS 2017"

    server_lr: float = 1.0
    hostile: int = 1
    keep: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("aggregator.hostile", self.hostile, 0)
        at_least("aggregator.keep", self.keep, 1)

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return the mean of the updates with the smallest scores, or None in a round without updates."""
        rows = stack(updates)
        if not len(rows):
            return Step(None, state)
        chosen = self._ranked(_squared_distances(rows))[: self.keep]
        return Step(np.mean(rows[np.sort(chosen)], axis=0, dtype=np.float32), state)

    def _ranked(self, distances: FloatArray) -> IntArray:
        """Return the rows' numbers, the most central first."""
        neighbours = max(len(distances) - self.hostile - 2, 1)
        scores = np.sort(distances, axis=1)[:, 1 : neighbours + 1].sum(axis=1)
        return np.lexsort((distances.sum(axis=1), scores))


def _squared_distances(rows: Vector) -> FloatArray:
    """Return ||row_i - row_j||²; pair by pair, since the usual expansion loses small distances of large vectors."""
    distances = np.zeros((len(rows), len(rows)))
    for i, j in combinations(range(len(rows)), 2):
        apart = rows[i] - rows[j]
        distances[i, j] = distances[j, i] = dot(apart, apart)
    return distances
