"""The scheduler of the cumulative utility parity paper."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from parityfl.core.keys import require
from parityfl.core.selection.base import selector
from parityfl.core.selection.estimates import estimated_availability, rounds_registered
from parityfl.core.selection.index import IndexSelector
from parityfl.core.types import FloatArray, State, View


@selector("cup-paper")
@dataclass(frozen=True)
class CupPaper(IndexSelector):
    """Serve the highest inverse availability, raised by a participation debt.

    The inverse-availability score of Behfar and Mortier (arXiv 2602.13651): (1/pi_k)(1 + debt_weight (t - s_k)), with
    pi_k = n_k / t as the server saw it, this round included, and s_k the participations before round t. It pushes
    towards equal absolute participation, which is not what the paper's own metric asks for: `lnu` attains that one.
    Ties are broken at random, where the paper says nothing; and t counts from the client's registration, where in the
    paper all are there from the start.

    Attributes:
        debt_weight: weight of the participation debt, 0 or more.
    """

    source: ClassVar[str] = "Behfar & Mortier, arXiv 2602.13651"

    debt_weight: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.debt_weight < inf, "selector.debt_weight", self.debt_weight, "give a number of 0 or more")

    def index(self, state: State, view: View) -> FloatArray:
        """Return the negative score."""
        debt = rounds_registered(view) - view.ledger.participated[view.available]
        return -(1 + self.debt_weight * debt) / estimated_availability(view)
