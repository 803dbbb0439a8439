"""F3AST: selection that minimises the variance of availability-corrected aggregation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.keys import require
from parityfl.core.ledger import RoundRecord
from parityfl.core.selection.base import floats, selector
from parityfl.core.selection.index import IndexSelector
from parityfl.core.types import FloatArray, State, View, World

_LEAST_RATE = 1e-6


@selector("f3ast")
@dataclass(frozen=True)
class F3ast(IndexSelector):
    """Serve the largest a_k^2 / r_k^2: share of the data over the smoothed rate of selection.

    The greedy step of Ribero, Vikalo and de Veciana, checked against the authors' code: with H(r) = sum_k a_k^2 / r_k
    the variance of the corrected aggregate, choose the available clients with the steepest -dH/dr_k = a_k^2 / r_k^2,
    then r <- (1 - step) r + step [k selected]. Its long-run rates are in proportion to a_k as far as availability
    allows.

    Deviations: rates start at m/N, in the authors' code at a_k (or at 1/N), which nobody knows before the clients have
    registered; they stay there until the client registers, and are kept above 1e-6. The authors step along
    (1/m) sum_S (a_k / r_k) Delta_k, r_k after its update: here that is the aggregator's business, and nothing is
    corrected.

    Attributes:
        step: beta, the smoothing of the rates, above 0 and at most 1.
    """

    source: ClassVar[str] = "Ribero et al., IEEE JSTSP 2023, arXiv 2205.06730"

    step: float = 0.01

    def __post_init__(self) -> None:
        require(0 < self.step <= 1, "selector.step", self.step, "give a number above 0 and at most 1")

    def init(self, world: World) -> State:
        """Return the rates of uniform selection."""
        return {"rate": np.full(world.num_clients, min(world.per_round / world.num_clients, 1.0))}

    def index(self, state: State, view: View) -> FloatArray:
        """Return -a_k / r_k, which orders as -(a_k / r_k)^2 does."""
        return -view.world.num_samples[view.available] / floats(state, "rate")[view.available]

    def observe(self, state: State, record: RoundRecord, world: World) -> State:
        """Smooth the rates of selection of those that have registered."""
        rate = floats(state, "rate")
        smoothed = np.maximum((1 - self.step) * rate + self.step * record.selected, _LEAST_RATE)
        return {"rate": np.where(record.registered, smoothed, rate)}
