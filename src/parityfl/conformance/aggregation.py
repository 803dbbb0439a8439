"""Where each aggregation rule comes to rest when availability goes with the data, against what it claims.

Six clients on a line: those often there sit on the positive side, and 0 minimises the mean loss over all clients, so
the resting point of a rule is its bias. Most have a closed form. Everything is seeded: a row is the same numbers on
every run. Noisy rules are averaged over the second half of `ROUNDS`; their tolerances are about four standard errors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from parityfl.conformance.quadratic import Group, Quadratic, Trial
from parityfl.core.aggregation import Aggregator
from parityfl.core.aggregation.afl import Afl
from parityfl.core.aggregation.fedau import FedAU
from parityfl.core.aggregation.fedavg import FedAvg
from parityfl.core.aggregation.fedawe import FedAwe
from parityfl.core.aggregation.fedfv import FedFV
from parityfl.core.aggregation.fedvarp import FedVarp
from parityfl.core.aggregation.hajek import Hajek
from parityfl.core.aggregation.horvitz_thompson import HorvitzThompson
from parityfl.core.aggregation.krum import Krum
from parityfl.core.aggregation.median import Median
from parityfl.core.aggregation.mifa import Mifa
from parityfl.core.aggregation.q_fedavg import QFedAvg
from parityfl.core.aggregation.surrogate import Surrogate
from parityfl.core.aggregation.trimmed_mean import TrimmedMean
from parityfl.core.optimizers import Momentum

ROUNDS = 4000

SKEWED = Quadratic(
    optima=np.array([1.5, 1.0, 0.5, -0.5, -1.0, -1.5]),
    rates=np.array([0.9, 0.75, 0.6, 0.4, 0.25, 0.1]),
    per_round=2,
)
"""The often-present pull to the positive side; the mean of all optima is 0."""

BURSTY = replace(SKEWED, persistence=0.9)
"""The same, but who is there stays for ten rounds and more."""

PREFERRED = replace(SKEWED, per_round=1, preference=np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
"""The same, with a selector that likes those better who are seldom there."""

UNEQUAL = Quadratic(optima=np.array([0.0, 0.0, 1.0]), rates=np.ones(3), per_round=3)
"""Three clients who are always there, two of them alike."""

HOSTILE = Quadratic(optima=np.array([-1.0, -0.2, 0.1, 1.0, 0.0]), rates=np.ones(5), per_round=5, hostile=(4,))
"""Four honest clients and one that pulls to +1000, always there."""

LARGEST_LOSS_COUNTS = 1 / (1 + 2 ** (1 / 3))
"""What minimises sum_k F_k² over `UNEQUAL`: 2 w³ = (1 - w)³."""


@dataclass(frozen=True)
class Verdict:
    """One claim about a rule, and what came of it.

    Attributes:
        name: the rule, as registered.
        claim: what should hold, in one line.
        expected: the number that the claim predicts.
        measured: the number that came out.
        tolerance: how far apart the two may be.
    """

    name: str
    claim: str
    expected: float
    measured: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the claim held."""
        return abs(self.measured - self.expected) <= self.tolerance


def aggregation_rows() -> Iterator[Verdict]:
    """Yield every row, each as soon as it is measured; all of them take seconds."""
    return (check() for check in CHECKS)


def fedavg_follows_the_often_present() -> Verdict:
    """Its resting point is sum_k theta_k E[1{k in S} / |S|]."""
    expected = SKEWED.expectation(lambda _, group: float(SKEWED.optima[list(group)].mean()))
    return Verdict("fedavg", "rests at the mean weighted by participation", expected, _rest(SKEWED, FedAvg()), 0.05)


def mifa_finds_the_optimum() -> Verdict:
    """Without noise it converges, so the last model will do."""
    return Verdict("mifa", "rests at the optimum of all clients alike", 0.0, _last(SKEWED, Mifa()), 1e-4)


def mifa_finds_the_optimum_in_bursts() -> Verdict:
    """Remembered updates do not age here as long as the model rests."""
    return Verdict("mifa", "the same when presence comes in bursts", 0.0, _last(BURSTY, Mifa(server_lr=0.5)), 1e-4)


def mifa_composes_with_momentum() -> Verdict:
    """The server optimiser changes the way, not the resting point."""
    last = float(Trial(SKEWED, Mifa(server_lr=0.05), Momentum(0.9)).models(ROUNDS)[-1])
    return Verdict("mifa", "the same with server momentum", 0.0, last, 1e-4)


def mifa_with_need_is_q_fair() -> Verdict:
    """At rest rho_k is proportional to F_k, so sum_k F_k grad F_k = 0."""
    measured = _last(UNEQUAL, Mifa(server_lr=0.5, need=1.0))
    return Verdict("mifa", "need 1 rests at the optimum of sum F_k^2", LARGEST_LOSS_COUNTS, measured, 1e-4)


