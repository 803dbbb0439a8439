"""Sums of updates, folded in client order as they arrive; d is the number of model parameters."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from parityfl.core.buffers import empty_vector
from parityfl.core.types import Update, Vector

BLOCK = 2**18
"""Parameters that are added at a time: few enough to stay in a cache until they are added, so that an update is read
from memory once, and enough that the calls of numpy cost next to nothing."""

MOST_LOSS = 1e3
"""The most that `loss_before` says, so that no client's loss outweighs all others'."""

Weigh = Callable[[Update], float]
"""Says what an update weighs, 0 or more, from its figures alone."""


@dataclass(frozen=True)
class WeightedSum:
    """A folded round.

    Attributes:
        total: sum_k v_k Delta_k, float32, shape (d,).
        mass: sum_k v_k.
        count: how many updates there were.
    """

    total: Vector
    mass: float
    count: int

    @property
    def mean(self) -> Vector | None:
        """The weighted mean, or None where no update had any weight."""
        if not self.mass > 0:
            return None
        return np.divide(self.total, np.float32(self.mass), out=empty_vector(len(self.total)))


def fold(parts: Iterable[tuple[float, Vector]], size: int) -> WeightedSum:
    """Add up (weight, update) pairs; the memory is that of one update, whatever their number."""
    total, mass, count = empty_vector(size), 0.0, 0
    scratch = np.empty(min(size, BLOCK), dtype=np.float32)
    for weight, delta in parts:
        if count == 0:
            np.multiply(delta, np.float32(weight), out=total)
        else:
            for start in range(0, size, BLOCK):
                block = total[start : start + BLOCK]
                block += np.multiply(delta[start : start + BLOCK], np.float32(weight), out=scratch[: len(block)])
        mass += weight
        count += 1
    return WeightedSum(total if count else np.zeros(size, dtype=np.float32), mass, count)


def pool(updates: Iterable[Update], weigh: Weigh, size: int) -> list[Update]:
    """Return the updates, each with the weighted mean of all as its delta.

    It is one vector, whatever their number, and sum_k v_k Delta_k over them is what it was, up to rounding: a rule that
    only adds them up with these weights cannot tell.
    """
    figures: list[Update] = []

    def parts() -> Iterator[tuple[float, Vector]]:
        for update in updates:
            figures.append(replace(update, delta=np.empty(0, dtype=np.float32)))
            yield weigh(update), update.delta

    folded = fold(parts(), size)
    mean = folded.mean
    shared = folded.total if mean is None else mean  # without any weight both the sum and its share are 0
    return [replace(update, delta=shared) for update in figures]


def stack(updates: Iterable[Update]) -> Vector:
    """Return all updates as rows, shape (number of updates, d); (0, 0) without any."""
    rows = [update.delta for update in updates]
    return np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)


def loss_before(update: Update) -> float:
    """Return the client's loss of the model that it was sent, in [0, `MOST_LOSS`].

    It is the held-out loss or, where nobody measured that, the mean training loss. What is not finite counts 0, so
    that a broken client gains no weight by it.
    """
    known = (loss for loss in (update.loss_before, update.train_loss) if isfinite(loss))
    return min(max(next(known, 0.0), 0.0), MOST_LOSS)
