"""The oracle that knows the true availabilities and utilities."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.errors import ConfigError
from parityfl.core.ledger import RoundRecord
from parityfl.core.selection.base import floats, selector
from parityfl.core.selection.index import IndexSelector
from parityfl.core.types import FloatArray, State, View, World


@selector("oracle-maxmin")
@dataclass(frozen=True)
class OracleMaxMin(IndexSelector):
    """Attain the lexicographic max-min normalised utilities with the true pi_k and mu_k.

    A max-weight rule: among the available, serve the smallest (s_k + 1/2) / w_k, with s_k selections so far and w_k =
    sum of pi_k(t) over the rounds since it registered / mu_k, which is `lnu` with the truth in place of what it
    observed. It attains the point of `maxmin.maxmin_exact` and `maxmin.maxmin_sampled` without computing it.

    Proof, for availability independent over rounds, whatever the correlation between clients. Let w_k = pi_k / mu_k
    and y* the lexicographically optimal base: the rates with the lexicographically largest x*_k = y*_k / w_k, which
    minimise sum_k y_k^2 / w_k over the bases (Fujishige 1980). Let e_k = s_k - t y*_k and W = sum_k e_k^2 / (2 w_k).
    P_k is 1 for the clients that are served in a round, and p_k = E[P_k | past].

    1. E[dW | past] = sum_k (p_k - y*_k) e_k / w_k + sum_k E[(P_k - y*_k)^2] / (2 w_k).
    2. The rule serves the min(m, |A|) smallest (s_k + 1/2) / w_k, and y* is the mean of some choice of as many of the
       available, so sum_k (p_k - y*_k) (s_k + 1/2) / w_k <= 0. And p is a base: sum_k (p_k - y*_k) x*_k >= 0.
    3. As P_k^2 = P_k, what remains of 1 is at most sum_k (y*_k + y*_k^2) / (2 w_k) = sum_k x*_k (1 + y*_k) / 2.

    So E sum_k w_k (s_k / (w_k T) - x*_k)^2 <= sum_k x*_k (1 + y*_k) / T. With bursts, or pi_k(t) that moves, the limit
    is the same where availability is ergodic, as for `lnu`; that is checked by simulation only. Selections count,
    whether they deliver or not.
    """

    source: ClassVar[str] = "parityfl; lexicographically optimal base, Fujishige, Math. Oper. Res. 5(2), 1980"

    def init(self, world: World) -> State:
        """Return no expected round.

        Raises:
            ConfigError: the true availabilities are not known, or a mean utility is not positive.
        """
        mu = _mean_utility(world)
        if not np.all(mu > 0):
            raise ConfigError(f"utility.mu holds {mu.min():g}: the oracle-maxmin selector needs values above 0")
        _truth(world, 0.0)
        return {"expected": np.zeros(world.num_clients)}

    def index(self, state: State, view: View) -> FloatArray:
        """Return the utility per expected opportunity, half a participation ahead."""
        expected = floats(state, "expected") + _truth(view.world, view.time_s)
        served = view.ledger.selected[view.available] + 0.5
        return _mean_utility(view.world)[view.available] * served / np.maximum(expected[view.available], 1e-12)

    def observe(self, state: State, record: RoundRecord, world: World) -> State:
        """Add the round's true availabilities of those that have registered."""
        return {"expected": floats(state, "expected") + _truth(world, record.time_s) * record.registered}


def _truth(world: World, time_s: float) -> FloatArray:
    truth = world.true_availability(time_s)
    if np.any(np.isnan(truth)):
        raise ConfigError(
            "selector.name = 'oracle-maxmin': the true availabilities are not known here; "
            "choose an availability model that knows them, such as bernoulli, or the selector lnu"
        )
    return truth


def _mean_utility(world: World) -> FloatArray:
    return np.ones(world.num_clients) if world.mean_utility is None else world.mean_utility