def fedvarp_finds_the_optimum() -> Verdict:
    """The correction mean_S(Delta - G) vanishes as the model comes to rest; what stays is the mean of all memories."""
    return Verdict("fedvarp", "rests at the optimum of all clients alike", 0.0, _last(SKEWED, FedVarp()), 1e-4)


def surrogate_without_decay_is_mifa() -> Verdict:
    """Decay 0 is the mean over the clients seen."""
    gap = _largest_gap(SKEWED, Surrogate(decay=0.0), Mifa(server_lr=1.0))
    return Verdict("surrogate", "decay 0 walks with MIFA", 0.0, gap, 1e-5)


def surrogate_with_large_decay_is_fedavg() -> Verdict:
    """At decay 50 last round's updates weigh e^-50."""
    gap = _largest_gap(SKEWED, Surrogate(decay=50.0), FedAvg())
    return Verdict("surrogate", "decay 50 walks with FedAvg", 0.0, gap, 1e-5)


def surrogate_decay_brings_the_bias_back() -> Verdict:
    """Its resting point moves from MIFA's to FedAvg's."""
    rests = [_rest(SKEWED, Surrogate(decay=decay)) for decay in (0.0, 0.01, 0.1, 0.5, 50.0)]
    rises = sum(low < high for low, high in pairwise(rests))
    return Verdict("surrogate", "the bias rises in each step of decay 0, .01, .1, .5, 50", 4, rises, 0)


def surrogate_accounting_is_fedavg() -> Verdict:
    """Only the reported weights differ."""
    gap = _largest_gap(SKEWED, Surrogate(mode="accounting"), FedAvg())
    return Verdict("surrogate", "mode accounting walks with FedAvg", 0.0, gap, 0.0)


def horvitz_thompson_is_unbiased() -> Verdict:
    """In the time-average, with a small step."""
    measured = _rest(SKEWED, HorvitzThompson(server_lr=0.05))
    return Verdict("horvitz-thompson", "full population: unbiased for all clients", 0.0, measured, 0.1)


def horvitz_thompson_undoes_the_selector() -> Verdict:
    """It stands for those who are available, whomever the selector prefers: each then weighs 1 / |A|."""
    expected = PREFERRED.expectation(lambda available, _: float(PREFERRED.optima[list(available)].mean()))
    measured = _rest(PREFERRED, HorvitzThompson(server_lr=0.05, population="available"))
    return Verdict("horvitz-thompson", "available population: undoes the selector alone", expected, measured, 0.1)


def hajek_has_a_ratio_bias() -> Verdict:
    """With two a round most of the bias of FedAvg stays: E[sum v theta / sum v], v = 1 / (p pi)."""

    def estimate(available: Group, group: Group) -> float:
        weights = 1 / (SKEWED.probability(available) * SKEWED.rates)[list(group)]
        return float(np.average(SKEWED.optima[list(group)], weights=weights))

    expected = SKEWED.expectation(estimate)
    return Verdict("hajek", "full population: rests at its ratio bias", expected, _rest(SKEWED, Hajek()), 0.07)


def hajek_with_empirical_rates_has_its_own_bias() -> Verdict:
    """E[sum v theta / sum v] with v = 1 / P(participates), to which the shares of rounds taken part in tend."""
    rates = [SKEWED.expectation(lambda _, group, k=k: float(k in group)) for k in range(SKEWED.num_clients)]  # type: ignore[misc]

    def estimate(_: Group, group: Group) -> float:
        return float(np.average(SKEWED.optima[list(group)], weights=1 / np.array(rates)[list(group)]))

    measured = _rest(SKEWED, Hajek(rate="empirical"))
    return Verdict("hajek", "empirical rate: rests at its ratio bias", SKEWED.expectation(estimate), measured, 0.05)


def hajek_with_equal_chances_is_fedavg() -> Verdict:
    """Equal weights, scaled to 1, are those of the mean."""
    gap = _largest_gap(SKEWED, Hajek(population="available"), FedAvg())
    return Verdict("hajek", "available population, equal chances: walks with FedAvg", 0.0, gap, 1e-5)


def fedau_is_nearly_unbiased() -> Verdict:
    """The mean gap tends to one over the rate of participation, while gaps stay below the cutoff."""
    measured = _rest(SKEWED, FedAU(server_lr=0.05))
    return Verdict("fedau", "small step: rests near the optimum of all clients alike", 0.0, measured, 0.1)


