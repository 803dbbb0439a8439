"""Exact cases and invariants of the synthetic availability models."""

from dataclasses import replace
from math import asin, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parityfl.core.availability import (
    Bernoulli,
    Copula,
    Diurnal,
    GilbertElliott,
    Groups,
    LabelCorrelated,
    Mixture,
    SelfCheck,
    SizeCorrelated,
    Trace,
    availability,
    describe_check,
    self_check,
)
from parityfl.core.availability.coins import KeptCoins, slot_at
from parityfl.core.errors import ConfigError
from parityfl.core.types import World

INTERVAL = 600.0


def world(num_clients, seed=0, num_samples=None, label_counts=None):
    sizes = np.full(num_clients, 100) if num_samples is None else np.asarray(num_samples)
    labels = np.zeros((num_clients, 0), dtype=np.int64) if label_counts is None else np.asarray(label_counts)
    return World(seed, num_clients, 2, INTERVAL, sizes, labels)


def walk(process, slots):
    return np.array([process.available(slot * INTERVAL) for slot in range(slots)])


def standard_errors(frequency, probability, count):
    return abs(frequency - probability) / np.sqrt(probability * (1 - probability) / count)


@given(st.integers(0, 10**6), st.floats(1e-3, 1e5))
def test_a_time_belongs_to_the_slot_that_holds_it(slot, interval_s):
    assert slot_at(slot * interval_s, interval_s) == slot
    assert slot_at((slot + 0.5) * interval_s, interval_s) == slot


def test_summed_times_belong_to_their_slots():
    """Ten times 0.1 is 0.9999999999999999 in floating point, and round 11 all the same."""
    assert slot_at(sum([0.1] * 10), 0.1) == 10


def test_kept_coins_by_hand():
    """With renewal 0.5: slot 0 throws 0.8; 0.6 keeps it; 0.2 renews as 0.2 / 0.5 = 0.4; 0.7 keeps that."""
    thrown = [0.8, 0.6, 0.2, 0.7]
    coins = KeptCoins(lambda slot: np.array([thrown[slot]]), np.array([0.5]))
    assert [coins(slot)[0] for slot in (3, 0, 2, 1)] == [0.4, 0.8, 0.4, 0.8]


@given(st.lists(st.integers(0, 80), max_size=12), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_gilbert_elliott_does_not_depend_on_the_order_of_calls(slots, seed):
    model, population = GilbertElliott(mean_on_rounds=20), world(5, seed)
    forward = walk(model.bind(population), 81)
    process = model.bind(population)
    for slot in slots:
        assert np.array_equal(process.available(slot * INTERVAL), forward[slot])


def test_gilbert_elliott_leaves_and_returns_at_its_rates():
    """pi = 0.25, mean on-run 5: P(on -> off) = 1/5, P(off -> on) = (1/5) 0.25 / 0.75 = 1/15, correlation 11/15."""
    states = walk(GilbertElliott(pi=0.25, mean_on_rounds=5).bind(world(2000)), 60)
    before, after = states[:-1], states[1:]
    assert standard_errors(np.mean(~after[before]), 1 / 5, before.sum()) < 5
    assert standard_errors(np.mean(after[~before]), 1 / 15, (~before).sum()) < 5
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] == pytest.approx(11 / 15, abs=0.01)


def test_stability_is_the_lag_one_correlation():
    states = walk(GilbertElliott(pi=0.4, stability=0.6).bind(world(2000)), 60)
    assert np.corrcoef(states[:-1].ravel(), states[1:].ravel())[0, 1] == pytest.approx(0.6, abs=0.01)


def test_stability_and_mean_on_agree():
    """pi = 0.5 with mean on-run 4 has a + b = (1/4) / 0.5 = 0.5, which is stability 0.5."""
    population = world(50)
    runs = walk(GilbertElliott(pi=0.5, mean_on_rounds=4).bind(population), 30)
    assert np.array_equal(runs, walk(GilbertElliott(pi=0.5, stability=0.5).bind(population), 30))


