"""The best normalised utilities that any selector can attain: lexicographic max-min over what is feasible.

Long-run participation rates y are feasible exactly when sum_{k in K} y_k <= f(K) = E[min(m, |A and K|)] for every set
K of clients (a polymatroid; Edmonds 1970). With w_k = pi_k / mu_k the normalised utility is x_k = y_k / w_k, and the
lexicographically largest x is the lexicographically optimal base (Fujishige 1980). Its smallest level is
min over K of f(K) / sum_{k in K} w_k.
"""

import numpy as np

from parityfl.core.errors import ConfigError
from parityfl.core.types import BoolArray, FloatArray

_EXACT_LIMIT = 15
_PASSES = 400
_SAME_LEVEL = 1 + 1e-9


def maxmin_exact(pi: FloatArray, mu: FloatArray, per_round: int) -> FloatArray:
    """Return the max-min normalised utilities x* where clients are available independently, by enumerating all sets.

    Args:
        pi: availabilities, shape (N,), N at most 15.
        mu: mean utilities per participation, above 0, shape (N,).
        per_round: m.

    Returns:
        Normalised utility per opportunity, shape (N,); nan where pi is 0.

    Raises:
        ConfigError: more than 15 clients.
    """
    if len(pi) > _EXACT_LIMIT:
        raise ConfigError(f"exact max-min of {len(pi)} clients: give at most {_EXACT_LIMIT}, or sample")
    present = np.flatnonzero(pi > 0)
    members = (np.arange(2 ** len(present))[:, None] >> np.arange(len(present))) & 1
    rank, weight = _truncated_rank(pi[present], per_round), members @ (pi / mu)[present]
    level, settled = np.full(len(pi), np.nan), 0
    while settled < len(rank) - 1:
        larger = np.flatnonzero(np.arange(len(rank)) & settled == settled)[1:]
        ratio = (rank[larger] - rank[settled]) / (weight[larger] - weight[settled])
        tight = larger[ratio <= ratio.min() * _SAME_LEVEL]
        bottleneck = int(np.bitwise_or.reduce(tight))
        level[present[(members[bottleneck] - members[settled]).astype(bool)]] = ratio.min()
        settled = bottleneck
    return level


def maxmin_sampled(draws: BoolArray, mu: FloatArray, per_round: int) -> FloatArray:
    """Return the max-min normalised utilities for the empirical distribution of draws, whatever their correlation.

    Frank-Wolfe on the convex objective sum_k y_k^2 / w_k: each pass serves, in every draw, the m clients with the
    smallest level, and averages. The error is about 1 / 400, in addition to that of the sample.

    Args:
        draws: who was available, shape (S, N).
        mu: mean utilities per participation, above 0, shape (N,).
        per_round: m.

    Returns:
        Normalised utility per opportunity, shape (N,); nan for clients that no draw holds.
    """
    weight = draws.mean(axis=0) / mu
    seen, rate = weight > 0, np.zeros(draws.shape[1])
    for number in range(_PASSES):
        level = np.where(draws, rate / np.where(seen, weight, 1.0), np.inf)
        served = np.zeros(draws.shape, dtype=bool)
        first = np.argpartition(level, min(per_round, draws.shape[1]) - 1, axis=1)[:, :per_round]
        np.put_along_axis(served, first, True, axis=1)
        rate += ((served & draws).mean(axis=0) - rate) / (number + 1)
    return np.where(seen, rate / np.where(seen, weight, 1.0), np.nan)


def _truncated_rank(pi: FloatArray, per_round: int) -> FloatArray:
    """Return E[min(m, |A and K|)] for every set K as a bit mask, shape (2^N,)."""
    count = np.zeros((1, per_round + 1))
    count[0, 0] = 1.0
    for p in pi:  # count[K, j] = P(|A and K| = j), the last column for m and more
        joined = (1 - p) * count
        joined[:, 1:] += p * count[:, :-1]
        joined[:, -1] += p * count[:, -1]
        count = np.concatenate([count, joined])
    return count @ np.arange(per_round + 1.0)
