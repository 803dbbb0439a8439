"""Where each selector's rates come to rest, against the exact optimum; and whether it pays to hide one's availability.

The regimes are small enough for the answer to be known: by enumeration, by hand, or, where clients are correlated by
a copula, as the optimum for the very arrivals of the run. Everything is seeded. A row's figure is the largest distance
of a client from its exact value; tolerances are about four standard errors of `ROUNDS` rounds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import inf

import numpy as np

from parityfl.conformance.aggregation import Verdict
from parityfl.core.availability import Always, AvailabilityModel, Bernoulli, Copula, GilbertElliott, Groups
from parityfl.core.fairness import ratio
from parityfl.core.seeding import generator
from parityfl.core.selection import Selector, selector
from parityfl.core.selection.cup_paper import CupPaper
from parityfl.core.selection.cup_reactive import CupReactive
from parityfl.core.selection.deficit import Deficit
from parityfl.core.selection.f3ast import F3ast
from parityfl.core.selection.fairfedcs import FairFedCS
from parityfl.core.selection.inverse_availability import InverseAvailability
from parityfl.core.selection.least_selected import LeastSelected
from parityfl.core.selection.lnu import LeastNormalisedUtility
from parityfl.core.selection.maxmin import maxmin_exact, maxmin_sampled
from parityfl.core.selection.need import Need
from parityfl.core.selection.oort import Oort
from parityfl.core.selection.oracle_maxmin import OracleMaxMin
from parityfl.core.selection.power_of_choice import PowerOfChoice
from parityfl.core.selection.psp import ProbabilisticSynchronousParallel
from parityfl.core.selection.uniform import Uniform
from parityfl.core.types import AvailabilityProcess, BoolArray, FloatArray, World
from parityfl.experiments.schedule import Schedule, Worth, play

ROUNDS = 10_000

EXACT = LeastNormalisedUtility(
    mode="deterministic", parity="utility", offset=0.0, relative=False, credit_low=0.0, credit_high=inf
)
"""The policy of the theorem: raw utility, no clip."""

RANDOMISED = replace(EXACT, mode="randomised", explore=0.0)
"""The same around a soft cut."""


@dataclass(frozen=True)
class Regime:
    """A population whose optimum is known.

    Attributes:
        availability: who comes when.
        mu: mean utility of a participation, one per client.
        per_round: m.
        noise: sigma of the log-normal noise of utilities.
    """

    availability: AvailabilityModel
    mu: Sequence[float]
    per_round: int
    noise: float = 0.0

    @property
    def world(self) -> World:
        """The population, bound to its availability."""
        size = len(self.mu)
        ones, labels = np.ones(size, dtype=np.int64), np.zeros((size, 0), dtype=np.int64)
        bare = World(0, size, self.per_round, 600.0, ones, labels, mean_utility=np.asarray(self.mu, dtype=np.float64))
        return replace(bare, availability=self.availability.bind(bare))

    def play(self, rule: Selector, rounds: int = ROUNDS) -> Schedule:
        """Play a rule."""
        return play(rule, self.world, rounds, Worth(self.noise))


THREE = Regime(Bernoulli(0.5), [1.0] * 3, 1)
"""Three alike: f(all) = 1 - .5^3 = .875 over a weight of 1.5."""

PAIR = Regime(Bernoulli([0.8, 0.4]), [1.0, 0.5], 1)
"""Client 1 yields half and is always served; client 0 gets (.88 - .4) / .8."""

SIX_PI, SIX_MU = [0.9, 0.7, 0.5, 0.3, 0.2, 0.1], [1.0, 0.5, 2.0, 1.0, 0.3, 1.5]

SIX = Regime(Bernoulli(SIX_PI), SIX_MU, 2, noise=0.5)
"""Six clients, two of them saturated at the optimum (.65, .5, .65, .65, .3, .65)."""

BURSTY = replace(SIX, availability=GilbertElliott(SIX_PI, mean_on_rounds=15.0))
"""The same availabilities in bursts; the optimum depends on the stationary distribution alone."""

TWINS = Regime(Groups(0.5, groups=[[0, 1]]), [1.0] * 3, 1)
"""Three clients at .5, two of which share a coin, m = 1: f({0, 1}) = .5 over a weight of 1, f(all) = .75 over 1.5."""

SHOCKS = replace(SIX, availability=Copula(SIX_PI, factor=0.8))
"""Correlated by a common shock."""

TWO = Regime(Bernoulli([0.9, 0.1]), [1.0] * 2, 1)
"""The paper's Lemma 2: one client is there nine times as often as the other."""

FOUR = Regime(Bernoulli([1.0, 0.7, 0.5, 0.4]), [1.0] * 4, 1)
"""Equal absolute rates of 1/4 are feasible: no set of clients comes too seldom for its share."""

