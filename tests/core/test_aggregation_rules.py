"""Each rule on cases small enough to do by hand."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parityfl.core.aggregation import combine
from parityfl.core.aggregation.afl import Afl, project_on_simplex
from parityfl.core.aggregation.combine import fold, loss_before, pool
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
from parityfl.core.errors import ConfigError
from parityfl.core.ledger import Ledger
from parityfl.core.types import RoundContext, Update, World

HOSTILE = 1e6
nan = float("nan")


class Game:
    """A rule and its state: rounds are played by giving each participant's update."""

    def __init__(self, rule, num_clients=2, per_round=1, size=1):
        ones, labels = np.ones(num_clients, dtype=np.int64), np.zeros((num_clients, 0), dtype=np.int64)
        self.world = World(0, num_clients, per_round, 1.0, ones, labels)
        self.rule = rule
        self.weights = np.zeros(size, dtype=np.float32)
        self.ledger = Ledger.empty(num_clients)
        self.state = rule.init(self.world, size)
        self.number = 0

    def round(self, *updates, probability=None, registered=None, available=None, selected=None):
        everybody = np.ones(self.world.num_clients, dtype=np.bool_)
        self.number += 1
        context = RoundContext(
            round=self.number,
            weights=self.weights,
            registered=everybody if registered is None else np.array(registered),
            available=everybody if available is None else np.array(available),
            selected=np.isin(
                np.arange(self.world.num_clients), [u.client for u in updates] if selected is None else selected
            ),
            probability=None if probability is None else np.array(probability),
            ledger=self.ledger,
            world=self.world,
            local_lr=0.1,
            local_epochs=5,
        )
        self.step = self.rule.aggregate(self.state, context, iter(updates))
        self.state = self.step.state
        return self.step.direction


def update(client, *values, samples=1, loss=1.0, before=float("nan"), staleness=0):
    delta = np.array(values, dtype=np.float32)
    return Update(client, delta, samples, loss, before, staleness=staleness)


def near(*values, tolerance=1e-6):
    return pytest.approx(np.array(values), rel=tolerance, abs=tolerance)


# The mean.


def test_fedavg_weighs_by_examples():
    """(1 x 3 + 3 x 1) / 4 = 1.5; every client alike: (3 + 1) / 2 = 2."""
    updates = [update(0, 3, samples=1), update(1, 1, samples=3)]
    assert Game(FedAvg()).round(*updates) == near(1.5)
    assert Game(FedAvg(weighted=False)).round(*updates) == near(2)


def test_fedavg_of_clients_without_examples_is_nothing():
    assert Game(FedAvg()).round(update(0, 3, samples=0)) is None


def test_an_update_of_several_blocks_is_added_whole(monkeypatch):
    """Five parameters in blocks of two: 1 x k + 2 x 10 k."""
    monkeypatch.setattr(combine, "BLOCK", 2)
    row = np.arange(1, 6, dtype=np.float32)
    assert fold([(1.0, row), (2.0, 10 * row)], 5).total.tolist() == [21, 42, 63, 84, 105]


def test_pooled_updates_without_weight_are_nothing():
    (pooled,) = pool([update(0, 3, samples=0)], FedAvg().weight, 1)
    assert pooled.delta == near(0)


# Memories.


def test_mifa_by_hand():
    """Client 0 sends 2: the mean over the seen is 2. Client 1 sends 4: (2 + 4) / 2. Client 0 sends 0: (0 + 4) / 2."""
    game = Game(Mifa())
    assert game.round(update(0, 2)) == near(2)
    assert game.round(update(1, 4)) == near(3)
    assert game.round(update(0, 0)) == near(2)
    np.testing.assert_array_equal(game.step.client_weight, [1, 1])


def test_mifa_reports_no_weight_for_the_unseen():
    game = Game(Mifa())
    game.round(update(1, 1))
    np.testing.assert_array_equal(game.step.client_weight, [np.nan, 1])


def test_mifa_with_constant_updates_applies_their_mean():
    """P12: G = (1, 2, 6); once all have come, whoever comes next, the direction is 3."""
    game = Game(Mifa(), num_clients=3)
    for client, value in enumerate((1, 2, 6)):
        game.round(update(client, value))
    for client, value in ((2, 6), (0, 1), (2, 6)):
        assert game.round(update(client, value)) == near(3)


def test_mifa_leaves_the_model_in_an_empty_round():
    game = Game(Mifa())
    game.round(update(0, 2))
    assert game.round() is None
    assert game.round(update(1, 4)) == near(3)


def test_mifa_keeps_the_last_of_two_updates_of_one_client():
    """A late update of 9 and a fresh one of 1 in the same round: the memory is 1."""
    game = Game(Mifa())
    assert game.round(update(0, 9, staleness=1), update(0, 1)) == near(1)


def test_mifa_of_everybody_is_the_mean():
    game = Game(Mifa(), num_clients=3)
    for _ in range(2):
        assert game.round(update(0, 1), update(1, 2), update(2, 6)) == near(3)


def test_mifa_with_need_by_hand():
    """Losses 1 and 3: ratios 1, F = median = 2. Then client 1 at loss 4: ratio 2, rho = .5 + .5 (2) = 1.5.

    With G = (1, 2) the direction is (1 x 1 + 1.5 x 2) / 2.5 = 1.6, and F = 2 (.7 + .3 x 2) = 2.6.
    """
    game = Game(Mifa(need=1.0))
    assert game.round(update(0, 1, loss=1.0), update(1, 2, loss=3.0)) == near(1.5)
    assert game.round(update(1, 2, loss=4.0)) == near(1.6)
    assert game.state["loss_scale"] == near(2.6)


def test_mifa_with_need_squares_for_exponent_two():
    """rho = (1, 1.5): weights 1 and 2.25, so (1 + 2.25 x 2) / 3.25."""
    game = Game(Mifa(need=2.0))
    game.round(update(0, 1, loss=2.0), update(1, 2, loss=2.0))
    assert game.round(update(1, 2, loss=4.0)) == near((1 + 2.25 * 2) / 3.25)
    np.testing.assert_allclose(game.step.client_weight, [1, 2.25])


