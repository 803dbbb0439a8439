"""q-FedAvg: fair resource allocation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import fold, loss_before
from parityfl.core.arrays import dot
from parityfl.core.keys import between
from parityfl.core.types import LEAST_STEP, MOST_STEP, RoundContext, State, Step, Update, Vector


@aggregator("q-fedavg")
@dataclass(frozen=True)
class QFedAvg(Aggregator):
    """Weigh clients with a larger loss more, by minimising sum_k F_k^(q+1) / (q+1).

    Algorithm 2 of Li et al.: with g_k = -L Delta_k, D_k = F_k^q g_k and h_k = q F_k^(q-1) ||g_k||² + L F_k^q, the
    model moves by -sum_S D_k / sum_S h_k. F_k is the client's loss of the model that it was sent, plus 1e-10. q = 0 is
    the plain mean for any L. Deviations: F_k is the held-out loss (the mean training loss where there is none), and is
    cut at 1000; L is by default one over local lr x epochs, since an update is that many steps along the gradient.
    Losses are the clients' own reports: one that lies draws the model to itself.

    Attributes:
        server_lr: step along the rule's direction.
        q: 0 or more, at most 10; larger is fairer, and noisier.
        lipschitz: L, `LEAST_STEP` to `MOST_STEP`; none means 1 / (local lr x local epochs).
    """

    source: ClassVar[str] = "Li et al., ICLR 2020"

    server_lr: float = 1.0
    q: float = 1.0
    lipschitz: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        between("aggregator.q", self.q, 0, 10)
        if self.lipschitz is not None:
            between("aggregator.lipschitz", self.lipschitz, LEAST_STEP, MOST_STEP)

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return -sum_S D_k / sum_S h_k, or None in a round without updates or without any loss."""
        scale = self.lipschitz or 1 / (context.local_lr * context.local_epochs)
        curvatures = []

        def weigh(update: Update) -> float:
            loss = loss_before(update) + 1e-10
            curvatures.append(self._curvature(update.delta, loss, scale))
            return float(loss**self.q * scale)

        folded = fold(((weigh(update), update.delta) for update in updates), len(context.weights))
        curvature = np.float32(sum(curvatures))
        known = curvature >= np.finfo(np.float32).tiny  # a loss of nearly 0 to the power of q is too small to divide by
        return Step(folded.total / curvature if known else None, state)

    def _curvature(self, delta: Vector, loss: float, scale: float) -> float:
        """Return h_k = q F^(q-1) ||L Delta||² + L F^q."""
        square = scale**2 * dot(delta, delta)
        return float(self.q * loss ** (self.q - 1) * square + scale * loss**self.q)
