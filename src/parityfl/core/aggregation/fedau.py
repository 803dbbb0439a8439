"""FedAU: adaptive weights from the gaps between participations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import fold
from parityfl.core.keys import at_least
from parityfl.core.types import BoolArray, IntArray, RoundContext, State, Step, Update, World


@aggregator("fedau")
@dataclass(frozen=True)
class FedAU(Aggregator):
    """Weigh each participant by its mean gap between participations, an estimate of one over its rate.

    Algorithms 1 and 2 of Wang and Ji: w = w + server_lr (1/N) sum_S omega_k Delta_k, omega_k the mean of the gaps that
    ended before this round, 1 while there is none. A gap ends by an update or after `cutoff` rounds; rounds before a
    client registered are in none. It needs no probabilities, so it works with any selector.

    Deviation: the paper knows no late updates. Where several of a client come in one round, all but one of their gaps
    are 0, so that omega stays rounds over updates, one over the rate at which they come.

    State, each (N,): `gap`, rounds since the last gap ended; `gaps`, how many have; `omega`, their mean.

    Attributes:
        server_lr: step along the weighted sum.
        cutoff: longest gap K in rounds, 1 or more; it bounds the weight of a rare client.
    """

    source: ClassVar[str] = "Wang and Ji, ICLR 2024"

    server_lr: float = 1.0
    cutoff: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("aggregator.cutoff", self.cutoff, 1)

    def init(self, world: World, size: int) -> State:
        """Return weights of 1."""
        count = np.zeros(world.num_clients, dtype=np.int64)
        return {"gap": count, "gaps": count.copy(), "omega": np.ones(world.num_clients)}

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return (1/N) sum_S omega_k Delta_k, or None in a round without updates."""
        delivered = np.zeros(len(state["omega"]), dtype=np.int64)
        weights = state["omega"] / context.population

        def weigh(update: Update) -> float:
            delivered[update.client] += 1
            return float(weights[update.client])

        folded = fold(((weigh(update), update.delta) for update in updates), len(context.weights))
        self._count(state, context.known, delivered)
        return Step(folded.total if folded.count else None, state)

    def _count(self, state: State, known: BoolArray, delivered: IntArray) -> None:
        """Let the gaps of those that have registered grow by this round, and average those that end.

        As many end as the client delivered updates, or one by the cutoff; all but the first are 0.
        """
        gap, gaps, omega = state["gap"], state["gaps"], state["omega"]
        gap += known
        ends = (delivered > 0) | (gap >= self.cutoff)
        ended = np.maximum(delivered[ends], 1)
        omega[ends] = (gaps[ends] * omega[ends] + gap[ends]) / (gaps[ends] + ended)
        gaps[ends] += ended
        gap[ends] = 0
