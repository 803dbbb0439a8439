"""Reactive cumulative utility parity: random selection by inverse availability and missed rounds."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np

from parityfl.core.keys import require
from parityfl.core.selection.base import Selector, selector
from parityfl.core.selection.estimates import estimated_availability, rounds_registered
from parityfl.core.selection.sampling import select_with_probability, waterfill
from parityfl.core.types import Selection, State, View


@selector("cup-reactive")
@dataclass(frozen=True)
class CupReactive(Selector):
    """Draw clients with inclusion probabilities in proportion to inverse availability, raised by missed rounds.

    The priority is (1 + debt_weight x missed) / (pi_k + epsilon), with pi_k = n_k / t as the server saw it and missed
    the closed rounds since its registration in which the client did not participate; water-filling turns priorities
    into probabilities, and pivotal sampling meets them with a fixed number of clients. It is the reactive scheduler of
    the reference implementation, whose scale alpha cancels in the water-filling and whose cap of 1/pi at 100 is left
    out.

    Attributes:
        debt_weight: weight of a missed round, 0 or more.
        epsilon: added to the availability, above 0; bounds the priority of rare clients.
    """

    source: ClassVar[str] = "Behfar & Mortier, arXiv 2602.13651"

    debt_weight: float = 0.1
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        require(0 <= self.debt_weight < inf, "selector.debt_weight", self.debt_weight, "give a number of 0 or more")
        require(0 < self.epsilon < inf, "selector.epsilon", self.epsilon, "give a number above 0")

    def select(self, state: State, view: View, rng: np.random.Generator) -> Selection:
        """Draw in proportion to the priorities."""
        missed = rounds_registered(view) - 1 - view.ledger.participated[view.available]
        priority = (1 + self.debt_weight * missed) / (estimated_availability(view) + self.epsilon)
        return select_with_probability(view, waterfill(priority, view.count), rng)
