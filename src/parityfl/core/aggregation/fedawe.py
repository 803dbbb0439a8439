"""FedAWE: clients go on from their own last model, and echo the rounds that they missed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.memory import allocate_rows
from parityfl.core.types import RoundContext, State, Step, Update, Vector, World


@aggregator("fedawe")
@dataclass(frozen=True)
class FedAwe(Aggregator):
    """Let each participant go on from the model it last received, and count its update once per round missed.

    Algorithm 1 of Xiang et al.: x_k' = x_k + server_lr (t - tau_k) Delta_k with tau_k the round of the client's last
    participation, w = mean_S x_k', and only S receive w. The direction is (mean_S x_k' - w) / server_lr, so the rule is
    exact with server optimiser `none`. Unstable unless server_lr x local lr x steps x smoothness x (t - tau_k) stays
    below about 1; a cap on the echo would bring the bias of availability back, so there is none. A client that
    registers later goes on from the model of its first participation, and missed the rounds since it registered; where
    that first update is late it counts from the model of the round that it enters, which is not the one it was sent.

    State: `row_model` (N, d), x_k as the server knows it; `last` (N,), tau_k, 0 for never, and for those without a
    participation that registered later minus the round before; `initial` (d,), the model of those who have received
    none since the run began; `begun` (1,), whether `initial` is known.

    Attributes:
        server_lr: the paper's eta_g; 0.02 where clients may be away for long.
    """

    source: ClassVar[str] = "Xiang et al., NeurIPS 2024"

    server_lr: float = 1.0

    def init(self, world: World, size: int) -> State:
        """Return no models.

        Raises:
            ConfigError: the clients' models do not fit in this machine.
        """
        return {
            "row_model": allocate_rows(world.num_clients, size),
            "last": np.zeros(world.num_clients, dtype=np.int64),
            "initial": np.zeros(size, dtype=np.float32),
            "begun": np.zeros(1, dtype=np.bool_),
        }

    def start(self, state: State, client: int, weights: Vector) -> Vector:
        """Return the model that the client last received; not to be changed.

        If it has none, that is the initial model, or today's if it registered later. Nothing that this reads of who
        has registered changes before the last update of a round is in.
        """
        last = state["last"][client]
        if not state["begun"][0] or last < 0:
            return weights
        received: Vector = state["row_model"][client] if last > 0 else state["initial"]
        return received

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return (mean_S x_k' - w) / server_lr, or None in a round without updates."""
        if not state["begun"][0]:
            state["initial"][:] = context.weights
            state["begun"][0] = True
        state["last"][~context.known] = -context.round
        total, participants = np.zeros_like(context.weights), []
        for update in updates:
            missed = context.round - update.staleness - abs(int(state["last"][update.client]))
            total += self.start(state, update.client, context.weights)
            total += np.float32(self.server_lr * max(missed, 1)) * update.delta
            participants.append(update.client)
        if not participants:
            return Step(None, state)
        direction = total / np.float32(len(participants))
        direction -= context.weights
        direction /= np.float32(self.server_lr)
        state["row_model"][participants] = context.weights + np.float32(self.server_lr) * direction
        state["last"][participants] = context.round
        return Step(direction, state)