def test_mean_on_is_raised_where_the_chain_could_not_have_it():
    """pi = 0.9 cannot have on-runs shorter than 1 / (1 - 0.9) = 10: with 2 it is coins, with 11 it is not."""
    population = world(50)
    coins = walk(Bernoulli(pi=0.9).bind(population), 30)
    assert np.array_equal(walk(GilbertElliott(pi=0.9, mean_on_rounds=2).bind(population), 30), coins)
    assert not np.array_equal(walk(GilbertElliott(pi=0.9, mean_on_rounds=11).bind(population), 30), coins)


def test_members_of_a_group_share_one_coin_and_groups_do_not():
    states = walk(Groups(pi=0.5, groups=[[0, 1], [2, 3], [4]]).bind(world(6)), 200)
    assert np.array_equal(states[:, 0], states[:, 1])
    assert np.array_equal(states[:, 2], states[:, 3])
    distinct = [tuple(column) for column in states[:, [0, 2, 4, 5]].T]
    assert len(set(distinct)) == 4


def test_a_group_draws_one_value_from_a_distribution():
    values = Groups(groups=[[3, 1], [0, 2]]).bind(world(5)).probability(0.0)
    alone = Bernoulli().bind(world(5)).probability(0.0)
    assert values.tolist() == alone[[0, 1, 0, 1, 4]].tolist()


def test_the_correlation_of_members_is_the_key():
    states = walk(Groups(pi=0.3, groups=[[0, 1, 2]], correlation=0.5).bind(world(4)), 6000)
    measured = np.corrcoef(states.T)
    assert measured[np.triu_indices(3, 1)] == pytest.approx(0.5, abs=0.07)
    assert measured[3, :3] == pytest.approx(0.0, abs=0.07)


@pytest.mark.parametrize("correlation", [1.0, 0.5])
def test_a_group_that_keeps_its_coins_comes_and_goes_together(correlation):
    """Stability is each client's lag-1 autocorrelation, and leaves pi and the members' correlation as they are."""
    groups = [[3 * group, 3 * group + 1, 3 * group + 2] for group in range(500)]
    model = Groups(pi=0.3, groups=groups, correlation=correlation, stability=0.8)
    states = walk(model.bind(world(1500)), 60)
    assert np.corrcoef(states[:-1].ravel(), states[1:].ravel())[0, 1] == pytest.approx(0.8, abs=0.02)
    members = states.T.reshape(500, 3, 60)
    assert np.corrcoef(members[:, 0].ravel(), members[:, 1].ravel())[0, 1] == pytest.approx(correlation, abs=0.05)
    assert states.mean() == pytest.approx(0.3, abs=0.02)
    process = model.bind(world(1500))
    assert all(np.array_equal(process.available(slot * INTERVAL), states[slot]) for slot in (40, 3, 59, 0))


def test_diurnal_by_hand():
    """pi = 0.3, amplitude 1: 0.3 + 0.3 cos. At the peak, 21 h, 0.6; at 9 h, 0; at 3 h and 15 h, 0.3."""
    process = Diurnal(pi=0.3, amplitude=1.0).bind(world(1))
    hours = [process.probability(hour * 3600.0)[0] for hour in (21, 9, 3, 15)]
    assert hours == pytest.approx([0.6, 0.0, 0.3, 0.3])


def test_diurnal_swings_no_further_than_its_mean_allows():
    """pi = 0.9, amplitude 1: the room is 0.1, so between 0.8 and 1."""
    process = Diurnal(pi=0.9, amplitude=1.0).bind(world(1))
    assert process.probability(21 * 3600.0)[0] == pytest.approx(1.0)
    assert process.probability(9 * 3600.0)[0] == pytest.approx(0.8)


def test_diurnal_hours_of_start_and_zones():
    """A start at 21 h is the peak of zone 0; 24 zones have their peaks in 24 different hours."""
    assert Diurnal(pi=0.3, amplitude=1.0, start_h=21).bind(world(1)).probability(0.0)[0] == pytest.approx(0.6)
    process = Diurnal(pi=0.3, amplitude=1.0, time_zones=24).bind(world(200))
    day = np.array([process.probability(hour * 3600.0) for hour in range(24)])
    assert day.max(axis=0) == pytest.approx(0.6)
    assert set(day.argmax(axis=0)) == set(range(24))


