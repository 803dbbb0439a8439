"""The metrics: arrays over clients in, a number out. Each formula exists here once.

Clients whose value is unknown (nan) are left out. A metric that is not defined for its input (no client has a value,
0/0, an infinite value) is nan, which the files show as empty.
"""

import math
from collections.abc import Mapping

import numpy as np

from parityfl.core.types import BoolArray, FloatArray, IntArray

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

ROUNDED = 1e-12
"""Of the values' mean size, what a mean of 0 may have become by rounding."""

POOLED_TRIALS = 2.0
"""Where a client's bursts are estimated, the rate of all clients counts as so many trials of its own."""


def coefficient_of_variation(values: FloatArray) -> float:
    """Return the population standard deviation over the absolute mean, 0 or more; nan where the mean is 0."""
    known = _scaled(values)
    mean = _size_of_mean(known)
    return float(known.std()) / mean if mean > 0 else math.nan


def jain(values: FloatArray) -> float:
    """Return Jain's index (sum x)^2 / (N sum x^2), from 1/N to 1 for non-negative x; nan where every x is 0.

    Jain, Chiu and Hawe, DEC-TR-301, 1984. It equals 1 / (1 + CV^2).
    """
    known = _scaled(values)
    squares = float(np.sum(known**2))
    return min(1.0, float(known.sum()) ** 2 / (len(known) * squares)) if squares > 0 else math.nan


def gini(values: FloatArray) -> float:
    """Return the Gini coefficient, sum_ij |x_i - x_j| / (2 N^2 |mean|); in [0, 1) for non-negative x.

    nan where the mean is 0. With negative values it can be larger than 1.
    """
    known = np.sort(_scaled(values))
    count, mean = len(known), _size_of_mean(known)
    if not mean > 0:
        return math.nan
    ranks = 2 * np.arange(1, count + 1) - count - 1
    return max(0.0, float(ranks @ known)) / (count**2 * mean)


