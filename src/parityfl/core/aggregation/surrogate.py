"""The staleness-weighted memory: absent clients count with their last update, the less the longer ago."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, inf
from typing import ClassVar, Literal

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import Weigh
from parityfl.core.aggregation.fedavg import FedAvg
from parityfl.core.aggregation.memory import allocate_rows, store
from parityfl.core.keys import between, one_of
from parityfl.core.types import (
    LEAST_STEP,
    MOST_STEP,
    FloatArray,
    IntArray,
    RoundContext,
    State,
    Step,
    Update,
    Vector,
    World,
)

_Mode = Literal["training", "accounting"]


@aggregator("surrogate")
@dataclass(frozen=True)
class Surrogate(Aggregator):
    """Average the last updates of all clients seen, each weighted by exp(-decay x rounds since it was made).

    The surrogate updates of Behfar and Mortier, as a rule for the model: w = w + server_lr sum_k c_k G_k / sum_k c_k
    with c_k = 1 for an update of this round and eta0 exp(-decay age) for an older one. decay 0 is MIFA over the
    clients seen, a large decay the plain mean of the participants; in between, the decay brings the bias of
    availability back (at 0.1 a client absent for 50 rounds weighs .007). With ``mode = "accounting"`` the model
    follows FedAvg and only c_k is reported. Surrogates are never credited as utility: that would lower the priority
    of those who are absent. A late update has the age at which it arrives.

    State: `born` (N,), the round of each client's last update, 0 for never; in training also `row_memory` (N, d) for
    G and `total` (d,), float64, sum_k exp(-decay age_k) G_k, so that a round costs O(participants x d).

    Attributes:
        server_lr: step along the mean.
        decay: per round, 0 or more, `inf` allowed; keep it below the smallest availability.
        eta0: weight of an update that is not of this round, before decay, `LEAST_STEP` to `MOST_STEP`.
        mode: `training` or `accounting`.
    """

    source: ClassVar[str] = "Behfar and Mortier, arXiv 2602.13651"

    server_lr: float = 1.0
    decay: float = 0.1
    eta0: float = 1.0
    mode: _Mode = "training"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("aggregator.mode", self.mode, _Mode)
        between("aggregator.decay", self.decay, 0, inf)
        between("aggregator.eta0", self.eta0, LEAST_STEP, MOST_STEP)

    @property
    def weight(self) -> Weigh | None:
        """FedAvg's where the model follows it."""
        return FedAvg().weight if self.mode == "accounting" else None

    def init(self, world: World, size: int) -> State:
        """Return an empty memory.

        Raises:
            ConfigError: the memory does not fit in this machine.
        """
        born = np.zeros(world.num_clients, dtype=np.int64)
        if self.mode == "accounting":
            return {"born": born}
        return {"born": born, "row_memory": allocate_rows(world.num_clients, size), "total": np.zeros(size)}

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return the weighted mean of all memories, c_k as `client_weight`; None without updates, or if none weighs."""
        if self.mode == "accounting":
            noted = (self._note(state, context, update) for update in updates)
            direction = FedAvg().aggregate({}, context, noted).direction
        else:
            direction = self._direction(state, context, updates)
        return Step(direction, state, self.weights(state["born"], context.round))

    def weights(self, born: IntArray, round: int) -> FloatArray:
        """Return c_k of updates made in the rounds `born`, shape (N,); nan for a client that was never seen."""
        age = round - born
        stale = self.eta0 * self._decayed(age)
        return np.where(born == 0, np.nan, np.where(age == 0, 1.0, stale))

    def _decayed(self, age: IntArray) -> FloatArray:
        """Return exp(-decay age), which is 1 for age 0 whatever the decay."""
        return np.exp(-np.multiply(self.decay, age, where=age > 0, out=np.zeros(np.shape(age))))

    def _direction(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Vector | None:
        """Fold the updates into the memory, and return sum_k c_k G_k / sum_k c_k."""
        total, fresh, count = state["total"], np.zeros_like(state["total"]), 0
        total *= exp(-self.decay)
        for update in updates:
            total -= self._part(state, update.client, context.round)
            store(state["row_memory"], update.client, update.delta)
            self._note(state, context, update)
            total += self._part(state, update.client, context.round)
            if update.staleness == 0:
                fresh += update.delta
            count += 1
        if not count:
            return None
        fresh *= 1 - self.eta0
        fresh += self.eta0 * total
        weight = np.nansum(self.weights(state["born"], context.round))
        return (fresh / weight).astype(np.float32) if weight > 0 else None

    def _part(self, state: State, client: int, round: int) -> FloatArray:
        """Return exp(-decay age) G_k of one client, float64."""
        part: FloatArray = self._decayed(round - state["born"][client]) * state["row_memory"][client]
        return part

    def _note(self, state: State, context: RoundContext, update: Update) -> Update:
        state["born"][update.client] = context.round - update.staleness
        return update