@pytest.mark.parametrize(
    "model", [Diurnal(time_zones=3), LabelCorrelated(amplitude=1.0)], ids=["diurnal", "label-correlated"]
)
def test_the_mean_over_a_day_is_pi(model):
    counts = np.arange(24).reshape(6, 4)
    process = model.bind(world(6, label_counts=counts))
    day = np.mean([process.probability(slot * INTERVAL) for slot in range(144)], axis=0)
    assert day == pytest.approx(Bernoulli().bind(world(6)).probability(0.0))


def test_label_correlated_by_hand():
    """Two labels have the hours 0 and 12. pi = 0.4, amplitude 0.5: a swing of 0.2.

    Client 0 holds label 0: 0.6 at 0 h, 0.2 at 12 h. Client 1 holds label 1: the reverse. Client 2 holds both alike:
    0.4 always. Client 3 holds 3 to 1: 0.4 +- 0.2 (3/4 - 1/4) = 0.4 +- 0.1. Client 4 holds nothing: 0.4.
    """
    counts = [[5, 0], [0, 7], [2, 2], [3, 1], [0, 0]]
    process = LabelCorrelated(pi=0.4, amplitude=0.5).bind(world(5, label_counts=counts))
    assert process.probability(0.0) == pytest.approx([0.6, 0.2, 0.4, 0.5, 0.4])
    assert process.probability(12 * 3600.0) == pytest.approx([0.2, 0.6, 0.4, 0.3, 0.4])


def test_rare_labels_get_the_smallest_values():
    """Mean labels 2, 0 and 0.5 take 0.9, 0.1 and 0.5, whatever order these came in."""
    counts = [[0, 0, 4], [4, 0, 0], [2, 2, 0]]
    model = LabelCorrelated(pi=[0.5, 0.9, 0.1], amplitude=0.0, rare_labels=True)
    assert model.bind(world(3, label_counts=counts)).probability(0.0).tolist() == [0.9, 0.1, 0.5]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.sampled_from(["increasing", "decreasing"]))
@settings(deadline=None)
def test_size_correlated_is_monotone_and_keeps_the_values(sizes, direction):
    population = world(len(sizes), num_samples=sizes)
    values = SizeCorrelated(direction=direction).bind(population).probability(0.0)
    assert sorted(values) == sorted(Bernoulli().bind(population).probability(0.0))
    sign = 1 if direction == "increasing" else -1
    for i, larger in enumerate(sizes):
        for j, smaller in enumerate(sizes):
            assert larger <= smaller or sign * (values[i] - values[j]) >= 0


def test_copula_with_full_loading_is_one_shock():
    """z is the same for all: who has the smaller pi is only there when the others are; an opposite loading mirrors."""
    states = walk(Copula(pi=[0.2, 0.5, 0.8, 0.5], factor=[1, 1, 1, -1]).bind(world(4)), 300)
    assert not np.any(states[:, 0] & ~states[:, 1])
    assert not np.any(states[:, 1] & ~states[:, 2])
    assert np.array_equal(states[:, 3], ~states[:, 1])


@pytest.mark.parametrize(
    "keys", [{"factor": [0.8, 0.5]}, {"correlation": [[1.0, 0.4], [0.4, 1.0]]}], ids=["factor", "matrix"]
)
def test_copula_joint_probability(keys):
    """Both z below 0 with correlation 0.8 x 0.5 = 0.4: 1/4 + asin(0.4) / (2 pi) = 0.3155."""
    states = walk(Copula(pi=0.5, **keys).bind(world(2)), 4000)
    both = np.mean(states.all(axis=1))
    assert standard_errors(both, 0.25 + asin(0.4) / (2 * pi), 4000) < 5


def test_a_singular_correlation_matrix_is_one():
    states = walk(Copula(pi=0.5, correlation=[[1.0, 1.0], [1.0, 1.0]]).bind(world(2)), 100)
    assert np.array_equal(states[:, 0], states[:, 1])


