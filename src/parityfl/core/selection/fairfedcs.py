"""FairFedCS: Lyapunov queues and reputation."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np

from parityfl.core.keys import require
from parityfl.core.ledger import RoundRecord
from parityfl.core.selection.base import floats, selector
from parityfl.core.selection.index import IndexSelector
from parityfl.core.types import FloatArray, State, View, World


@selector("fairfedcs")
@dataclass(frozen=True)
class FairFedCS(IndexSelector):
    """Serve the largest sum of a virtual queue and sigma times a reputation.

    The suitability index of Shi et al. (equation 13): Psi_k = sigma r_k + Q_k. Equation 1: the beta reputation
    r_k = (good + 1) / (good + bad + 2) over the client's participations. Equations 3 and 4: the Lyapunov queue
    Q_k <- max(0, Q_k + (m/N) r_k (1 - x_k) - x_k), x_k = 1 where k was selected, which grows while the client is passed
    over, the faster the better its reputation. We could not read the paper: formulas and numbers are those of a
    reimplementation that cites them; another lets every queue grow by m/N, whatever the reputation.

    Deviations: a participation is good when its local gain (the credited utility where no local gain was measured) is
    not negative, where the paper evaluates Shapley values; a drop-out is bad. Both counts begin at 0, so r_k at 1/2.
    The queue does not know availability: it grows while a client is absent.

    Attributes:
        sigma: weight of the reputation, 0 or more; 0 leaves the queues alone.
    """

    source: ClassVar[str] = "Shi et al., ICME 2023, arXiv 2307.10738"

    sigma: float = 0.6

    def __post_init__(self) -> None:
        require(0 <= self.sigma < inf, "selector.sigma", self.sigma, "give a number of 0 or more")

    def init(self, world: World) -> State:
        """Return empty queues and no reputation."""
        zeros = np.zeros(world.num_clients)
        return {"queue": zeros, "good": zeros, "bad": zeros}

    def index(self, state: State, view: View) -> FloatArray:
        """Return the negative suitability."""
        return -(floats(state, "queue") + self.sigma * _reputation(state))[view.available]

    def observe(self, state: State, record: RoundRecord, world: World) -> State:
        """Let the queues grow, serve the selected, and judge what they brought."""
        gain = np.where(np.isnan(record.local_gain), record.credit, record.local_gain)
        good = record.participated & ~(gain < 0)  # what nobody measured is not held against it
        grown = min(world.per_round / world.num_clients, 1.0) * _reputation(state) * record.registered
        return {
            "queue": np.maximum(floats(state, "queue") + np.where(record.selected, -1.0, grown), 0.0),
            "good": floats(state, "good") + good,
            "bad": floats(state, "bad") + (record.selected & ~good),
        }


def _reputation(state: State) -> FloatArray:
    """Return r_k of every client, in (0, 1), shape (N,)."""
    good, bad = floats(state, "good"), floats(state, "bad")
    return (good + 1) / (good + bad + 2)