@pytest.mark.parametrize("absurd", [1e300, float("inf"), 6.0])
def test_mifa_cuts_absurd_losses(absurd):
    """At F = 2 any loss from 6 up counts 3 F: rho = .5 + 1.5 = 2, F = 2 (.7 + .9) = 3.2."""
    game = Game(Mifa(need=1.0))
    game.round(update(0, 1, loss=2.0))
    game.round(update(1, 1, loss=absurd))
    assert game.state["rho"] == near(1, 2)
    assert game.state["loss_scale"] == near(3.2)


@pytest.mark.parametrize("unknown", [float("nan"), float("inf")])
def test_mifa_waits_for_a_loss_that_sets_the_scale(unknown):
    game = Game(Mifa(need=1.0))
    assert game.round(update(0, 1, loss=unknown)) == near(1)
    assert np.isnan(game.state["loss_scale"][0])
    assert game.round(update(0, 1, loss=2.0)) == near(1)
    assert game.state["loss_scale"] == near(2)


def test_mifa_survives_losses_of_zero():
    game = Game(Mifa(need=1.0))
    for _ in range(50):
        assert game.round(update(0, 1, loss=0.0), update(1, 2, loss=0.0)) == near(1.5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@given(
    rounds=st.lists(st.lists(st.integers(0, 3), unique=True, max_size=4), min_size=1, max_size=12),
    seed=st.integers(0, 9),
)
def test_mifa_total_is_the_sum_of_its_memory(dtype, rounds, seed):
    """Whoever comes in whatever order: the running sum is sum_k b_k G_k of what is stored, to float32 rounding."""
    rng = np.random.default_rng(seed)
    game = Game(Mifa(need=1.0, memory_dtype=dtype), num_clients=4, size=3)
    for clients in rounds:
        game.round(*(update(k, *rng.normal(size=3), loss=rng.uniform(0.1, 9)) for k in sorted(clients)))
    expected = game.state["rho"] @ game.state["row_memory"].astype(np.float64)
    np.testing.assert_allclose(game.state["total"], expected, rtol=1e-5, atol=1e-5)


def test_mifa_total_keeps_nothing_of_large_updates():
    """Updates of 1e6 followed by ones of 1e-3: in float32 the sum would keep an error of .06."""
    game = Game(Mifa(), num_clients=3)
    for value in (1e6, 1.1e6, 0.9e6, 1e-3):
        direction = game.round(*(update(k, value * (k + 1)) for k in range(3)))
    assert direction == near(2e-3, tolerance=1e-9)


def test_half_memory_holds_half_and_cuts_what_it_cannot_hold():
    """The largest float16 is 65504."""
    game = Game(Mifa(memory_dtype="float16"))
    assert game.state["row_memory"].itemsize == 2
    assert game.round(update(0, 1e30)) == near(65504)
    assert game.round(update(0, 0.5)) == near(0.5)


@pytest.mark.parametrize(
    "rule", [Mifa(), FedVarp(), Surrogate(), FedAwe(), FedFV(tau=2)], ids=lambda r: type(r).__name__
)
def test_a_memory_that_does_not_fit_is_refused_with_its_arithmetic(rule):
    """10 clients x 10^12 parameters x 4 bytes = 40,000 GB."""
    world = World(0, 10, 2, 1.0, np.ones(10, dtype=np.int64), np.zeros((10, 0), dtype=np.int64))
    with pytest.raises(ConfigError, match=r"10 x 1000000000000 x 4 bytes = 40000\.00 GB, available \d+\.\d\d GB"):
        rule.init(world, 10**12)


def test_fedvarp_by_hand():
    """Client 0 sends 2: (2 - 0) / 1 + 0 = 2. Then 4 and 6 come, with G = (2, 0): (2 + 6) / 2 + 1 = 5."""
    game = Game(FedVarp())
    assert game.round(update(0, 2)) == near(2)
    assert game.round(update(0, 4), update(1, 6)) == near(5)
    assert game.state["total"] == near(10)


def test_fedvarp_of_everybody_is_the_mean():
    """mean(Delta - G) + mean(G) = mean(Delta)."""
    game = Game(FedVarp())
    game.round(update(0, 5), update(1, -1))
    assert game.round(update(0, 1), update(1, 2)) == near(1.5)


def test_surrogate_weights():
    """P8: eta0 = 1, decay = .1, staleness 0, 1, 5, 10."""
    weights = Surrogate().weights(np.array([11, 10, 6, 1, 0]), 11)
    np.testing.assert_allclose(weights, [1, 0.904837418, 0.606530660, 0.367879441, np.nan], rtol=1e-9)


def test_surrogate_by_hand():
    """decay = ln 2: client 0 sends 2, then 1 5: (5 + 2 / 2) / 1.5 = 4. Then 1 sends 8, 0 5: (5 + 4) / 1.5 = 6."""
    game = Game(Surrogate(decay=float(np.log(2))))
    game.round(update(0, 2))
    assert game.round(update(1, 5)) == near(4)
    np.testing.assert_allclose(game.step.client_weight, [0.5, 1])
    game.round(update(1, 8))
    assert game.round(update(0, 5)) == near(6)


def test_surrogate_ages_in_empty_rounds():
    """decay = ln 2, client 0 sends 2, nobody comes, client 1 sends 5: (5 + 2 / 4) / 1.25 = 4.4."""
    game = Game(Surrogate(decay=float(np.log(2))))
    game.round(update(0, 2))
    assert game.round() is None
    assert game.round(update(1, 5)) == near(4.4)


def test_surrogate_counts_a_late_update_by_its_age():
    """decay = ln 2: a late 2 weighs 1/2 beside a fresh 5: (5 + 1) / 1.5 = 4."""
    game = Game(Surrogate(decay=float(np.log(2))))
    game.round()
    assert game.round(update(0, 2, staleness=1), update(1, 5)) == near(4)


def test_surrogate_scales_what_is_not_fresh():
    """eta0 = .5, decay 0: (4 + .5 x 1) / 1.5 = 3."""
    game = Game(Surrogate(decay=0.0, eta0=0.5))
    game.round(update(0, 1))
    assert game.round(update(1, 4)) == near(3)


def test_surrogate_accounting_reports_weights_and_keeps_no_memory():
    """decay = ln 2: the direction is FedAvg's, (1 x 2 + 3 x 6) / 4 = 5; client 0 then weighs 1/2 while 1 comes."""
    game = Game(Surrogate(decay=float(np.log(2)), mode="accounting"))
    assert list(game.state) == ["born"]
    assert game.round(update(0, 2), update(1, 6, samples=3)) == near(5)
    assert game.round(update(1, 7)) == near(7)
    np.testing.assert_allclose(game.step.client_weight, [0.5, 1])


def test_mifa_with_need_remembers_ratios_at_any_scale():
    """F = .5. A loss of 1 is a ratio of 2: rho = .5 + .5 x 2 = 1.5, F = .5 (.7 + .6) = .65; of .65, 1: .75 + .5."""
    game = Game(Mifa(need=1.0))
    for loss in (0.5, 1.0, 0.65):
        game.round(update(0, 1, loss=loss))
    assert game.state["rho"][0] == pytest.approx(1.25)
    assert game.state["loss_scale"] == near(0.65)


def test_mifa_takes_its_scale_from_the_losses_that_are_known():
    game = Game(Mifa(need=1.0), 3)
    game.round(update(0, 1, loss=nan), update(1, 1, loss=1.0), update(2, 1, loss=3.0))
    assert game.state["loss_scale"] == near(2)


def test_surrogate_scales_a_late_update_too():
    """eta0 = .5, decay 0: a late 2 weighs .5 beside a fresh 4: (1 + 4) / 1.5."""
    game = Game(Surrogate(decay=0.0, eta0=0.5))
    game.round()
    assert game.round(update(0, 2, staleness=1), update(1, 4)) == near(10 / 3)


# Inverse probabilities.

P6 = [1.0, 0.6, 0.2, 0.2]
P6_OUTCOMES = [(0.6, (0, 1)), (0.2, (0, 2)), (0.2, (0, 3))]


def p6_expectation(rule):
    """E[direction] over the outcomes of sequential pivotal sampling with p = (1, .6, .2, .2), values 1, 2, 3, 4."""
    return sum(
        chance * float(Game(rule, 4, 2).round(*(update(k, k + 1) for k in group), probability=P6)[0])
        for chance, group in P6_OUTCOMES
    )


def test_horvitz_thompson_expectation():
    """P6: totals 1 + 2/.6 = 4.3333, 1 + 3/.2 = 16, 1 + 4/.2 = 21; .6 (4.3333) + .2 (16) + .2 (21) = 10."""
    assert 4 * p6_expectation(HorvitzThompson(population="available")) == pytest.approx(10.0, rel=1e-6)


def test_hajek_expectation():
    """P6: 4.3333/2.6667 = 1.625, 16/6, 21/6; .6 (1.625) + .2 (2.6667) + .2 (3.5) = 2.208333, biased from 2.5."""
    assert p6_expectation(Hajek(population="available")) == pytest.approx(2.208333, abs=1e-6)


def test_naive_mean_expectation():
    """P6: .6 (1.5) + .2 (2) + .2 (2.5) = 1.8."""
    assert p6_expectation(FedAvg()) == pytest.approx(1.8, rel=1e-6)


def test_hajek_with_equal_probabilities_is_the_mean():
    assert Game(Hajek()).round(update(0, 1), update(1, 4), probability=[0.3, 0.3]) == near(2.5)


def test_full_population_divides_by_observed_availability():
    """Client 0 was there in rounds 1 to 3 and is now, pi = 1; client 1 in one of them and now, pi = 2/4, p = 1/2 each.

    HT: (1/2) (1 / .5 + 6 / .25) = 13. Hajek: (2 x 1 + 4 x 6) / 6 = 4.3333.
    """
    ledger = replace(Ledger.empty(2), rounds=3, first_round=np.array([1, 1]), available=np.array([3, 1]))
    directions = []
    for rule in (HorvitzThompson(), Hajek()):
        game = Game(rule)
        game.ledger = ledger
        directions.append(game.round(update(0, 1), update(1, 6), probability=[0.5, 0.5]))
    assert directions[0] == near(13)
    assert directions[1] == near(26 / 6)


def test_a_late_registration_is_measured_from_when_it_came():
    """Client 1 first registered in round 3 of 3 and was there: pi = 2/2 in round 4, so HT = (1/2) (2 + 2) = 2."""
    game = Game(HorvitzThompson())
    game.ledger = replace(Ledger.empty(2), rounds=3, first_round=np.array([1, 3]), available=np.array([3, 1]))
    assert game.round(update(0, 1), update(1, 1), probability=[0.5, 0.5]) == near(2)


def test_horvitz_thompson_cuts_large_factors():
    """N = 2, m = 1: the cut is 40; p = .01 would weigh 100. One of two updates is cut: (2 + 40) / 2 = 21, rate .5."""
    game = Game(HorvitzThompson(population="available"))
    assert game.round(update(0, 1), update(1, 1), probability=[0.5, 0.01]) == near(21)
    assert game.step.notes == {"clip_rate": 0.5}
    game.round(update(0, 1), update(1, 1), probability=[0.5, 0.5])
    assert game.step.notes == {"clip_rate": 0.25}


def test_horvitz_thompson_takes_a_cut_of_ones_own():
    assert Game(HorvitzThompson(population="available", clip=3.0)).round(update(0, 1), probability=[0.1, 0.9]) == near(
        1.5
    )


def test_horvitz_thompson_stands_for_those_available():
    """One of two is there and was sure to be drawn: the mean over the available is its update, over all half of it."""
    for population, expected in (("available", 3), ("full", 1.5)):
        rule = HorvitzThompson(population=population)
        assert Game(rule).round(update(0, 3), probability=[1.0, 0.0], available=[True, False]) == near(expected)


@pytest.mark.parametrize("rule", [HorvitzThompson(population="available"), Hajek(population="available")])
def test_a_late_update_has_the_probability_of_its_own_round(rule):
    """Client 1 is drawn in round 1 with p = 1/4 and is late; in round 2 it cannot be drawn, its update weighs 4.

    HT: (1 x 2 / 1 + 4 x 1) / 2 = 3. Hajek: (1 x 2 + 4 x 1) / 5 = 1.2.
    """
    game = Game(rule)
    game.round(update(0, 1), probability=[1.0, 0.25], selected=[0, 1])
    direction = game.round(update(0, 2), update(1, 1, staleness=1), probability=[1.0, 0.0], selected=[0])
    assert direction == near(3 if isinstance(rule, HorvitzThompson) else 1.2)


@pytest.mark.parametrize("rule", [HorvitzThompson(), Hajek()])
def test_rules_that_divide_by_probabilities_ask_for_them(rule):
    assert rule.needs_probability
    with pytest.raises(ConfigError, match="round 1: the selector has no inclusion probabilities"):
        Game(rule).round(update(0, 1))


def test_hajek_by_empirical_rates_needs_no_probability():
    """In round 5, 0 has taken part in 3 rounds of 4 seen and 1 in none of 1: v = (5/4, 5/1), or (5/4, 2/1) for those
    available. So (1.25 x 1 + 5 x 6) / 6.25 = 5 and (1.25 x 1 + 2 x 6) / 3.25 = 53/13."""
    for population, expected in (("full", 5.0), ("available", 53 / 13)):
        game = Game(Hajek(rate="empirical", population=population))
        assert not game.rule.needs_probability
        counts = {"available": [4, 1], "first_round": [1, 1]}
        game.ledger = replace(game.ledger, rounds=4, **{name: np.array(value) for name, value in counts.items()})
        game.state["delivered"][:] = [3, 0]
        assert game.round(update(0, 1), update(1, 6)) == near(expected)
        assert game.state["delivered"].tolist() == [4, 1]
    with pytest.raises(ConfigError, match="rate = 'guessed': choose one of estimated, empirical"):
        Hajek(rate="guessed")


def played_to(game, number):
    """Let the game's ledger be that of `number` closed rounds in which both clients were there, and 0 took part."""
    everything = np.full(2, number)
    game.ledger = replace(
        game.ledger, rounds=number, first_round=np.ones(2, dtype=np.int64), available=everything, selected=everything,
        participated=np.array([number, 0]),
    )  # fmt: skip
    game.number = number


@pytest.mark.parametrize("population", ["full", "available"])
def test_hajek_by_empirical_rates_counts_late_updates(population):
    """Client 1 is late in every round, so that its update of round t - 1 is folded in t: the ledger has no
    participation of it. In round 4 its third comes, weighing 4/3 beside 4/4: (4/3 x 6 + 1) / (7/3) = 27/7."""
    game = Game(Hajek(rate="empirical", population=population))
    for number in range(1, 5):
        played_to(game, number - 1)
        late = [update(1, 6, staleness=1)] if number > 1 else []
        direction = game.round(*late, update(0, 1), selected=[0, 1])
    assert direction == near(27 / 7)
    assert game.state["delivered"].tolist() == [4, 3]


def test_hajek_by_empirical_rates_counts_every_update():
    """Client 1 is late in odd rounds and on time in even ones, when two of it come. In round 2 they weigh 2/1 and 2/2
    beside 2/2: (2 x 6 + 1 + 6) / 4 = 4.75. In round 4, 4/3 and 4/4: (8 + 1 + 6) / (10/3) = 4.5."""
    game = Game(Hajek(rate="empirical"))
    for number, expected in ((1, 1), (2, 4.75), (3, 1), (4, 4.5)):
        played_to(game, number - 1)
        both = number % 2 == 0
        late, fresh = ([update(1, 6, staleness=1)], [update(1, 6)]) if both else ([], [])
        assert game.round(*late, update(0, 1), *fresh, selected=[0, 1]) == near(expected)
    assert game.state["delivered"].tolist() == [4, 4]


def test_hajek_by_empirical_rates_counts_the_rounds_in_which_a_client_was_there():
    """Client 1 was seen in round 1, was late, and is away in round 2: one update in one round seen, or in two."""
    for population, expected in (("available", 3.5), ("full", 13 / 3)):
        game = Game(Hajek(rate="empirical", population=population))
        game.round(update(0, 1), selected=[0, 1])
        played_to(game, 1)
        late = update(1, 6, staleness=1)
        assert game.round(late, update(0, 1), selected=[0], available=[True, False]) == near(expected)


def test_fedau_by_hand():
    """Client 1 comes in round 3 with weight 1, since no gap of its has ended; then its gap was 3, so it weighs 3.

    In round 4: (1/2) (1 x 1 + 3 x 2) = 3.5. Then its mean gap is (3 + 1) / 2 = 2.
    """
    game = Game(FedAU())
    for _ in range(2):
        assert game.round(update(0, 1)) == near(0.5)
    assert game.round(update(0, 1), update(1, 2)) == near(1.5)
    assert game.round(update(0, 1), update(1, 2)) == near(3.5)
    assert game.state["omega"] == near(1, 2)


def test_fedau_cuts_gaps():
    """K = 2: after four rounds without it client 1 has had two gaps of 2."""
    game = Game(FedAU(cutoff=2))
    for _ in range(4):
        game.round(update(0, 1))
    assert game.state["omega"] == near(1, 2)
    assert list(game.state["gaps"]) == [4, 2]


def test_fedau_counts_every_update():
    """Client 1 is late in odd rounds and on time in even ones: two of its updates every second round are one a round.

    Round 2: (1/2) (1 + 2 + 2) = 2.5, and the gap of 2 is that of two updates, so that its mean stays 1. So does it
    when both gaps are ended: in round 4 the direction is the same.
    """
    game = Game(FedAU())
    for number in range(1, 5):
        both = [update(1, 2, staleness=1), update(0, 1), update(1, 2)]
        assert game.round(*(both if number % 2 == 0 else [update(0, 1)])) == near(2.5 if number % 2 == 0 else 0.5)
    assert game.state["omega"] == near(1, 1)
    assert list(game.state["gaps"]) == [4, 4]


def test_fedau_averages_what_it_knew_with_what_two_updates_bring():
    """Client 1 alone in round 3, so omega = 3; then two updates in round 5, a gap of 2: (3 + 2) / 3."""
    game = Game(FedAU())
    for updates in ([], [], [update(1, 1)], [], [update(1, 1, staleness=1), update(1, 1)]):
        game.round(*updates)
    assert game.state["omega"][1] == pytest.approx(5 / 3)


def test_fedau_counts_empty_rounds():
    game = Game(FedAU())
    assert game.round() is None
    game.round(update(0, 1))
    assert game.state["omega"][0] == 2


def test_a_late_update_when_nobody_is_there():
    """It stands for itself: (N / m) x 4 / 1."""
    game, nobody = Game(HorvitzThompson(population="available")), [False, False]
    assert game.round(update(0, 4, staleness=1), probability=[0.0, 0.0], available=nobody, selected=[]) == near(8)


def test_a_late_update_from_before_the_first_round_has_equal_chances():
    """N / m = 4 / 2: (1/4) 2 x 4."""
    game = Game(HorvitzThompson(population="available"), 4, 2)
    assert game.round(update(0, 4, staleness=1), probability=[0.5] * 4, selected=[]) == near(2)


# Clients that go on from their own model.


def test_fedawe_by_hand():
    """server_lr = .5. Round 1, client 0 sends 1: x = 0 + .5 (1) 1 = .5 = w.

    Round 2, client 1 goes on from the initial 0 and sends 2, having missed two rounds: x = .5 (2) 2 = 2 = w.
    Round 3, client 0 goes on from .5 and sends -1 after two rounds, client 1 from 2 and sends 0:
    x = .5 - .5 (2) 1 = -.5 and 2, so w = .75.
    """
    game = Game(FedAwe(server_lr=0.5))

    def after(direction):
        game.weights = game.weights + np.float32(0.5) * direction
        return game.weights

    def start(client):
        return game.rule.start(game.state, client, game.weights)

    assert start(0) == near(0)
    assert after(game.round(update(0, 1))) == near(0.5)
    assert start(1) == near(0)
    assert after(game.round(update(1, 2))) == near(2)
    assert start(0) == near(0.5)
    assert after(game.round(update(0, -1), update(1, 0))) == near(0.75)
    assert start(0) == near(0.75)


def test_fedawe_counts_a_late_update_to_its_own_round():
    """Asked in round 1, folded in round 2: it missed one round, not two."""
    game = Game(FedAwe())
    assert game.round() is None
    assert game.round(update(1, 1, staleness=1)) == near(1)


# Fairness by losses.


@pytest.mark.parametrize(
    ("before", "train", "expected"),
    [(2.0, 5.0, 2.0), (np.nan, 5.0, 5.0), (np.nan, np.nan, 0.0), (np.inf, 3.0, 3.0), (-1.0, 3.0, 0.0), (1e9, 1.0, 1e3)],
)
def test_the_loss_that_a_client_reports(before, train, expected):
    assert loss_before(update(0, 1, loss=train, before=before)) == expected


@pytest.mark.parametrize("lipschitz", [None, 0.1, 1.0, 50.0, 1e-30, 1e30])
def test_q_zero_is_the_mean_for_any_lipschitz_constant(lipschitz):
    """P12: (1 + 4) / 2."""
    rule = QFedAvg(q=0.0, lipschitz=lipschitz)
    assert Game(rule).round(update(0, 1, before=0.5), update(1, 4, before=9.0)) == near(2.5)


def test_q_fedavg_by_hand():
    """q = 1, L = 2, updates 1 and 2, losses 1 and 3: D = 2 x 1 + 6 x 2 = 14; h = (4 + 2) + (16 + 6) = 28."""
    rule = QFedAvg(q=1.0, lipschitz=2.0)
    assert Game(rule).round(update(0, 1, before=1.0), update(1, 2, before=3.0)) == near(0.5)


def test_q_fedavg_scales_by_local_training():
    """lr = .1, 5 epochs: L = 2, as in the case before."""
    assert Game(QFedAvg(q=1.0)).round(update(0, 1, before=1.0), update(1, 2, before=3.0)) == near(0.5)


def test_q_fedavg_divides_by_the_exact_square():
    """q = 1, L = 1, a loss of 1: the update is divided by its squared norm plus 1. Of 20,000 numbers of 1/3 float32
    would add that up with an error."""
    delta = np.full(20_000, 1 / 3, dtype=np.float32)
    direction = Game(QFedAvg(lipschitz=1.0), size=20_000).round(update(0, *delta, before=1.0))
    square = 20_000 * float(delta[0]) ** 2
    np.testing.assert_array_equal(direction, delta / np.float32(square + 1))


def test_afl_by_hand():
    """gamma = .2, losses 1 and 3: (.5 + .2, .5 + .6) less .4 is (.3, .7); then (.3 x 1 + .7 x 3) / 1 = 2.4."""
    game = Game(Afl(gamma=0.2))
    assert game.round(update(0, 1, before=1.0), update(1, 3, before=3.0)) == near(2)
    assert game.state["mixture"] == near(0.3, 0.7)
    assert game.round(update(0, 1, before=0.0), update(1, 3, before=0.0)) == near(2.4)
    assert game.step.client_weight == near(0.3, 0.7)


def test_afl_has_nothing_to_say_where_all_weight_is_elsewhere():
    """gamma = 1: after a loss of 5 client 0 has all the weight, so client 1 alone moves nothing."""
    game = Game(Afl(gamma=1.0))
    game.round(update(0, 1, before=5.0))
    assert game.state["mixture"] == near(1, 0)
    assert game.round(update(1, 1, before=0.0)) is None


@given(hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(-5, 5)))
def test_projection_on_the_simplex(point):
    """It lies on the simplex, is idempotent, and no vertex is nearer to the point."""
    projected = project_on_simplex(point)
    assert projected.min() >= 0
    assert projected.sum() == pytest.approx(1)
    np.testing.assert_allclose(project_on_simplex(projected), projected, atol=1e-12)
    nearest = np.sum((projected - point) ** 2)
    assert all(nearest <= np.sum((vertex - point) ** 2) + 1e-9 for vertex in np.eye(len(point)))