def test_mixture_counts_by_largest_remainder():
    """5 clients, shares 5 : 3 : 2: 2.5, 1.5 and 1, so 2, 1 and 1, and the fifth to the first of the largest rests."""
    kinds = [{"name": "bernoulli", "pi": p, "share": share} for p, share in ((0.1, 5), (0.2, 3), (0.3, 2))]
    values = Mixture(kinds).bind(world(5)).probability(0.0)
    assert sorted(values) == [0.1, 0.1, 0.1, 0.2, 0.3]
    everyone = Mixture(kinds).bind(world(1000)).probability(0.0)
    assert [np.sum(everyone == p) for p in (0.1, 0.2, 0.3)] == [500, 300, 200]
    assert len(set(everyone[:20])) > 1


def test_components_of_a_mixture_do_not_share_shocks():
    twins = Mixture([{"name": "copula", "pi": 0.5, "factor": 1, "share": 1} for _ in range(2)]).bind(world(2))
    states = walk(twins, 50)
    assert not np.array_equal(states[:, 0], states[:, 1])


def test_self_check_by_hand():
    """Always and never come out exactly; a fair coin in 400 rounds within 5 standard errors of 0.025."""
    check = self_check(Bernoulli(pi=[1.0, 0.0, 0.5]).bind(world(3)), 400, INTERVAL)
    assert check.requested.tolist() == [1.0, 0.0, 0.5]
    assert check.realised[:2].tolist() == [1.0, 0.0]
    assert 0 < check.largest_gap < 0.125


class Untold:
    def available(self, time_s):
        return np.array([time_s == 0.0, True])

    def probability(self, time_s):
        return None


def test_a_truth_that_nobody_knows_is_nan():
    """In a live run there is no model, and a model of one's own need not tell."""
    for process in (None, Untold()):
        assert np.isnan(replace(world(2), availability=process).true_availability(0.0)).tolist() == [True, True]


def test_self_check_without_truth():
    check = self_check(Untold(), 4, INTERVAL)
    assert np.isnan(check.requested).all()
    assert check.realised.tolist() == [0.25, 1.0]
    assert np.isnan(check.largest_gap)


def test_self_check_in_words():
    """A process that says a half and is there in the first of four rounds only, beside one that is always there."""
    check = self_check(Untold(), 4, INTERVAL)
    assert describe_check(check, "mine", 2, ["a", "b"]) == [
        "availability mine, 4 rounds: realised 0.625 on average; nothing was requested, for the truth is not known"
    ]
    told = replace(check, requested=np.array([0.5, 1.0]))
    assert describe_check(told, "mine", 2, ["a", "b"]) == [
        "availability mine, 4 rounds: realised 0.625 on average, requested 0.750; "
        "largest gap 0.250, a (0.500 requested, 0.250 realised)"
    ]


def test_self_check_says_where_selectors_have_no_choice():
    """Two clients in the first of four rounds, then one: a round that asks one has a choice in a quarter of them."""
    check = self_check(Untold(), 4, INTERVAL)
    assert check.crowd.tolist() == [2, 1, 1, 1]
    assert describe_check(check, "mine", 1, ["a", "b"])[1:] == [
        "warning: only 25% of the rounds have more clients available than the 1 that a round selects (1.2 on average); "
        "in the others all available clients are selected, so selectors differ little: lower population.per_round to "
        "compare them"
    ]
    assert not describe_check(replace(check, crowd=np.array([2, 2, 1, 1])), "mine", 1, ["a", "b"])[1:]


def test_self_check_tells_chance_from_a_model_that_is_wrong():
    """The bound for two clients is ln(4 / .01) = 5.99 nats. A fair coin that never shows heads in n effective rounds
    surprises by n ln 2: explained at n = 8 (5.55), not at n = 9 (6.24). What has probability 0 may never happen."""
    check = SelfCheck(np.array([0.5, 0.5]), np.zeros(2), np.array([8.0, 9.0]), np.full(9, 2))
    assert check.unexplained.tolist() == [1]
    assert "warning: " in describe_check(check, "mine", 1, ["a", "b"])[1]
    assert "of b (0.500 requested, 0.000 realised), beyond" in describe_check(check, "mine", 1, ["a", "b"])[1]
    impossible = SelfCheck(np.array([0.0, 1.0, np.nan]), np.array([0.1, 1.0, 0.5]), np.ones(3), np.ones(1))
    assert impossible.unexplained.tolist() == [0]