def fedawe_is_nearly_unbiased() -> Verdict:
    """Its bias is of the order of the step."""
    measured = _rest(SKEWED, FedAwe(server_lr=0.02))
    return Verdict("fedawe", "small step: rests near the optimum of all clients alike", 0.0, measured, 0.08)


def q_fedavg_with_q_zero_is_fedavg() -> Verdict:
    """F^0 = 1 and h = L: the step does not depend on L."""
    gap = max(_largest_gap(SKEWED, QFedAvg(q=0.0, lipschitz=scale), FedAvg()) for scale in (0.1, 1.0, 10.0))
    return Verdict("q-fedavg", "q = 0 walks with FedAvg for L = .1, 1, 10", 0.0, gap, 1e-5)


def q_fedavg_is_q_fair() -> Verdict:
    """It minimises sum_k F_k^(q+1)."""
    measured = _last(UNEQUAL, QFedAvg(q=1.0))
    return Verdict("q-fedavg", "q = 1 rests at the optimum of sum F_k^2", LARGEST_LOSS_COUNTS, measured, 1e-4)


def afl_is_minimax() -> Verdict:
    """The largest of the losses is smallest half-way, whatever the number of clients on either side."""
    return Verdict("afl", "rests where the largest loss is smallest", 0.5, _last(UNEQUAL, Afl(gamma=0.1)), 1e-3)


def fedfv_without_conflict_is_fedavg() -> Verdict:
    """Far from all optima every update points the same way."""
    plain, fair = (Trial(SKEWED, rule, start=50.0).models(6) for rule in (FedAvg(), FedFV()))
    return Verdict("fedfv", "walks with FedAvg where no updates conflict", 0.0, float(np.abs(plain - fair).max()), 1e-4)


def trimmed_mean_bounds_a_hostile_client() -> Verdict:
    """The hostile update goes, and the lowest honest one with it: (-.2 + .1 + 1) / 3."""
    measured = _last(HOSTILE, TrimmedMean(trim=0.2))
    return Verdict("trimmed-mean", "rests at the mean without the extremes", 0.3, measured, 1e-4)


def median_bounds_a_hostile_client() -> Verdict:
    """The median of -1, -.2, .1, 1 and something huge."""
    return Verdict("median", "rests at the median, the hostile client counted", 0.1, _last(HOSTILE, Median()), 1e-4)


def krum_takes_a_central_client() -> Verdict:
    """Squared distances to the two nearest: .64 + .09 from -.2 is the least (.09 + .81 from .1)."""
    return Verdict("krum", "rests at the most central honest client", -0.2, _last(HOSTILE, Krum(hostile=1)), 1e-4)


def multi_krum_averages_central_clients() -> Verdict:
    """The two most central are -.2 and .1."""
    measured = _last(HOSTILE, Krum(hostile=1, keep=2))
    return Verdict("krum", "keep 2 rests at the mean of the two most central", -0.05, measured, 1e-4)


CHECKS: tuple[Callable[[], Verdict], ...] = (
    fedavg_follows_the_often_present,
    mifa_finds_the_optimum,
    mifa_finds_the_optimum_in_bursts,
    mifa_composes_with_momentum,
    mifa_with_need_is_q_fair,
    fedvarp_finds_the_optimum,
    surrogate_without_decay_is_mifa,
    surrogate_with_large_decay_is_fedavg,
    surrogate_decay_brings_the_bias_back,
    surrogate_accounting_is_fedavg,
    horvitz_thompson_is_unbiased,
    horvitz_thompson_undoes_the_selector,
    hajek_has_a_ratio_bias,
    hajek_with_empirical_rates_has_its_own_bias,
    hajek_with_equal_chances_is_fedavg,
    fedau_is_nearly_unbiased,
    fedawe_is_nearly_unbiased,
    q_fedavg_with_q_zero_is_fedavg,
    q_fedavg_is_q_fair,
    afl_is_minimax,
    fedfv_without_conflict_is_fedavg,
    trimmed_mean_bounds_a_hostile_client,
    median_bounds_a_hostile_client,
    krum_takes_a_central_client,
    multi_krum_averages_central_clients,
)
"""One function per row, in the order in which they are printed."""


def _rest(problem: Quadratic, rule: Aggregator) -> float:
    return Trial(problem, rule).resting_point(ROUNDS)


def _last(problem: Quadratic, rule: Aggregator) -> float:
    """Return the last model, for rules that converge."""
    return float(Trial(problem, rule).models(ROUNDS // 4)[-1])


def _largest_gap(problem: Quadratic, rule: Aggregator, other: Aggregator) -> float:
    """Return how far apart two rules ever are when they meet the same clients."""
    one, two = (Trial(problem, each).models(300) for each in (rule, other))
    return float(np.abs(one - two).max())