def test_projection_of_coordinates_that_hide_a_sum_of_one():
    """Beside 1e17 a float knows no 1."""
    assert project_on_simplex(np.array([0.5 + 1e17, 0.5, 0.25])).tolist() == [1, 0, 0]


def test_fedfv_by_hand():
    """(1, 0) of loss 2 stays, (-1, 1) of loss 1 loses its component along it: (0, 1). The mean is (.5, .5).

    That conflicts with neither original; the mean of these, (0, .5), has norm .5, so (.5, .5) becomes .5 / sqrt 2 each.
    """
    game = Game(FedFV(), size=2)
    direction = game.round(update(0, 1, 0, before=2.0), update(1, -1, 1, before=1.0))
    assert direction == near(0.5 / 2**0.5, 0.5 / 2**0.5)


def test_fedfv_projects_along_the_originals_in_order_of_loss():
    """Ascending losses: a = (1, 0), b = (-1, 1), c = (0, -2), which stays (alpha .1 of 3 is 1).

    a against b (dot -1, ||b||² = 2): (1, 0) + (-1, 1) / 2 = (.5, .5); against c (-1, 4): less (0, .5) is (.5, 0).
    b against a (-1, 1): (-1, 1) + (1, 0) = (0, 1); against c (-2, 4): (0, 1) + (0, -1) = 0. The mean is (.5, -2) / 3.
    tau = 0 looks no further; the mean of the originals, (0, -1) / 3, has norm 1/3.
    """
    game = Game(FedFV(tau=0), num_clients=3, size=2)
    direction = game.round(update(0, 0, -2, before=3.0), update(1, -1, 1, before=2.0), update(2, 1, 0, before=1.0))
    mean = np.array([0.5, -2.0])
    assert direction == near(*(mean / np.linalg.norm(mean) / 3))