@pytest.mark.parametrize("name", ["bernoulli", "gilbert-elliott", "diurnal", "groups", "copula", "mixture"])
def test_self_check_explains_the_shipped_models(name):
    for seed in range(5):
        check = self_check(availability.get(name)().bind(world(40, seed=seed)), 100, INTERVAL)
        assert check.unexplained.tolist() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GilbertElliott(mean_on_rounds=5, stability=0.5), "mean_on_rounds = 5 and stability = 0.5"),
        (lambda: GilbertElliott(stability=1.0), "stability = 1.0: give at least 0"),
        (lambda: GilbertElliott(mean_on_rounds=0.5).bind(world(2)), "mean_on_rounds holds 0.5"),
        (lambda: GilbertElliott(mean_on_rounds=float("inf")).bind(world(2)), "mean_on_rounds holds inf"),
        (lambda: Bernoulli(pi=1.5).bind(world(2)), r"availability.pi holds 1.5"),
        (lambda: Groups(correlation=2), "correlation = 2: give"),
        (lambda: Groups(groups=[[0, 1], [1]]), "lists client 1 twice"),
        (lambda: Groups(groups=[[0, 7]]).bind(world(3)), "names client 7: the 3 clients are 0 to 2"),
        (lambda: Groups(pi=[0.1, 0.2], groups=[[0, 1]]).bind(world(2)), "0.2 for client 1 and 0.1 for client 0"),
        (lambda: Diurnal(time_zones=0), "time_zones = 0: give"),
        (lambda: Diurnal(period_h=0), "period_h = 0: give"),
        (lambda: Diurnal(start_h=float("nan")), "start_h = nan: give"),
        (lambda: Diurnal(amplitude=2).bind(world(2)), "amplitude holds 2"),
        (lambda: LabelCorrelated().bind(world(2)), "needs the clients' labels"),
        (lambda: SizeCorrelated(direction="up"), "availability.direction = 'up': choose one of increasing, decreasing"),
        (lambda: Copula(factor=0.1, correlation=[[1.0]]), "give one of the two"),
        (lambda: Copula(factor=2).bind(world(2)), "factor holds 2"),
        (lambda: Copula(correlation=[[1.0]]).bind(world(2)), "2 rows of 2"),
        (lambda: Copula(correlation=[[1.0], [1.0]]).bind(world(2)), "2 rows of 2"),
        (lambda: LabelCorrelated(period_h=0.0), "period_h = 0"),
        (lambda: Copula(correlation=[[1.0, 0.5], [0.4, 1.0]]).bind(world(2)), "symmetric"),
        (lambda: Copula(correlation=[[1.0, 1.5], [1.5, 1.0]]).bind(world(2)), "eigenvalue -0.5"),
        (lambda: Mixture([]), "components is empty"),
        (lambda: Mixture([{"name": "bernouli", "share": 1}]), r"components\[0\]: .*did you mean 'bernoulli'"),
        (lambda: Mixture([{"name": "always", "share": 0}]), r"components\[0\].share is 0"),
        (lambda: Mixture([{"name": "always"}]), r"components\[0\].share is None"),
        (lambda: Mixture([{"name": "bernoulli", "p": 1, "share": 1}]), "unknown key 'p': there are pi"),
        (
            lambda: Mixture([{"name": "bernoulli", "pi": 2, "share": 1}]).bind(world(1)),
            r"components\[0\]: .*pi holds 2",
        ),
        (lambda: Mixture([{"name": "bernoulli", "pi": ["x"], "share": 1}]).bind(world(1)), r"components\[0\]: "),
        (lambda: Mixture([{"name": "diurnal", "start_h": "x", "share": 1}]), r"components\[0\]: "),
        (lambda: Trace(rule="charging"), "unknown availability.rule 'charging': there are charging_wifi, "),
        (lambda: Trace(max_gap_h=0), "max_gap_h = 0: give"),
        (lambda: Trace(start_s=float("inf")), "start_s = inf: give"),
        (lambda: Trace().bind(world(1)), "availability.path is empty"),
    ],
)
def test_a_wrong_key_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
