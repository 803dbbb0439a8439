"""The metrics: exact small cases, identities, 0/0 rules, and the coverage of the interval."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parityfl.core import fairness
from parityfl.core.seeding import generator

VALUES = st.lists(st.floats(0, 1e6, allow_subnormal=False).map(lambda x: round(x, 3)), min_size=1, max_size=30)
ANY_SIGN = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=30)
SPREAD = (fairness.coefficient_of_variation, fairness.jain, fairness.gini)
ALL = (*SPREAD, fairness.worst_mean, fairness.mean, fairness.gap)


def array(*values):
    return np.array(values, dtype=np.float64)


def close(left, right, tolerance=1e-9):
    return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)


def test_golden_case():
    """(1,2,3,4): mean 2.5, variance 1.25, CV sqrt(1.25)/2.5; Jain 100 / (4 x 30); Gini, with sum_ij |x_i - x_j| = 20
    over ordered pairs, 20 / (2 x 16 x 2.5)."""
    values = array(1, 2, 3, 4)
    assert fairness.coefficient_of_variation(values) == pytest.approx(0.4472135955, abs=1e-10)
    assert fairness.jain(values) == pytest.approx(0.8333333333, abs=1e-10)
    assert fairness.gini(values) == pytest.approx(0.25, abs=1e-15)


def test_weighted_by_hand():
    """(1, 3) weighed (3, 1): mean 6/4, squares 12/4, so variance 3 - 2.25; an unknown value or weight drops out."""
    values, weights = array(1, 3, math.nan, 7), array(3, 1, 5, math.nan)
    assert fairness.weighted_mean(values, weights) == 1.5
    assert fairness.weighted_deviation(values, weights) == pytest.approx(math.sqrt(0.75))
    assert fairness.weighted_mean(values, array(1, 1, 1, 1)) == pytest.approx(fairness.mean(values))
    assert fairness.weighted_deviation(values, array(1, 1, 1, 1)) == pytest.approx(fairness.deviation(values))
    assert math.isnan(fairness.weighted_mean(values, array(0, 0, 1, 0)))
    assert math.isnan(fairness.weighted_deviation(array(), array()))
    assert math.isnan(fairness.deviation(array(math.nan)))


@pytest.mark.parametrize("scale", [2.0**1021, 4e307, 1e200, 1e-200, 1e-307])
def test_what_does_not_depend_on_the_scale_is_known_at_every_scale(scale):
    """(1,2,3,4) times something whose square no float holds: the figures of the golden case."""
    values = scale * array(1, 2, 3, 4)
    expected = (0.4472135955, 0.8333333333, 0.25)
    for metric, value in zip(SPREAD, expected, strict=True):
        assert metric(values) == pytest.approx(value, abs=1e-10)
        assert metric(-values) == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("metric", SPREAD)
@pytest.mark.parametrize("values", [(math.inf, 1), (math.inf, -math.inf), (math.nan, -math.inf)])
def test_a_value_without_bound_leaves_nothing_to_compare(metric, values):
    assert math.isnan(metric(array(*values)))


def test_the_worst_mean_of_large_values():
    """The lowest of ten is 1e308; of eleven it is two, whose sum no float holds."""
    assert fairness.worst_mean(np.full(10, 1e308)) == 1e308
    assert fairness.worst_mean(np.full(11, 1e308)) == math.inf


def test_all_alike():
    assert [metric(array(2, 2, 2)) for metric in SPREAD] == [0.0, 1.0, 0.0]


def test_one_has_all():
    """(0,0,0,1): CV sqrt(3), Jain 1/4, Gini 3/4."""
    values = array(0, 0, 0, 1)
    expected = (math.sqrt(3), 0.25, 0.75)
    for metric, value in zip(SPREAD, expected, strict=True):
        assert metric(values) == pytest.approx(value)


@given(VALUES)
def test_jain_is_a_function_of_cv(values):
    cv, jain = fairness.coefficient_of_variation(array(*values)), fairness.jain(array(*values))
    assert close(jain, 1 / (1 + cv**2))


@given(ANY_SIGN, st.sampled_from([1e-3, 0.5, 7.0, 1e4]))
def test_scale_does_not_matter(values, scale):
    assume(abs(sum(values)) > 1e-2)
    for metric in SPREAD:
        assert close(metric(scale * array(*values)), metric(array(*values)), 1e-6)


@given(ANY_SIGN, st.randoms(use_true_random=False))
def test_the_order_of_clients_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    assume(abs(sum(values)) > 1e-2)
    for metric in ALL:
        assert close(metric(array(*shuffled)), metric(array(*values)), 1e-6)


@pytest.mark.parametrize("scale", [2.0**-40, 1.0, 2.0**40])
def test_a_mean_that_is_0_but_for_rounding_is_0(scale):
    """In floating point .1 + .2 - .3 is 5.6e-17."""
    values = scale * array(0.1, 0.2, -0.3)
    assert values.sum() != 0
    assert math.isnan(fairness.coefficient_of_variation(values))
    assert math.isnan(fairness.gini(values))


@given(VALUES)
def test_bounds(values):
    known = array(*values)
    assume(known.sum() > 0)
    count = len(values)
    assert 0 <= fairness.coefficient_of_variation(known) <= math.sqrt(count - 1) + 1e-9
    assert 1 / count - 1e-12 <= fairness.jain(known) <= 1
    assert 0 <= fairness.gini(known) <= 1 - 1 / count + 1e-9
    assert known.min() <= fairness.worst_mean(known) <= fairness.mean(known) * (1 + 1e-12) <= known.max() * (1 + 1e-9)
    assert fairness.gap(known) == known.max() - known.min()


@given(VALUES)
def test_gini_is_the_mean_difference(values):
    known = array(*values)
    assume(known.sum() > 0)
    differences = np.abs(known[:, None] - known).sum()
    assert close(fairness.gini(known), differences / (2 * len(known) ** 2 * known.mean()))


@given(VALUES, st.integers(0, 5))
def test_unknown_clients_are_left_out(values, unknown):
    with_unknown = array(*[math.nan] * unknown, *values)
    for metric in ALL:
        assert close(metric(with_unknown), metric(array(*values)))


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("values", [(), (math.nan,), (math.nan, math.nan)])
def test_nobody_known_is_unknown(metric, values):
    assert math.isnan(metric(array(*values)))


@pytest.mark.parametrize("metric", SPREAD)
def test_zero_by_zero_is_unknown(metric):
    assert math.isnan(metric(array(0, 0)))


@pytest.mark.parametrize("metric", [fairness.coefficient_of_variation, fairness.gini])
def test_a_mean_of_zero_is_unknown(metric):
    assert math.isnan(metric(array(-1, 1)))


def test_negative_values():
    """(-1, 3): mean 1, standard deviation 2; Jain 4 / (2 x 10); Gini 8 / (2 x 4 x 1) = 1."""
    values = array(-1, 3)
    expected = (2.0, 0.2, 1.0)
    for metric, value in zip(SPREAD, expected, strict=True):
        assert metric(values) == pytest.approx(value)


@pytest.mark.parametrize(("count", "lowest"), [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (21, 3), (70, 7), (100, 10)])
def test_worst_tenth_is_rounded_up(count, lowest):
    """The lowest l of 0 .. N-1 have the mean (l - 1) / 2."""
    assert fairness.worst_mean(np.arange(count)[::-1].astype(float)) == (lowest - 1) / 2


def test_ratio_is_unknown_where_there_is_nothing_to_divide_by():
    np.testing.assert_array_equal(fairness.ratio(np.array([1, 0, 3]), np.array([2, 0, 0])), [0.5, np.nan, np.nan])


def test_parity_figures():
    """Three clients, ten rounds: u/n = 2/4, 1/2 and unknown; s/rounds = .4, .1, 0; s/n = 1, .5; participations 4, 1, 0:
    Gini 16 / (2 x 9 x 5/3), with ordered differences 2 (3 + 4 + 1) = 16."""
    figures = fairness.parity_figures(
        rounds=np.array([10, 10, 10]),
        available=np.array([4, 2, 0]),
        selected=np.array([4, 1, 0]),
        participated=np.array([4, 1, 0]),
        utility=array(2, 1, 0),
    )
    assert figures == pytest.approx(
        {
            "utility_cv": 0.0,
            "utility_jain": 1.0,
            "utility_gini": 0.0,
            "worst10_normalized_utility": 0.5,
            "selection_gap": 0.4,
            "conditional_selection_gap": 0.5,
            "saturation": 0.5,
            "participation_gini": 8 / 15,
        }
    )


def test_saturated_is_who_is_selected_in_95_of_100_opportunities():
    """19 of 20 is, 94 of 100 is not, and who was never available does not count."""
    rounds, available, selected = np.full(3, 100), np.array([20, 100, 0]), np.array([19, 94, 0])
    figures = fairness.parity_figures(rounds, available, selected, selected, selected.astype(float))
    assert figures["saturation"] == 0.5


LABELS = np.array([[5, 5, 0, 0], [0, 5, 5, 0], [9, 0, 0, 0]])


def who(*clients):
    mask = np.zeros(len(LABELS), dtype=bool)
    mask[list(clients)] = True
    return mask


def test_label_coverage():
    """Clients 0 and 1 hold the labels 0, 1, 2 of four; nobody holds none of them."""
    assert fairness.label_coverage(LABELS, who(0, 1)) == 0.75
    assert fairness.label_coverage(LABELS, who()) == 0.0
    assert math.isnan(fairness.label_coverage(np.zeros((3, 0), dtype=np.int64), who(0)))


def test_label_kl():
    """Clients 0 and 1 count labels (1, 2, 1, 0): KL of (1/4, 1/2, 1/4, 0) from uniform is
    1/4 ln 1 + 1/2 ln 2 + 1/4 ln 1 = ln(2)/2. Client 2 counts its nine examples of a label once: ln 4."""
    assert fairness.label_kl(LABELS, who(0, 1)) == pytest.approx(math.log(2) / 2)
    assert fairness.label_kl(LABELS, who(2)) == pytest.approx(math.log(4))
    assert fairness.label_kl(np.ones((2, 5), dtype=np.int64), np.array([True, True])) == 0.0
    assert math.isnan(fairness.label_kl(LABELS, who()))
    assert math.isnan(fairness.label_kl(np.zeros((3, 0), dtype=np.int64), who(0)))


def test_low_half():
    """floor(5 / 2) = 2 clients of the smallest availability, ties by index: clients 1 and 2."""
    availability = array(0.9, 0.1, 0.3, 0.3, 0.3)
    assert fairness.low_half_mean(array(0, 1, 3, 9, 9), availability) == 2.0
    assert fairness.low_half_mean(array(math.nan, 1, math.nan, 9, 9), availability) == 1.0
    assert math.isnan(fairness.low_half_mean(array(0.5), array(0.5)))


def test_figures_as_json():
    figures = {"a": 1, "b": 0.5, "c": math.nan, "d": math.inf}
    assert json.loads(json.dumps(fairness.jsonable(figures), allow_nan=False)) == {
        "a": 1,
        "b": 0.5,
        "c": None,
        "d": None,
    }


HISTORIES = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=40)


def counts(history):
    """Return n_k, rounds, times on and times off of a history, shape (rounds, clients)."""
    on, off = history[1:] & ~history[:-1], ~history[1:] & history[:-1]
    rounds = np.full(history.shape[1], len(history))
    return history.sum(axis=0), rounds, on.sum(axis=0), off.sum(axis=0)


@given(HISTORIES)
def test_the_interval_holds_its_estimate_and_stays_in_bounds(history):
    seen = counts(np.array(history))
    low, high = fairness.availability_interval(*seen)
    estimate = seen[0] / seen[1]
    assert np.all((low >= 0) & (low <= estimate) & (estimate <= high) & (high <= 1))
    assert np.all(low < high)


def test_no_rounds_no_interval():
    low, high = fairness.availability_interval(
        *(np.array([0, 1]), np.array([0, 1]), np.zeros(2, int), np.zeros(2, int))
    )
    assert math.isnan(low[0])
    assert math.isnan(high[0])
    assert 0 < low[1] < high[1] == 1


def chains(pi, rounds, mean_on, rng):
    """Return the presence of clients in stationary two-state chains, shape (rounds, clients)."""
    renewal = 1 / np.maximum(mean_on * (1 - pi), 1.0)
    coins, thrown = rng.random((rounds, len(pi))) < pi, rng.random((rounds, len(pi))) < renewal
    for t in range(1, rounds):
        coins[t] = np.where(thrown[t], coins[t], coins[t - 1])
    return coins


@pytest.mark.parametrize(
    ("mean_on", "rounds", "coverage", "width"),
    [
        (1, 10, 0.979, 0.55),
        (1, 100, 0.963, 0.16),
        (1, 300, 0.956, 0.09),
        (4, 30, 0.956, 0.50),
        (4, 300, 0.949, 0.17),
        (12, 10, 0.979, 0.85),
        (12, 30, 0.951, 0.70),
        (12, 100, 0.938, 0.49),
        (12, 300, 0.940, 0.31),
    ],
)
def test_the_interval_covers_the_truth_nearly_as_often_as_it_says(mean_on, rounds, coverage, width):
    """Nominal is 95 %. The expected figures are means over 1,500 populations of 20 clients, pi from beta(1,2) clipped
    to [.02, .98]; here 200 others are drawn with fixed seeds, of a standard error of .004."""
    rng = generator(1, "coverage", rounds, mean_on)
    hits, widths = [], []
    for _ in range(200):
        pi = np.clip(rng.beta(1, 2, 20), 0.02, 0.98)
        low, high = fairness.availability_interval(*counts(chains(pi, rounds, mean_on, rng)))
        hits.append((low <= pi) & (pi <= high))
        widths.append(high - low)
    assert np.mean(hits) == pytest.approx(coverage, abs=0.012)
    assert np.mean(widths) == pytest.approx(width, abs=0.02)


def test_bursts_widen_the_interval():
    """Two clients there in 20 of 40 rounds: alternating, and in one run of 20."""
    alternating, run = np.arange(40) % 2 == 0, np.arange(40) < 20
    low, high = fairness.availability_interval(*counts(np.stack([alternating, run], axis=1)))
    assert high[1] - low[1] > 2 * (high[0] - low[0])


@pytest.mark.parametrize(("rounds", "independent", "bursty"), [(30, 0.975, 0.910), (300, 0.960, 0.917)])
def test_the_interval_in_a_population_of_two_kinds(rounds, independent, bursty):
    """Where half of the clients have bursts of 12 and the others none, pooling costs the bursty ones some coverage."""
    rng, hits = generator(2, "coverage", rounds), []
    mean_on = np.where(np.arange(20) % 2 == 0, 1.0, 12.0)
    for _ in range(200):
        pi = np.clip(rng.beta(1, 2, 20), 0.02, 0.98)
        low, high = fairness.availability_interval(*counts(chains(pi, rounds, mean_on, rng)))
        hits.append((low <= pi) & (pi <= high))
    assert np.mean(hits, axis=0)[::2].mean() == pytest.approx(independent, abs=0.015)
    assert np.mean(hits, axis=0)[1::2].mean() == pytest.approx(bursty, abs=0.015)


def test_the_interval_of_independent_rounds_is_wilsons():
    """There every other of ten rounds: rho = 0. Wilson, 5 of 10: .5 -+ 1.95996 / 1.38415 sqrt(.025 + .0096036)."""
    low, high = fairness.availability_interval(np.array([5]), np.array([10]), np.array([4]), np.array([5]))
    assert (low[0], high[0]) == (pytest.approx(0.236593, abs=1e-5), pytest.approx(0.763407, abs=1e-5))


def test_effective_rounds_by_hand():
    """10 of 20 rounds, once on, once off: both rates (1 + 3/11) / 12 = 7/66; rho = 26/33; 20 (7/33) / (59/33)."""
    one, ten, twenty = np.array([1]), np.array([10]), np.array([20])
    assert fairness.effective_rounds(ten, twenty, one, one) == pytest.approx([140 / 59])
