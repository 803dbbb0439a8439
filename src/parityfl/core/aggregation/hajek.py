"""The Hajek estimate of the mean update."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.combine import fold
from parityfl.core.aggregation.inclusion import (
    Population,
    initial_inverse,
    inverse_of,
    inverse_probabilities,
    remember_selected,
    rounds_counted,
)
from parityfl.core.keys import one_of
from parityfl.core.types import RoundContext, State, Step, Update, Vector, World

_Rate = Literal["estimated", "empirical"]


@aggregator("hajek")
@dataclass(frozen=True)
class Hajek(Aggregator):
    """Weigh updates by one over the probability that their clients took part, the weights scaled to a sum of 1.

    The ratio estimator of Hajek: sum_S v_k Delta_k / sum_S v_k with v_k = 1 / (p_k pi_k), or 1 / p_k for the available
    population, which corrects for the selector alone. Its norm is that of an update, whatever the probabilities; its
    bias is of the order of one over the number of participants. pi_k is the share of rounds in which the server saw k.
    An update that comes late has the probability of the round in which its client was last asked. Where clients drop
    out or late replies are discarded, p_k pi_k is more than the probability of taking part, and those to whom that
    happens count too little.

    With rate `empirical`, p_k pi_k is the rate at which updates of k have come, this one and late ones included: v_k =
    t / s_k with s_k how many, for the available population n_k / s_k. No probability is needed, and any selector will
    do, a deterministic one too; drop-outs and late replies are in the rate. The weights tend to the right ones where
    participation is stationary, and are crude at first.

    State: `inverse` (N,), v_k of each client when it was last selected; with rate `empirical` instead `delivered` (N,),
    s_k.

    Attributes:
        server_lr: step along the estimate.
        population: `full` or `available`.
        rate: `estimated`, from the selector's probability of this round; or `empirical`, from the updates so far.
    """

    source: ClassVar[str] = "Hajek, in Foundations of Statistical Inference, 1971"

    server_lr: float = 1.0
    population: Population = "full"
    rate: _Rate = "estimated"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("aggregator.rate", self.rate, _Rate)
        one_of("aggregator.population", self.population, Population)

    @property
    def needs_probability(self) -> bool:
        """True, unless the rate is empirical."""
        return self.rate == "estimated"

    def init(self, world: World, size: int) -> State:
        """Return equal weights, or no updates so far."""
        if self.rate == "estimated":
            return initial_inverse(world)
        return {"delivered": np.zeros(world.num_clients, dtype=np.int64)}

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return the weighted mean of the participants, or None in a round without updates."""
        weigh = self._by_probability if self.rate == "estimated" else self._by_rate
        return Step(fold(weigh(state, context, updates), len(context.weights)).mean, state)

    def _by_probability(
        self, state: State, context: RoundContext, updates: Iterable[Update]
    ) -> Iterator[tuple[float, Vector]]:
        """Yield the updates with 1 / (p_k pi_k), or 1 / p_k."""
        current = inverse_probabilities(context, self.population)
        for update in updates:
            yield inverse_of(update, state, current), update.delta
        remember_selected(state, context, current)

    def _by_rate(
        self, state: State, context: RoundContext, updates: Iterable[Update]
    ) -> Iterator[tuple[float, Vector]]:
        """Yield the updates with rounds over updates of the client so far."""
        rounds, delivered = rounds_counted(context, self.population), state["delivered"]
        for update in updates:
            delivered[update.client] += 1
            yield float(rounds[update.client] / delivered[update.client]), update.delta
