"""Why a client has less (or more) than its share: its shortfall from parity as four parts that add up.

With T_k rounds since client k first registered, n_k rounds in which it was seen available, s_k selections, P_k
completed participations and utility u_k, let

    pi = sum n / sum T,   sigma = sum s / sum n,   e = sum P / sum s,   g = sum u / sum P

be the population's rates: available per round, selected per opportunity, completed per selection, gained per
participation. A client of average luck gains T_k pi sigma e g, and these shares add up to the total utility. Then

    shortfall_k  = T_k pi sigma e g - u_k
    physical_k   = (T_k pi - n_k) sigma e g     it was not there
    scheduling_k = (n_k sigma - s_k) e g        it was there and was not selected
    execution_k  = (s_k e - P_k) g              it was selected and did not complete
    learning_k   = P_k g - u_k                  it completed and gained less

and the four parts telescope to the shortfall. Positive is a loss; each column sums to 0 over clients. A rate whose
denominator is 0 counts as 0: nothing was given out, so nobody fell short of it. Where utilities are too large to be
added up, the figures that need their sum are not finite, which the file shows as empty.

g is that of the clients whose utility is known. Of the others the first three parts are known all the same, and what
needs their utility is nan.
"""

from dataclasses import dataclass

import numpy as np

from parityfl.core.ledger import Ledger
from parityfl.core.types import FloatArray


@dataclass(frozen=True)
class Shortfall:
    """Every array of shape (N,), in units of utility.

    Attributes:
        share: the client's share at the population's rates.
        total: share minus utility.
        physical: the part of it due to absence.
        scheduling: the part due to not being selected when there.
        execution: the part due to not completing when selected.
        learning: the part due to gaining less when completing.
    """

    share: FloatArray
    total: FloatArray
    physical: FloatArray
    scheduling: FloatArray
    execution: FloatArray
    learning: FloatArray


def shortfall(ledger: Ledger) -> Shortfall:
    """Return each client's shortfall and its parts; they add up to it where its utility is known."""
    rounds, available, selected, completed, utility = (
        np.asarray(values, dtype=np.float64)
        for values in (ledger.rounds_present, ledger.available, ledger.selected, ledger.participated, ledger.utility)
    )
    known = ~np.isnan(utility)
    with np.errstate(over="ignore", invalid="ignore"):
        there, chosen, done, gain = (
            _rate(available, rounds),
            _rate(selected, available),
            _rate(completed, selected),
            _rate(utility[known], completed[known]),
        )
        share = rounds * there * chosen * done * gain
        parts = Shortfall(
            share=share,
            total=share - utility,
            physical=(rounds * there - available) * chosen * done * gain,
            scheduling=(available * chosen - selected) * done * gain,
            execution=(selected * done - completed) * gain,
            learning=completed * gain - utility,
        )
        added = parts.physical + parts.scheduling + parts.execution + parts.learning
        tolerance = 1e-9 * max(1.0, float(np.abs(utility[known]).sum()))
        assert not np.isfinite(added[known]).all() or np.allclose(
            added[known], parts.total[known], rtol=1e-9, atol=tolerance
        )
        return parts


def _rate(numerator: FloatArray, denominator: FloatArray) -> float:
    total = float(denominator.sum())
    return float(numerator.sum()) / total if total > 0 else 0.0