CONSTANT = Regime(Always(), [1.0] * 6, 2)
"""Six clients who are always there."""

CROWD = Regime(Bernoulli([0.7, 0.6, 0.35, 0.3, 0.3, 0.25, 0.2, 0.2, 0.15, 0.15, 0.1, 0.1] * 3), [1.0] * 36, 4)
"""A crowd in which capacity binds, for the strategy table; client `HIDER` hides."""

HIDER = 2


def utility_per_opportunity(schedule: Schedule) -> FloatArray:
    """Return u_k / n_k."""
    return schedule.ledger.normalized_utility


def utility_per_expected_opportunity(schedule: Schedule) -> FloatArray:
    """Return mu_k s_k / (pi_k T), which has the noise of neither the arrivals nor the utilities."""
    return ratio(schedule.mu * schedule.ledger.selected, schedule.pi * schedule.ledger.rounds)


def conditional_rate(schedule: Schedule) -> FloatArray:
    """Return selected / available."""
    return ratio(schedule.ledger.selected, schedule.ledger.available)


def rate(schedule: Schedule) -> FloatArray:
    """Return selected / rounds."""
    return schedule.ledger.selected / schedule.ledger.rounds


@dataclass(frozen=True)
class Claim:
    """What a rule comes to in a regime.

    Attributes:
        name: the selector, as registered.
        text: the claim in one line.
        regime: the population.
        rule: the selector with its keys.
        figure: what is compared.
        exact: its value per client; None where it is the max-min optimum for the arrivals of the run.
        tolerance: how far a client may be from it.
        share: of the rounds that the check is given.
    """

    name: str
    text: str
    regime: Regime
    rule: Selector
    figure: Callable[[Schedule], FloatArray]
    exact: FloatArray | None
    tolerance: float
    share: float = 0.3

    def check(self, rounds: int) -> Verdict:
        """Play, and compare."""
        rounds = round(self.share * rounds)
        measured = self.figure(self.regime.play(self.rule, rounds))
        exact = _sampled_optimum(self.regime, rounds) if self.exact is None else self.exact
        return Verdict(self.name, self.text, 0.0, float(np.abs(measured - exact).max()), self.tolerance)


def selection_rows(rounds: int = ROUNDS) -> Iterator[Verdict]:
    """Yield every row, each as soon as it is measured."""
    return (claim.check(rounds) for claim in chain(maxmin_claims(), parity_claims(), rate_claims(), symmetric_claims()))


def maxmin_claims() -> Iterator[Claim]:
    """Yield that the lexicographic max-min utilities per opportunity are attained."""
    six = maxmin_exact(np.array(SIX_PI), np.array(SIX_MU), 2)
    utility = utility_per_opportunity
    yield Claim(
        "lnu", "max-min utility, three equal clients: .5833", THREE, EXACT, utility, np.full(3, 0.875 / 1.5), 0.02
    )
    yield Claim(
        "lnu", "max-min utility, one client saturated: .6, .5", PAIR, EXACT, utility, np.array([0.6, 0.5]), 0.02
    )
    yield Claim("lnu", "max-min utility, six clients, noisy utility", SIX, EXACT, utility, six, 0.02, 1.0)
    yield Claim("lnu", "the same, randomised around a soft cut", SIX, RANDOMISED, utility, six, 0.03, 1.0)
    yield Claim("lnu", "the same where clients come in bursts", BURSTY, EXACT, utility, six, 0.03, 1.0)
    yield Claim("lnu", "the same where clients share shocks", SHOCKS, EXACT, utility, None, 0.02, 1.0)
    yield Claim(
        "lnu", "max-min utility where two of three share a coin: .5", TWINS, EXACT, utility, np.full(3, 0.5), 0.03
    )
    expected, oracle = utility_per_expected_opportunity, OracleMaxMin()
    yield Claim("oracle-maxmin", "max-min utility, six clients", SIX, oracle, expected, six, 0.02)
    yield Claim("oracle-maxmin", "the same where clients come in bursts", BURSTY, oracle, expected, six, 0.03, 1.0)
    yield Claim("oracle-maxmin", "the same where clients share shocks", SHOCKS, oracle, utility, None, 0.03, 1.0)
    yield Claim(
        "oracle-maxmin", "max-min where two of three share a coin: .5", TWINS, oracle, expected, np.full(3, 0.5), 0.03
    )
    yield Claim("oracle-maxmin", "max-min utility, 36 clients, by samples", CROWD, oracle, utility, None, 0.07)


