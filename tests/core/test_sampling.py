"""Water-filling and fixed-size samples, against enumeration and hand-made cases."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityfl.core.seeding import generator
from parityfl.core.selection.sampling import (
    fixed_size_sample,
    pivotal,
    pivotal_in_order,
    smallest,
    systematic,
    waterfill,
)


@pytest.mark.parametrize(
    ("weights", "capacity", "expected"),
    [
        ((5, 3, 1, 1), 2, (1, 0.6, 0.2, 0.2)),  # 2/10 of each weight, and 5 * 2/10 is 1
        ((10, 1, 1, 1, 1), 3, (1, 0.5, 0.5, 0.5, 0.5)),  # 10 is full; two places for four weights of 1
        ((8, 4, 1, 1), 3, (1, 1, 0.5, 0.5)),  # 8 is full, then 4 * 2/6 is full too, one place for two
        ((1, 1, 1), 5, (1, 1, 1)),  # more places than clients
        ((1, 0), 2, (1, 1)),  # as many places as clients
        ((1, 0, 0), 2, (1, 0.5, 0.5)),  # fewer positive weights than places
        ((0, 0, 0, 0), 1, (0.25, 0.25, 0.25, 0.25)),
        ((1e13, 1, 1e-13, 1e-13), 3, (1, 1, 0.5, 0.5)),  # no cancellation between large and small
        ((1, 1e-320, 0), 2, (1, 1, 0)),  # no overflow
        ((3, 1), 0.5, (0.375, 0.125)),  # a capacity need not be an integer
    ],
)
def test_p5_waterfill(weights, capacity, expected):
    assert waterfill(np.array(weights, dtype=float), capacity) == pytest.approx(expected, abs=1e-12)


positive_weights = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=40).map(np.array)


@given(positive_weights, st.integers(1, 40) | st.floats(0.01, 40))
def test_waterfill_fills_the_capacity_in_the_order_of_the_weights(weights, capacity):
    filled = waterfill(weights, capacity)
    assert filled.sum() == pytest.approx(min(capacity, len(weights)))
    assert np.all((filled >= 0) & (filled <= 1))
    assert np.all(np.diff(filled[np.argsort(weights)]) >= -1e-12)


@given(positive_weights, st.integers(1, 40))
def test_waterfill_is_proportional_below_one(weights, capacity):
    filled = waterfill(weights, capacity)
    free = (filled < 1 - 1e-9) & (weights > 1e-3)
    ratio = filled[free] / weights[free]
    assert np.allclose(ratio, ratio[:1] if len(ratio) else 0, rtol=1e-6)


def outcomes(probability, order):
    """Enumerate every sequence of coins of the pivotal method: a mapping from sample to probability."""
    found = {}
    for script in product((True, False), repeat=len(probability)):
        weight, coins = [], list(script)

        def flip(p, weight=weight, coins=coins):
            head = coins.pop(0)
            weight.append(p if head else 1 - p)
            return head

        sample = tuple(pivotal_in_order(np.array(probability), order, flip).tolist())
        unused = 0.5 ** len(coins)  # coins that were never looked at: each such script is met 2^unused times
        found[sample] = found.get(sample, 0.0) + float(np.prod(weight)) * unused
    return {sample: weight for sample, weight in found.items() if weight > 1e-12}


def test_p6_pivotal_by_enumeration():
    """0.6 and 0.6 meet: 0 wins with (1-.6)/(2-1.2) = 1/2, the loser keeps .2, then meets .8 with sum 1."""
    assert outcomes((0.6, 0.6, 0.8), range(3)) == pytest.approx({(0, 1): 0.2, (0, 2): 0.4, (1, 2): 0.4})


def test_p6_pivotal_with_a_certain_unit():
    assert outcomes((1, 0.6, 0.2, 0.2), range(4)) == pytest.approx({(0, 1): 0.6, (0, 2): 0.2, (0, 3): 0.2})


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=7), st.integers(1, 6), st.permutations(range(7)))
def test_pivotal_marginals_are_exact_in_any_order(weights, capacity, order):
    probability = waterfill(np.array(weights), capacity)
    found = outcomes(probability, [unit for unit in order if unit < len(weights)])
    marginal = np.zeros(len(weights))
    for sample, weight in found.items():
        assert len(sample) == min(capacity, len(weights))
        marginal[list(sample)] += weight
    assert marginal == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("draw", [pivotal, systematic])
def test_drawn_frequencies_meet_the_probabilities(draw):
    """4000 draws: five standard errors of a frequency are at most 5 sqrt(.25 / 4000) = .04."""
    probability = waterfill(np.array([5.0, 3.0, 1.0, 1.0, 0.0]), 2)
    counts = np.zeros(5)
    for repeat in range(4000):
        counts[draw(probability, generator(0, "draw", repeat))] += 1
    assert counts / 4000 == pytest.approx(probability, abs=0.04)
    assert counts[0] == 4000
    assert counts[4] == 0


@given(positive_weights, st.integers(1, 40), st.integers(0, 1000), st.sampled_from([pivotal, systematic]))
def test_samples_are_distinct_ascending_and_of_fixed_size(weights, capacity, seed, draw):
    sample = draw(waterfill(weights, capacity), generator(seed, "sample"))
    assert len(sample) == min(capacity, len(weights))
    assert np.all(np.diff(sample) > 0)


def test_large_populations_are_sampled_systematically_with_a_fixed_size():
    probability = waterfill(generator(1, "weights").exponential(1, 20_001), 300)
    sample = fixed_size_sample(probability, generator(1, "sample"))
    assert len(sample) == 300
    np.testing.assert_array_equal(sample, systematic(probability, generator(1, "sample")))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 30), st.integers(0, 100))
def test_smallest_takes_the_smallest(values, count, seed):
    index = np.array(values, dtype=float)
    taken = smallest(index, count, generator(seed, "ties"))
    assert np.all(np.diff(taken) > 0)
    assert sorted(index[taken]) == sorted(values)[:count]


def test_smallest_breaks_ties_evenly():
    """Two of three equal values for one place after the 0: each is taken in about half of 1000 draws."""
    index = np.array([1.0, 0.0, 1.0, 2.0])
    counts = sum(np.isin(range(4), smallest(index, 2, generator(0, "ties", repeat))) for repeat in range(1000))
    assert counts[1] == 1000
    assert counts[3] == 0
    assert 400 < counts[0] < 600


def test_smallest_of_many():
    """Of few values numpy sorts all; of 5000 it partitions."""
    index = generator(0, "many").permutation(5000).astype(float)
    np.testing.assert_array_equal(smallest(index, 300, generator(0, "ties")), np.flatnonzero(index < 300))