def test_fedfv_keeps_as_many_as_the_published_code():
    """alpha .4 of three: the first ceil(2 x .6) = 2 are projected, and lose all; (0, 1) stays. Mean and norm: 1/3."""
    updates = [update(0, 1, 0, before=1.0), update(1, -1, 0, before=2.0), update(2, 0, 1, before=3.0)]
    assert Game(FedFV(alpha=0.4, tau=0), 3, size=2).round(*updates) == near(0, 1 / 3)


def test_fedfv_never_projects_an_update_along_itself():
    """Ascending losses: a = (-2, 1), b = (-3, -1), g = (1, 0); alpha 0 projects all three.

    a and b lose their component along g: (0, 1) and (0, -1). g against a (dot -2, ||a||² = 5): (.2, .4); against b
    (-1, 10): (-.1, .3), which now points against g and stays. The mean is (-.1, .3) / 3; that of the originals has the
    norm 4/3.
    """
    updates = [update(0, -2, 1, before=1.0), update(1, -3, -1, before=2.0), update(2, 1, 0, before=3.0)]
    mean = np.array([-0.1, 0.3])
    assert Game(FedFV(alpha=0.0, tau=0), 3, size=2).round(*updates) == near(*(mean / np.linalg.norm(mean) * 4 / 3))


