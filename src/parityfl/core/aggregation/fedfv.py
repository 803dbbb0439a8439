"""FedFV: fair averaging of updates that conflict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import loss_before
from parityfl.core.aggregation.memory import allocate_rows, store
from parityfl.core.arrays import dot
from parityfl.core.keys import at_least, between
from parityfl.core.types import RoundContext, State, Step, Update, Vector, World


@aggregator("fedfv")
@dataclass(frozen=True)
class FedFV(Aggregator):
    """Take out of each update what contradicts the others', except for the clients with the largest losses.

    Wang et al., as in their published code. Participants in ascending order of loss; the first
    ceil((|S| - 1) (1 - alpha)) are projected, all if alpha is 0: for every other j in that order with
    Delta_j . Delta_i < 0, Delta_i loses its component along the original Delta_j. The mean g of these then loses its
    component along the sum of the conflicting updates of those who were last there tau-1, ..., 0 rounds ago, and is
    scaled to the norm of the mean of the originals. All of it is the same with every sign turned, so updates stand for
    gradients. Needs all updates of a round at once, and O(participants² d) work. Losses are the clients' own reports.

    State: `last` (N,), the round of the last participation, 0 for never; for tau > 1 also `row_memory` (N, d).

    Attributes:
        server_lr: step along the direction.
        alpha: share of the participants, those of largest loss, whose updates stay as they are, in [0, 1].
        tau: how many rounds' participants can conflict with the mean, this one's included, 0 or more.
    """

    source: ClassVar[str] = "Wang et al., IJCAI 2021"

    server_lr: float = 1.0
    alpha: float = 0.1
    tau: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        between("aggregator.alpha", self.alpha, 0, 1)
        at_least("aggregator.tau", self.tau, 0)

    def init(self, world: World, size: int) -> State:
        """Return an empty memory.

        Raises:
            ConfigError: the memory does not fit in this machine.
        """
        last = np.zeros(world.num_clients, dtype=np.int64)
        return {"last": last} | ({"row_memory": allocate_rows(world.num_clients, size)} if self.tau > 1 else {})

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return the fair mean, or None in a round without updates."""
        ordered = sorted(updates, key=loss_before)
        if not ordered:
            return Step(None, state)
        originals = [update.delta for update in ordered]
        self._remember(state, context.round, ordered)
        direction = _mean(self._without_conflicts(originals))
        for ago in reversed(range(self.tau)):
            there = originals if ago == 0 else state["row_memory"][state["last"] == context.round - ago]
            against = [delta for delta in there if dot(direction, delta) < 0]
            if against:
                _remove_conflict(direction, np.sum(against, axis=0, dtype=np.float32))
        return Step(_scaled(direction, _norm(_mean(originals))), state)

    def _without_conflicts(self, originals: Sequence[Vector]) -> list[Vector]:
        """Project all but the last updates, whose losses are largest."""
        size = len(originals)
        projected = ceil((size - 1) * (1 - self.alpha) - 1e-9) if self.alpha > 0 else size  # 20 x .05 is above 1
        return [_projected(i, originals) if i < projected else originals[i] for i in range(size)]

    def _remember(self, state: State, round: int, updates: Sequence[Update]) -> None:
        for update in updates:
            state["last"][update.client] = round
            if self.tau > 1:
                store(state["row_memory"], update.client, update.delta)


def _projected(index: int, originals: Sequence[Vector]) -> Vector:
    """Return one update without its conflicts with each of the others; never with itself."""
    projected = originals[index].copy()
    for j, other in enumerate(originals):
        if j != index:
            _remove_conflict(projected, other)
    return projected


def _remove_conflict(vector: Vector, other: Vector) -> None:
    """Take the component along `other` out of `vector`, in place, where they point against each other."""
    along = dot(vector, other)
    # One whose square is below the least normal float32 is too short to have a direction that can be divided by.
    if along < 0 and (square := dot(other, other)) > np.finfo(np.float32).tiny:
        vector -= np.float32(along / square) * other


def _scaled(vector: Vector, norm: float) -> Vector:
    """Return `vector` with the given norm; a vector of 0 stays."""
    present = _norm(vector)
    return vector * np.float32(norm / present) if present > 0 else vector


def _mean(vectors: Sequence[Vector]) -> Vector:
    mean: Vector = np.mean(vectors, axis=0, dtype=np.float32)
    return mean


def _norm(vector: Vector) -> float:
    return sqrt(dot(vector, vector))
