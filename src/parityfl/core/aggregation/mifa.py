"""Memory-augmented impatient federated averaging (MIFA), with an optional weight by relative need."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan
from typing import ClassVar, Literal

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.memory import allocate_rows, store
from parityfl.core.keys import above, at_least_below, between, one_of
from parityfl.core.types import FloatArray, RoundContext, State, Step, Update, Vector, World

SMALLEST_RATIO = 1e-6
"""The least relative loss, so that a client without loss keeps a weight above 0."""

_MemoryDtype = Literal["float32", "float16"]


@aggregator("mifa")
@dataclass(frozen=True)
class Mifa(Aggregator):
    """Average the last update of every client seen so far, present or not: absence costs a client no weight.

    Algorithm 1 of Gu et al.: G_k = Delta_k for the participants, then w = w + server_lr mean_k G_k. Deviation: the
    mean is over the clients seen so far, since some never come and waiting for all would never start.

    With `need` q > 0 (this project's own) client k weighs rho_k^q. A participant's loss ratio is its mean training
    loss divided by F, the running mean of such losses, cut at `need_clip`; rho_k is the running mean of its ratios,
    from 1; F becomes .7 F + .3 times the mean of the round's cut losses. F begins as the median loss of the first
    round, whose ratios count 1, so that no single client sets the scale.

    State: `row_memory` (N, d) holds G; `seen` (N,); `total` (d,) is sum_k b_k G_k with b = rho^q, so that a round
    costs O(participants x d). It is float64: in float32 the rounding of early, large updates would stay in it for
    ever, and bias the model once updates are small. `rho` (N,) and `loss_scale` (1,), which is F, serve `need`.

    Attributes:
        server_lr: step along the mean; 1.5 to 2 pays, since the direction is smooth.
        need: exponent q of the relative need, from 0 to 10; 0 is the published rule.
        need_memory: share of rho that survives a participation, in [0, 1).
        need_clip: a loss counts as at most this many times F, above 1e-6.
        memory_dtype: `float32`, or `float16` for half the memory (values below 6e-5 lose precision).
    """

    source: ClassVar[str] = "Gu et al., NeurIPS 2021"

    server_lr: float = 1.5
    need: float = 0.0
    need_memory: float = 0.5
    need_clip: float = 3.0
    memory_dtype: _MemoryDtype = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("aggregator.memory_dtype", self.memory_dtype, _MemoryDtype)
        between("aggregator.need", self.need, 0, 10)
        at_least_below("aggregator.need_memory", self.need_memory, 0, 1)
        above("aggregator.need_clip", self.need_clip, SMALLEST_RATIO)

    def init(self, world: World, size: int) -> State:
        """Return an empty memory.

        Raises:
            ConfigError: the memory does not fit in this machine.
        """
        return {
            "row_memory": allocate_rows(world.num_clients, size, self.memory_dtype),
            "seen": np.zeros(world.num_clients, dtype=np.bool_),
            "total": np.zeros(size),
            "rho": np.ones(world.num_clients),
            "loss_scale": np.full(1, np.nan),
        }

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return sum_k b_k G_k / sum_k b_k over the clients seen, or None in a round without updates."""
        losses, ratios = [], []
        for update in updates:
            losses.append(update.train_loss)
            ratios.append(self._exchange(state, update))
        weights = np.where(state["seen"], state["rho"] ** self.need, np.nan)
        if not ratios:
            return Step(None, state, weights)
        _track_scale(state["loss_scale"], np.asarray(losses), np.asarray(ratios))
        direction = np.empty_like(context.weights)
        np.divide(state["total"], np.nansum(weights), out=direction, casting="same_kind")
        return Step(direction, state, weights)

    def _exchange(self, state: State, update: Update) -> float:
        """Take the client's old update out of the total, put its new one in, and return its loss ratio."""
        k, total = update.client, state["total"]
        ratio = self._ratio(update.train_loss, float(state["loss_scale"][0]))
        total -= self._part(state, k)
        store(state["row_memory"], k, update.delta)
        state["rho"][k] = self.need_memory * state["rho"][k] + (1 - self.need_memory) * ratio
        state["seen"][k] = True
        total += self._part(state, k)
        return ratio

    def _part(self, state: State, client: int) -> Vector:
        """Return b_k G_k, float32: the same bits when it is put in and when it is taken out."""
        part: Vector = np.float32(state["rho"][client] ** self.need) * state["row_memory"][client]
        return part

    def _ratio(self, loss: float, scale: float) -> float:
        """Return loss / F within the clip; 1 where either is unknown."""
        ratio = loss / scale if scale > 0 else float("nan")
        return 1.0 if isnan(ratio) else min(max(ratio, SMALLEST_RATIO), self.need_clip)


def _track_scale(scale: FloatArray, losses: FloatArray, ratios: FloatArray) -> None:
    """Update F in place: the median of the first losses, afterwards .7 F + .3 times the mean cut loss."""
    if scale[0] > 0:
        scale *= 0.7 + 0.3 * ratios.mean()
    elif np.isfinite(losses).any():
        scale[0] = np.median(losses[np.isfinite(losses)])