def test_fedfv_keeps_all_at_alpha_one():
    """No update is projected; the mean (0, .5) does not conflict with (1, 0), nor with (-1, 1)."""
    assert Game(FedFV(alpha=1.0), size=2).round(update(0, 1, 0), update(1, -1, 1)) == near(0, 0.5)


def test_fedfv_minds_those_of_the_round_before():
    """tau = 2: client 1 sent (-1, 0) a round ago; (1, 1) conflicts and becomes (0, 1), scaled to sqrt 2."""
    game = Game(FedFV(tau=2), size=2)
    game.round(update(1, -1, 0))
    assert game.round(update(0, 1, 1)) == near(0, 2**0.5)


def test_fedfv_without_conflict_is_the_mean():
    assert Game(FedFV(), size=2).round(update(0, 1, 0), update(1, 1, 2)) == near(1, 1)


@pytest.mark.parametrize("short", [1e-30, 1e-22])
def test_fedfv_leaves_what_conflicts_with_next_to_nothing(short):
    """The square of 1e-30 is 0 in float32, and that of 1e-22 has lost its digits: no direction to take a part of."""
    game = Game(FedFV(), size=1)
    assert game.round(update(0, -1, before=1.0), update(1, short, before=2.0)) == near(-0.5)


def test_fedfv_of_opposites_is_finite():
    """The mean of (1, 0) and (-1, 0) is 0, and so is the direction."""
    assert Game(FedFV(), size=2).round(update(0, 1, 0), update(1, -1, 0)) == near(0, 0)