def parity_claims() -> Iterator[Claim]:
    """Yield what each parity equalises where all can be served alike."""
    two, quarter = maxmin_exact(np.array([0.9, 0.1]), np.ones(2), 1), np.full(4, 0.25)
    lnu = LeastNormalisedUtility()
    yield Claim("lnu", "opportunity parity: .91 of each one's opportunities", TWO, lnu, conditional_rate, two, 0.02)
    yield Claim("need", "the same where no need is known", TWO, Need(), conditional_rate, two, 0.02)
    for name, rule in (
        ("lnu", replace(lnu, parity="selection")),
        ("least-selected", LeastSelected()),
        ("f3ast", F3ast()),
    ):
        yield Claim(name, "selection parity: m / N each, where feasible", FOUR, rule, rate, quarter, 0.01)


def rate_claims() -> Iterator[Claim]:
    """Yield the rates that enumeration gives for two clients, both of whom are there in 9 % of the rounds.

    They are compared over the opportunities, where they are as far apart as the rules are: .95 and .55 for those that
    are blind, .91 both, .9 and 1 for the rarest first.
    """
    blind, inverse, rarest = (np.array(rates) / [0.9, 0.1] for rates in ([0.855, 0.055], [0.819, 0.091], [0.81, 0.1]))
    for name, rule in (
        ("uniform", Uniform()),
        ("psp", ProbabilisticSynchronousParallel()),
        ("oort", Oort()),
        ("power-of-choice", PowerOfChoice()),
        ("deficit", Deficit()),
    ):
        yield Claim(name, "1 / |A| of each round, no loss being known", TWO, rule, conditional_rate, blind, 0.12)
    for name, sampler in (
        ("inverse-availability", InverseAvailability()),
        ("cup-reactive", CupReactive(debt_weight=0.0)),
    ):
        yield Claim(name, "without debt: rates .819 and .091", TWO, sampler, conditional_rate, inverse, 0.05)
    for name, greedy in (
        ("inverse-availability", InverseAvailability(mode="top-m")),
        ("cup-paper", CupPaper()),
        ("fairfedcs", FairFedCS()),
    ):
        yield Claim(name, "top-m: the rare client takes all its rounds", TWO, greedy, conditional_rate, rarest, 0.03)


def symmetric_claims() -> Iterator[Claim]:
    """Yield, for every registered selector, that clients who are always there are served alike."""
    third = np.full(6, 1 / 3)
    for name in selector.names():
        yield Claim(name, "everybody always there: m / N each", CONSTANT, selector.get(name)(), rate, third, 0.06, 0.1)


@dataclass(frozen=True)
class Hiding:
    """What a client makes of its utility by hiding half of its availability.

    Attributes:
        name: the selector, with its mode where it matters.
        ratio: utility when hiding over utility when honest.
        bound: what the ratio may not pass, where the selector claims that hiding never pays.
    """

    name: str
    ratio: float
    bound: float | None

    @property
    def ok(self) -> bool:
        """Whether the claim held, where there is one."""
        return self.bound is None or self.ratio <= self.bound


def hiding_rows(rounds: int = ROUNDS // 5) -> Iterator[Hiding]:
    """Yield how hiding pays under every selector; only lnu claims that it does not, by opportunity and by utility."""
    bound = 1.05
    yield Hiding("lnu, randomised, opportunity", hiding_ratio(LeastNormalisedUtility(), rounds), bound)
    yield Hiding("lnu, deterministic, utility", hiding_ratio(EXACT, rounds), bound)
    for name in selector.names():
        if name != "lnu":
            yield Hiding(name, hiding_ratio(selector.get(name)(), rounds), None)


def hiding_ratio(rule: Selector, rounds: int) -> float:
    """Return the utility of a client of a crowd when it hides half of its availability, over that when it does not."""
    world = CROWD.world
    assert world.availability is not None
    hidden = replace(world, availability=HalfHidden(world.availability, HIDER, world.interval_s))
    honest, hiding = (float(play(rule, each, rounds).ledger.utility[HIDER]) for each in (world, hidden))
    return hiding / honest if honest > 0 else inf


@dataclass(frozen=True)
class HalfHidden:
    """A process of which one client shows half, by a coin of its own."""

    process: AvailabilityProcess
    client: int
    interval_s: float

    def available(self, time_s: float) -> BoolArray:
        """Return who shows up, shape (N,)."""
        shown = self.process.available(time_s).copy()
        shown[self.client] &= generator(0, "hiding", round(time_s / self.interval_s)).random() < 0.5
        return shown

    def probability(self, time_s: float) -> FloatArray | None:
        """Return P(shows up), shape (N,)."""
        truth = self.process.probability(time_s)
        if truth is None:
            return None
        halved = truth.copy()
        halved[self.client] /= 2
        return halved


def _sampled_optimum(regime: Regime, rounds: int) -> FloatArray:
    world = regime.world
    assert world.availability is not None
    draws = np.array([world.availability.available(number * world.interval_s) for number in range(rounds)])
    return maxmin_sampled(draws, np.asarray(regime.mu), regime.per_round)
