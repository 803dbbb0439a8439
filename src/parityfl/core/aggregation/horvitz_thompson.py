"""The Horvitz-Thompson estimate of the mean update."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import fold
from parityfl.core.aggregation.inclusion import (
    Population,
    initial_inverse,
    inverse_of,
    inverse_probabilities,
    remember_selected,
)
from parityfl.core.keys import above, one_of
from parityfl.core.types import RoundContext, State, Step, Update, World


@aggregator("horvitz-thompson")
@dataclass(frozen=True)
class HorvitzThompson(Aggregator):
    """Weigh each update by one over the probability that its client was selected: unbiased, and noisy.

    The estimator of Horvitz and Thompson, (1/N) sum_S Delta_k / (p_k pi_k), of the mean over all clients, unbiased if
    a client's availability is independent of its update and whoever is selected delivers; with ``population =
    "available"`` (1/|A|) sum_S Delta_k / p_k of the mean over the available. Deviations: pi_k is the share of rounds in
    which the server saw k; p_k pi_k is the probability of being selected, so that where clients drop out, or late
    replies are discarded, one that delivers a share e_k of its selections weighs e_k instead of 1; the factor
    1 / (p_k pi_k) is cut at `clip`, which biases it where that happens (`clip_rate` in the notes: the share of all
    updates so far that were cut). An update that comes late has the probability of the round in which its client was
    last asked.

    State: `inverse` (N,), the factor of each client when it was last selected; `clipped` (2,), how many updates were
    cut and how many there were.

    Attributes:
        server_lr: step along the estimate; at most 0.2, or its noise wins.
        population: `full` or `available`.
        clip: largest 1 / (p_k pi_k), above 0; none means 20 N / m, twenty times what equal chances give.
    """

    source: ClassVar[str] = "Horvitz and Thompson, JASA 1952"

    server_lr: float = 0.2
    population: Population = "full"
    clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("aggregator.population", self.population, Population)
        if self.clip is not None:
            above("aggregator.clip", self.clip, 0)

    @property
    def needs_probability(self) -> bool:
        """True."""
        return True

    def init(self, world: World, size: int) -> State:
        """Return equal factors."""
        return initial_inverse(world) | {"clipped": np.zeros(2, dtype=np.int64)}

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return the estimate of the mean update, or None in a round without updates."""
        population = context.population
        clip = self.clip if self.clip is not None else 20 * population / context.world.per_round
        stands_for = population if self.population == "full" else max(int(context.available.sum()), 1)
        current, clipped = inverse_probabilities(context, self.population), state["clipped"]

        def weigh(update: Update) -> float:
            factor = inverse_of(update, state, current)
            clipped[:] += factor > clip, 1
            return min(factor, clip) / stands_for

        folded = fold(((weigh(update), update.delta) for update in updates), len(context.weights))
        remember_selected(state, context, current)
        if not folded.count:
            return Step(None, state)
        return Step(folded.total, state, notes={"clip_rate": float(clipped[0] / clipped[1])})