def test_fedfv_minds_the_round_before_in_any_round():
    game = Game(FedFV(tau=2), size=2)
    game.round()
    game.round(update(1, -1, 0))
    assert game.round(update(0, 1, 1)) == near(0, 2**0.5)


def test_fedfv_minds_only_what_conflicts():
    """alpha 1: the mean (.25, .125) conflicts with (-.5, 0), not with (1, .25): (0, .125), scaled to its norm."""
    game = Game(FedFV(alpha=1.0), size=2)
    assert game.round(update(0, -0.5, 0), update(1, 1, 0.25)) == near(0, 5**0.5 / 8)
    assert list(game.state) == ["last"]


def test_fedfv_projects_no_more_updates_than_the_share_says():
    """(-1, 0) and 20 times (1, 1), alpha .95: of the 20 x .05 that are projected, which floating point makes a little
    more than 1, the first becomes (-.5, .5). The sum is (19.5, 20.5)."""
    game = Game(FedFV(alpha=0.95, tau=0), 21, size=2)
    first, second = game.round(update(0, -1, 0, before=0.0), *[update(k, 1, 1, before=1.0) for k in range(1, 21)])
    assert first / second == pytest.approx(19.5 / 20.5)


def test_q_fedavg_of_a_loss_of_nothing():
    """q = 1/2, L = 2, F = 1e-10: D = 1e-5 x 2, h = .5 x 1e5 x 4 + 2e-5 = 200,000."""
    direction = Game(QFedAvg(q=0.5, lipschitz=2.0)).round(update(0, 1, before=0.0))
    assert direction[0] == pytest.approx(1e-10, rel=1e-4)


