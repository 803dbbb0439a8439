"""The max-min point against hand-made and enumerated cases, and the oracle that attains it."""

from dataclasses import dataclass, replace
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulate import Known, simulate, view_of

from parityfl.core.errors import ConfigError
from parityfl.core.ledger import COMPLETED, Ledger, account
from parityfl.core.seeding import generator, uniforms
from parityfl.core.selection.maxmin import maxmin_exact, maxmin_sampled
from parityfl.core.selection.oracle_maxmin import OracleMaxMin
from parityfl.testing.selection import closed_round, small_world

TABLE_PI = np.array([0.9, 0.7, 0.5, 0.3, 0.2, 0.1])
TABLE_MU = np.array([1, 0.5, 2, 1, 0.3, 1.5])
TABLE_LEVEL = np.array([0.6499, 0.5, 0.6499, 0.6499, 0.3, 0.6499])


def test_p2_two_clients():
    """f({1,2}) = 1 - .1 * .9 = .91, w = 1; the reference formula min(1, 1 / 1) = 1 is infeasible."""
    assert maxmin_exact(np.array([0.9, 0.1]), np.ones(2), 1) == pytest.approx([0.91, 0.91])


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_p2_general_two_clients(p, q):
    """r1 = r2 = 1 - p q / (p + q)."""
    assert maxmin_exact(np.array([p, q]), np.ones(2), 1) == pytest.approx([1 - p * q / (p + q)] * 2)


def test_p3_three_equal_clients():
    """(1 - .5^3) / 1.5 = .875 / 1.5."""
    assert maxmin_exact(np.full(3, 0.5), np.ones(3), 1) == pytest.approx([0.875 / 1.5] * 3)


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1.0, 1e9])
def test_the_unit_of_utility_does_not_matter(unit):
    level = maxmin_exact(TABLE_PI, unit * TABLE_MU, 1)
    assert level / unit == pytest.approx(maxmin_exact(TABLE_PI, TABLE_MU, 1))


def test_p4_a_saturated_client():
    """{2} alone: .4 / .8 = .5 = mu_2, so it is always served; then (1 - .2 * .6 - .4) / .8 = .6 for the other."""
    assert maxmin_exact(np.array([0.8, 0.4]), np.array([1, 0.5]), 1) == pytest.approx([0.6, 0.5])


def test_theory_table():
    assert maxmin_exact(TABLE_PI, TABLE_MU, 2) == pytest.approx(TABLE_LEVEL, abs=5e-5)


def test_never_available_clients_have_no_level():
    level = maxmin_exact(np.array([0.5, 0.0, 0.5]), np.ones(3), 1)
    assert np.isnan(level[1])
    assert level[[0, 2]] == pytest.approx([0.75, 0.75])


def test_too_many_clients():
    with pytest.raises(ConfigError, match="16 clients"):
        maxmin_exact(np.full(16, 0.5), np.ones(16), 2)


def rank(pi, members, per_round):
    """E[min(m, |A and K|)] by enumeration of A."""
    total = 0.0
    for size in range(len(members) + 1):
        for there in combinations(members, size):
            away = [k for k in members if k not in there]
            total += np.prod(pi[list(there)]) * np.prod(1 - pi[away]) * min(per_round, size)
    return total


@given(
    st.lists(st.tuples(st.floats(0.05, 1), st.floats(0.1, 3)), min_size=1, max_size=5),
    st.integers(1, 4),
)
def test_the_point_is_feasible_and_every_level_is_a_bottleneck(clients, per_round):
    """y(K) <= f(K) for all K, and the clients of at most a level exhaust the capacity that they have: y(K) = f(K)."""
    pi, mu = np.array(clients).T
    level = maxmin_exact(pi, mu, per_round)
    rates = level * pi / mu
    everyone = range(len(pi))
    for members in chain.from_iterable(combinations(everyone, size) for size in everyone):
        assert rates[list(members)].sum() <= rank(pi, members, per_round) + 1e-7
    for bar in level:
        members = [k for k in everyone if level[k] <= bar + 1e-7]
        assert rates[members].sum() == pytest.approx(rank(pi, members, per_round), abs=1e-6)


