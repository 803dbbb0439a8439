"""Agnostic federated learning."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import fold, loss_before
from parityfl.core.keys import at_least
from parityfl.core.types import FloatArray, RoundContext, State, Step, Update, World


@aggregator("afl")
@dataclass(frozen=True)
class Afl(Aggregator):
    """Minimise the loss of the worst mixture of clients: weights on the simplex climb the clients' losses.

    Mohri et al., stochastic AFL: w = w + server_lr sum_S lambda_k Delta_k / sum_S lambda_k, then lambda = projection on
    the simplex of lambda + gamma F on S, F_k the loss of the model that the client was sent. Deviations: one update of
    several local steps takes the place of a gradient; only participants' losses are known, and they are not divided
    by their probabilities, so lambda drifts to those often there. Losses are the clients' own reports.

    State: `mixture` (N,), lambda; it begins uniform.

    Attributes:
        server_lr: step along the weighted mean.
        gamma: step of lambda, 0 or more.
    """

    source: ClassVar[str] = "Mohri et al., ICML 2019"

    server_lr: float = 1.0
    gamma: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("aggregator.gamma", self.gamma, 0)

    def init(self, world: World, size: int) -> State:
        """Return the uniform mixture."""
        return {"mixture": np.full(world.num_clients, 1 / world.num_clients)}

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return the participants' mean under lambda; None where they have no weight."""
        mixture: FloatArray = state["mixture"]
        raised, weights = mixture.copy(), np.full(len(mixture), np.nan)

        def weigh(update: Update) -> float:
            raised[update.client] += self.gamma * loss_before(update)
            weights[update.client] = mixture[update.client]
            return float(mixture[update.client])

        folded = fold(((weigh(update), update.delta) for update in updates), len(context.weights))
        if folded.count:
            mixture[:] = project_on_simplex(raised)
        return Step(folded.mean, state, weights)


def project_on_simplex(point: FloatArray) -> FloatArray:
    """Return the nearest point, in the Euclidean sense, with no negative coordinate and a sum of 1.

    All coordinates are lowered by one threshold and cut at 0; sorting finds it (Held, Wolfe and Crowder 1974).
    """
    point = point - point.max()  # a shift of all changes nothing, and beside large numbers the sum of 1 would be lost
    falling = np.sort(point)[::-1]
    thresholds = (np.cumsum(falling) - 1) / np.arange(1, len(point) + 1)
    threshold = thresholds[np.flatnonzero(falling > thresholds)[-1]]
    return np.asarray(np.maximum(point - threshold, 0.0), dtype=np.float64)