def test_afl_begins_with_equal_shares():
    game = Game(Afl(), 4)
    game.round(update(0, 1), update(2, 1))
    np.testing.assert_array_equal(game.step.client_weight, [0.25, nan, 0.25, nan])


# Robustness.


def test_trimmed_mean_by_hand():
    """Of 1, 2, 3, 4 and something huge the ends go: (2 + 3 + 4) / 3, in each coordinate by itself."""
    updates = [update(0, 1, HOSTILE), update(1, 2, 1), update(2, 3, 2), update(3, 4, 3), update(4, HOSTILE, 4)]
    assert Game(TrimmedMean(trim=0.2), 5, size=2).round(*updates) == near(3, 3)


@pytest.mark.parametrize(("count", "expected"), [(1, 1.0), (2, 2.5), (3, 4.0), (4, 6.5)])
def test_trimmed_mean_leaves_somebody(count, expected):
    """Of the squares of 1, 2, ..., at trim .45: min(ceil(.45 n), (n - 1) / 2) go at each end, which is 0, 0, 1, 1."""
    updates = [update(k, (k + 1) ** 2) for k in range(count)]
    assert Game(TrimmedMean(trim=0.45), count).round(*updates) == near(expected)


def test_median_by_hand():
    """Of 1, 2 and something huge: 2. Of 1 and 2: 1.5."""
    assert Game(Median(), 3).round(update(0, 1), update(1, HOSTILE), update(2, 2)) == near(2)
    assert Game(Median(), 3).round(update(0, 1), update(1, 2)) == near(1.5)


def test_krum_by_hand():
    """0, 1, 1.5, 4 and something huge, two neighbours: 1 + 2.25, 1 + .25, 2.25 + .25, 9 + 6.25: the second wins."""
    updates = [update(0, 0), update(1, 1), update(2, 1.5), update(3, 4), update(4, HOSTILE)]
    assert Game(Krum(), 5).round(*updates) == near(1)
    assert Game(Krum(keep=2), 5).round(*updates) == near(1.25)
    assert Game(Krum(keep=4), 5).round(*updates) == near(6.5 / 4)


def test_krum_tells_distances_apart_that_float32_does_not():
    """Two pairs, 4096² + 1 and 4096² apart, are as close in float32; then the second of these would win, as the one
    that is nearest to all others. The closer pair is the other one."""
    updates = [update(0, 0, 0), update(1, 4096, 1), update(2, 1e5, 0), update(3, 1e5, 4096)]
    assert Game(Krum(), 4, size=2).round(*updates) == near(1e5, 0)


DIRECTIONS = """
import numpy as np
from hashlib import sha256
from test_aggregation_rules import FedFV, Game, Krum, QFedAvg, update
rows = np.random.default_rng(0).normal(size=(4, 30_000)).astype(np.float32)
for rule in (QFedAvg(), FedFV(), Krum()):
    updates = [update(k, *row, before=k + 1.0) for k, row in enumerate(rows)]
    print(sha256(Game(rule, 4, size=30_000).round(*updates).tobytes()).hexdigest())
"""


def test_directions_do_not_depend_on_the_number_of_threads():
    """OpenBLAS shares a dot product of more than 10,000 numbers out among its threads, on some processors."""
    found = set()
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", DIRECTIONS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_krum_of_few():
    """One update is itself; of two the first; of 0, 3 and 4 with one neighbour 3 and 4 tie, and 3 is nearer to all."""
    assert Game(Krum(), 3).round(update(1, 7)) == near(7)
    assert Game(Krum(), 3).round(update(0, 1), update(1, 7)) == near(1)
    assert Game(Krum(), 3).round(update(0, 0), update(1, 4), update(2, 3)) == near(3)


@pytest.mark.parametrize("rule", [TrimmedMean(trim=0.2), Median(), Krum()], ids=lambda rule: type(rule).__name__)
@given(hostile=st.floats(-1e6, 1e6, width=32), position=st.integers(0, 4))
def test_one_hostile_update_stays_within_the_honest_ones(rule, hostile, position):
    values = [1.0, 2.0, 3.0, 4.0]
    values.insert(position, hostile)
    direction = Game(rule, 5).round(*(update(k, value) for k, value in enumerate(values)))
    assert 1 <= direction[0] <= 4


@pytest.mark.parametrize(("trim", "count", "cut"), [(0.28, 25, 7), (0.07, 100, 7), (0.14, 50, 7), (0.1, 25, 3)])
def test_trimmed_mean_leaves_out_as_many_as_the_product_says(trim, count, cut):
    """.28 x 25 is 7, though a little more in floating point. The value at the cut is in the mean if that is so."""
    values = [0.0] * cut + [1.0] + [0.0] * (count - cut - 1)
    updates = [update(k, value if k == cut else (-1.0 if k < cut else 2.0)) for k, value in enumerate(values)]
    direction = Game(TrimmedMean(trim=trim), count).round(*updates)
    kept = count - 2 * cut
    assert direction == near((1 + 2 * (kept - 1)) / kept)