def test_sampled_point_agrees_with_the_exact_one():
    draws = generator(0, "draws").random((2000, 6)) < TABLE_PI
    assert maxmin_sampled(draws, TABLE_MU, 2) == pytest.approx(TABLE_LEVEL, abs=0.03)


def test_sampled_point_knows_correlation():
    """Two clients that are always there together share one slot: (1/2, 1/2), not 1 - p q / (p + q) = 3/4."""
    there = np.array([[True, True], [False, False]])
    assert maxmin_sampled(there, np.ones(2), 1) == pytest.approx([0.5, 0.5], abs=0.01)
    assert np.isnan(maxmin_sampled(np.array([[True, False]]), np.ones(2), 1)[1])


def test_the_oracle_attains_the_table():
    world = small_world(tuple(TABLE_PI), 2, mu=tuple(TABLE_MU))
    utility = simulate(OracleMaxMin(), world, 5000, mu=TABLE_MU).ledger.utility
    assert utility / (5000 * TABLE_PI) == pytest.approx(TABLE_LEVEL, abs=0.02)


def test_the_oracle_expects_nobody_before_it_registers():
    """Client 1 registers in round 3. Client 0, served twice: 2.5 / (3 x .5), the other .5 / .5 in its first round."""
    world, rule, alone = small_world((0.5, 0.5), 1), OracleMaxMin(), np.array([True, False])
    state, ledger = rule.init(world), Ledger.empty(2)
    for number in (1, 2):
        view = view_of(world, (0,), number, ledger=ledger)
        record = replace(closed_round(view, alone, np.array([COMPLETED, 0]), np.zeros(2)), registered=alone)
        state, ledger = rule.observe(state, record, world), account(ledger, record)
    assert rule.index(state, view_of(world, (0, 1), 3, ledger=ledger)) == pytest.approx([2.5 / 1.5, 1.0])


@dataclass(frozen=True)
class OneCoin:
    """All clients share one fair coin."""

    def available(self, time_s):
        return np.repeat(uniforms(0, "coin", int(time_s), 1) < 0.5, 2)

    def probability(self, time_s):
        return np.full(2, 0.5)


@pytest.mark.parametrize("rounds", [30, 150])
def test_the_oracle_is_within_its_bound(rounds):
    """E sum_k w_k (s_k / (w_k T) - x*_k)^2 <= sum_k x*_k (1 + y*_k) / T, whose right side is 4.45 / T; here 20 runs."""
    weight, exact = TABLE_PI / TABLE_MU, maxmin_exact(TABLE_PI, TABLE_MU, 2)
    world, errors = small_world(tuple(TABLE_PI), 2, mu=tuple(TABLE_MU)), []
    for seed in range(20):
        there = generator(seed, "arrivals").random((rounds, 6)) < TABLE_PI
        played = simulate(OracleMaxMin(), world, rounds, arrivals=lambda number, there=there: there[number - 1])
        errors.append(np.sum(weight * (played.ledger.selected / (weight * rounds) - exact) ** 2))
    assert np.mean(errors) <= np.sum(exact * (1 + exact * weight)) / rounds


def test_the_oracle_attains_what_correlation_allows():
    world = replace(small_world((0.5, 0.5), 1), availability=OneCoin())
    assert simulate(OracleMaxMin(), world, 500).conditional_rate == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"availability": None}, "true availabilities are not known"),
        ({"mean_utility": np.array([1.0, 0.0])}, "above 0"),
    ],
)
def test_the_oracle_needs_the_truth(change, message):
    with pytest.raises(ConfigError, match=message):
        OracleMaxMin().init(replace(small_world((0.5, 0.5), 1), **change))


def test_the_oracle_needs_the_truth_of_all():
    with pytest.raises(ConfigError, match="true availabilities are not known"):
        OracleMaxMin().init(replace(small_world((0.5, 0.5), 1), availability=Known((0.5, float("nan")))))