def worst_mean(values: FloatArray) -> float:
    """Return the mean of the ceil(N' / 10) lowest of the N' known values; nan where there are none.

    It is infinite where their sum is more than a float can hold.
    """
    known = np.sort(_known(values))
    with np.errstate(over="ignore"):
        return float(known[: -(-len(known) // 10)].mean()) if len(known) else math.nan


def mean(values: FloatArray) -> float:
    """Return the mean of the known values; nan where there are none."""
    known = _known(values)
    return float(known.mean()) if len(known) else math.nan


def deviation(values: FloatArray) -> float:
    """Return the population standard deviation of the known values, 0 or more; nan where there are none."""
    known = _known(values)
    return float(known.std()) if len(known) else math.nan


def weighted_mean(values: FloatArray, weights: FloatArray) -> float:
    """Return sum w x / sum w over the clients whose value and weight are known; nan where the weights' sum is 0."""
    value, weight = _weighed(values, weights)
    total = float(weight.sum())
    return float(weight @ value) / total if total > 0 else math.nan


def weighted_deviation(values: FloatArray, weights: FloatArray) -> float:
    """Return the root of sum w (x - m)^2 / sum w around the `weighted_mean` m, 0 or more; nan where m is."""
    centre = weighted_mean(values, weights)
    return math.sqrt(weighted_mean((values - centre) ** 2, weights))


def gap(values: FloatArray) -> float:
    """Return the largest minus the smallest known value; nan where there are none."""
    known = _known(values)
    return float(known.max() - known.min()) if len(known) else math.nan


def ratio(numerator: FloatArray | IntArray, denominator: FloatArray | IntArray) -> FloatArray:
    """Divide element by element; nan where the denominator is 0."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


SATURATED = 0.95
"""From which share of its opportunities on a client counts as selected whenever it is there."""


def parity_figures(
    rounds: IntArray, available: IntArray, selected: IntArray, participated: IntArray, utility: FloatArray
) -> dict[str, float]:
    """Return the figures of who took part and who benefited, by column name; every argument of shape (N,).

    Args:
        rounds: rounds that count for each client.
        available: n_k, those of them in which the client was seen available.
        selected: those in which it was selected.
        participated: those that it completed.
        utility: cumulative credited utility.
    """
    normalized = ratio(utility, available)
    return {
        "utility_cv": coefficient_of_variation(normalized),
        "utility_jain": jain(normalized),
        "utility_gini": gini(normalized),
        "worst10_normalized_utility": worst_mean(normalized),
        "selection_gap": gap(ratio(selected, rounds)),
        "conditional_selection_gap": gap(ratio(selected, available)),
        "saturation": mean(np.where(available > 0, ratio(selected, available) >= SATURATED, np.nan)),
        "participation_gini": gini(participated.astype(np.float64)),
    }


def jsonable(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return figures as JSON knows them: None where a figure is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def label_coverage(label_counts: IntArray, participants: BoolArray) -> float:
    """Return the share of labels that some participant holds, in [0, 1]; nan where labels are unknown."""
    if label_counts.shape[1] == 0:
        return math.nan
    return float(np.mean(np.any(label_counts[participants] > 0, axis=0)))


def label_kl(label_counts: IntArray, participants: BoolArray) -> float:
    """Return the KL divergence in nats of the participants' labels from uniform, 0 or more; nan without participants.

    Each participant counts each label that it holds once.
    """
    held = np.sum(label_counts[participants] > 0, axis=0)
    if held.sum() == 0:
        return math.nan
    share = held[held > 0] / held.sum()
    return max(0.0, float(np.sum(share * np.log(share * len(held)))))


def low_half_mean(values: FloatArray, availability: FloatArray) -> float:
    """Return the mean value of the floor(N/2) clients with the smallest availability, ties by index."""
    order = np.argsort(availability, kind="stable")
    return mean(values[order[: len(order) // 2]])


def availability_interval(
    available: IntArray, rounds: IntArray, switched_on: IntArray, switched_off: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the 95 % interval of P(available), low and high; nan where the client has no rounds.

    Wilson's score interval (JASA 1927) on an effective number of rounds: availability comes in bursts, and r rounds of
    a two-state chain whose lag-1 autocorrelation is rho tell as much as r (1 - rho) / (1 + rho) independent ones. rho
    is 1 - P(on -> off) - P(off -> on), estimated from the switches seen and shrunk to the rates of all clients, since
    one that was never seen to switch tells nothing about its bursts. Simulated coverage for 20 clients with pi from
    beta(1,2) and 10 to 300 rounds: 96 to 98 % where rounds are independent, 94 to 98 % where on-runs last 4 or 12, and
    91 % for those that come in runs of 12 among as many that do not.

    Args:
        available: rounds in which each client was seen available, shape (N,).
        rounds: rounds that count for each client.
        switched_on: times it came.
        switched_off: times it went.
    """
    effective = effective_rounds(available, rounds, switched_on, switched_off)
    share = ratio(available, rounds)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = 1 + Z_95**2 / effective
        centre = (share + Z_95**2 / (2 * effective)) / spread
        half = Z_95 / spread * np.sqrt(share * (1 - share) / effective + Z_95**2 / (4 * effective**2))
    known = rounds > 0
    low = np.where(known, np.clip(np.minimum(centre - half, share), 0.0, 1.0), np.nan)
    high = np.where(known, np.clip(np.maximum(centre + half, share), 0.0, 1.0), np.nan)
    return low, high


def effective_rounds(
    available: IntArray,
    rounds: IntArray,
    switched_on: IntArray,
    switched_off: IntArray,
    pooled_trials: float = POOLED_TRIALS,
) -> FloatArray:
    """Return how many independent rounds each client's rounds are worth, r (1 - rho) / (1 + rho), shape (N,).

    The arguments are those of `availability_interval`; `pooled_trials` as `POOLED_TRIALS`.
    """
    departures = _shrunk_rate(switched_off, available, pooled_trials)
    rho = 1.0 - departures - _shrunk_rate(switched_on, rounds - available, pooled_trials)
    rho = np.clip(rho, 0.0, 1.0 - 1.0 / (1.0 + rounds))
    return np.asarray(rounds * (1 - rho) / (1 + rho), dtype=np.float64)


def _shrunk_rate(events: IntArray, trials: IntArray, pooled_trials: float) -> FloatArray:
    """Return each client's events per trial, the rate of all clients counted as `pooled_trials` more of its trials."""
    pooled = (np.sum(events) + 0.5) / (np.sum(trials) + 1.0)
    return np.asarray((events + pooled_trials * pooled) / (trials + pooled_trials), dtype=np.float64)


def _weighed(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = ~(np.isnan(values) | np.isnan(weights))
    return values[known], weights[known]


def _known(values: FloatArray) -> FloatArray:
    return np.asarray(values[~np.isnan(values)], dtype=np.float64)


def _size_of_mean(known: FloatArray) -> float:
    """Return the absolute mean; 0 where there are no values, or where it is no more than they are rounded by."""
    size = abs(float(known.mean())) if len(known) else 0.0
    return size if size > ROUNDED * float(np.sum(np.abs(known))) / max(len(known), 1) else 0.0


def _scaled(values: FloatArray) -> FloatArray:
    """Return the known values times a power of two, so that neither their sum nor their squares overflow.

    The largest is then below 1, and no figure that does not depend on the scale changes by a digit. All are nan where
    one is infinite.
    """
    known = _known(values)
    largest = float(np.abs(known).max(initial=0.0))
    if not math.isfinite(largest):
        return np.full(len(known), np.nan)
    return np.ldexp(known, -math.frexp(largest)[1])