# Who is registered.


@pytest.mark.parametrize(
    "rule", [FedAU(), FedVarp(), HorvitzThompson(clip=100.0)], ids=lambda rule: type(rule).__name__
)
def test_a_mean_over_all_is_over_those_that_have_registered(rule):
    """There is room for twenty devices, three came: their mean is 2, not 3 / 20 of it."""
    room, here = Game(rule, 20), [k < 3 for k in range(20)]
    for _ in range(2):
        updates = [update(k, 2.0) for k in range(3)]
        direction = room.round(*updates, registered=here, available=here, probability=[float(k) for k in here])
    assert direction == near(2)


def test_fedau_counts_no_gap_before_a_client_registers():
    """Client 1 registers in round 3 and takes part in rounds 4 and 5: its gap was 2, so in round 5 it weighs 2.

    (1/2) (1 x 1 + 2 x 2) = 2.5. After a restart it counts as registered all the same: the gap of round 6 goes on.
    """
    game = Game(FedAU(cutoff=3))
    for _ in range(2):
        assert game.round(update(0, 1), registered=[True, False]) == near(1)
    assert game.round(update(0, 1)) == near(0.5)
    assert game.round(update(0, 1), update(1, 2)) == near(1.5)
    assert game.round(update(0, 1), update(1, 2)) == near(2.5)
    game.ledger = replace(game.ledger, first_round=np.array([1, 3]))
    game.round(update(0, 1), registered=[True, False])
    assert list(game.state["gap"]) == [0, 1]


def test_fedawe_counts_no_round_before_a_client_registers():
    """Client 1 registers in round 3 and takes part in round 4, at w = 3: it goes on from 3, having missed two rounds.

    It sends 1: x = 3 + 2 x 1 = 5 = w. After two more rounds it goes on from 5: x = 5 + 2 x 1.
    """
    game = Game(FedAwe())

    def played(*updates, registered=(True, True)):
        direction = game.round(*updates, registered=registered)
        game.weights = game.weights + (0 if direction is None else direction)
        return game.weights

    for number in (1, 2):
        assert played(update(0, 1), registered=(True, False)) == near(number)
    assert played(update(0, 1)) == near(3)
    assert game.rule.start(game.state, 1, game.weights) == near(3)
    assert played(update(1, 1)) == near(5)
    played()
    assert played(update(1, 1)) == near(7)


# What no update may bring about: numbers that are not finite.


def test_surrogate_with_an_infinite_decay_is_the_mean_of_who_came():
    """Older updates weigh nothing, and this round's 1."""
    game = Game(Surrogate(decay=float("inf")))
    assert game.round(update(0, 2.0), update(1, 4.0)) == near(3)
    assert game.round(update(1, 8.0)) == near(8)
    assert game.round(update(0, 6.0, staleness=1)) is None
    assert game.round(update(0, 6.0)) == near(6)


def test_surrogate_stays_where_nothing_weighs():
    """exp(-800) is 0 in floating point."""
    assert Game(Surrogate(decay=800.0)).round(update(0, 2.0, staleness=1)) is None


@pytest.mark.parametrize(("q", "loss"), [(5.0, 0.0), (10.0, 1e-6)])
def test_q_fedavg_stays_where_there_is_no_loss(q, loss):
    """A loss of nearly 0 to the power of q is 0 in float32, and 0 / 0 is no step."""
    assert Game(QFedAvg(q=q)).round(update(0, 0.1, before=loss)) is None


# Keys.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mifa(need=-1.0), r"aggregator\.need = -1 must be from 0 to 10"),
        (lambda: Mifa(server_lr=float("inf")), r"aggregator\.server_lr = inf must be from 1e-30 to 1e\+30"),
        (lambda: Afl(gamma=float("inf")), r"aggregator\.gamma = inf must be at least 0 and finite"),
        (lambda: Mifa(need_memory=1.0), r"aggregator\.need_memory = 1 must be at least 0 and below 1"),
        (lambda: Mifa(need_clip=0.0), r"aggregator\.need_clip = 0 must be above"),
        (lambda: HorvitzThompson(clip=0.0), r"aggregator\.clip = 0"),
        (lambda: FedAU(cutoff=0), r"aggregator\.cutoff = 0"),
        (lambda: Surrogate(decay=-0.1), r"aggregator\.decay = -0\.1"),
        (lambda: Surrogate(eta0=0.0), r"aggregator\.eta0 = 0"),
        (lambda: Surrogate(eta0=1e300), r"aggregator\.eta0 = 1e\+300"),
        (lambda: Mifa(server_lr=1e39), r"aggregator\.server_lr = 1e\+39"),
        (lambda: QFedAvg(q=-1.0), r"aggregator\.q = -1"),
        (lambda: QFedAvg(q=11.0), r"aggregator\.q = 11 must be from 0 to 10"),
        (lambda: QFedAvg(lipschitz=0.0), r"aggregator\.lipschitz = 0"),
        (lambda: Afl(gamma=-1.0), r"aggregator\.gamma = -1"),
        (lambda: FedFV(alpha=1.5), r"aggregator\.alpha = 1\.5"),
        (lambda: FedFV(tau=-1), r"aggregator\.tau = -1"),
        (lambda: TrimmedMean(trim=0.5), r"aggregator\.trim = 0\.5"),
        (lambda: Krum(hostile=-1), r"aggregator\.hostile = -1"),
        (lambda: Krum(keep=0), r"aggregator\.keep = 0"),
        (lambda: FedAvg(server_lr=float("nan")), r"aggregator\.server_lr = nan"),
    ],
)
def test_refuses_bad_keys(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
