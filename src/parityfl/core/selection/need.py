"""Need-weighted selection."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from parityfl.core.keys import one_of
from parityfl.core.selection.base import selector
from parityfl.core.selection.estimates import last_known_loss
from parityfl.core.selection.index import IndexSelector
from parityfl.core.types import FloatArray, State, View

_Measure = Literal["loss", "local_gain"]
_LEAST_NEED = 0.1


@selector("need")
@dataclass(frozen=True)
class Need(IndexSelector):
    """Serve first the clients that were selected the fewest times per opportunity and unit of need.

    The index is (s_k + 1/2) / (n_k x need_k): conditional selection rates become proportional to need, as far as
    capacity allows. s_k counts selections, so that a client that does not deliver is not first for ever. Need is the
    last known loss, or the last known gain by local training; the mean of the known values stands in for unknown ones,
    and a tenth of that mean is the least, so that nobody starves. Among simple aggregators (FedAvg) it helped the worst
    clients; with a memory (MIFA) it changed nothing.

    Attributes:
        by: what need is, `loss` or `local_gain`.
    """

    source: ClassVar[str] = "parityfl"

    by: _Measure = "loss"

    def __post_init__(self) -> None:
        one_of("selector.by", self.by, _Measure)

    def index(self, state: State, view: View) -> FloatArray:
        """Return selections per opportunity and need."""
        ledger = view.ledger
        measured = last_known_loss(ledger) if self.by == "loss" else ledger.local_gain
        opportunities = ledger.available[view.available] + 1
        return (ledger.selected[view.available] + 0.5) / (opportunities * _need(measured)[view.available])


def _need(measured: FloatArray) -> FloatArray:
    """Return positive needs; 1 for all where nothing is known."""
    known = np.maximum(measured[~np.isnan(measured)], 0.0)
    mean = float(known.mean()) if len(known) else 0.0
    if mean <= 0.0:
        return np.ones(len(measured))
    return np.maximum(np.nan_to_num(measured, nan=mean), _LEAST_NEED * mean)
