"""A value per client from a number, a list or a named distribution."""

import numpy as np
import pytest

from parityfl.core.distributions import per_client, probabilities
from parityfl.core.errors import ConfigError


def test_a_number_is_for_everybody():
    assert per_client("utility.mu", 2, 3, 0).tolist() == [2.0, 2.0, 2.0]


def test_a_list_is_taken_as_it_is():
    values = per_client("utility.mu", [1, 2.5], 2, 0)
    assert values.tolist() == [1.0, 2.5]
    values[0] = 9.0
    assert per_client("utility.mu", 2.0, 2, 0).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("text", "mean"),
    [("beta(1,2)", 1 / 3), ("uniform(2,4)", 3.0), ("lognormal(0,0.5)", np.exp(0.125)), ("exponential(2)", 2.0)],
)
def test_a_distribution_has_its_mean(text, mean):
    """40,000 draws: five standard errors are at most 5 x 2 / 200."""
    assert per_client("utility.mu", text, 40_000, 0).mean() == pytest.approx(mean, abs=0.05)


@pytest.mark.parametrize("text", ["beta(1,2)", "uniform(0,1)", "lognormal(0,1)", "exponential(1)"])
def test_a_clients_draw_does_not_depend_on_how_many_there_are(text):
    assert per_client("a", text, 50, 3)[:7].tolist() == per_client("a", text, 7, 3).tolist()


def test_keys_and_seeds_draw_apart():
    drawn = [per_client(key, "uniform(0,1)", 3, seed).tolist() for key in ("a", "b") for seed in (0, 1)]
    assert len({tuple(each) for each in drawn}) == 4


def test_spaces_are_allowed():
    assert per_client("a", " beta( 1, 2 ) ", 3, 0).tolist() == per_client("a", "beta(1,2)", 3, 0).tolist()


def test_drawn_probabilities_are_clipped_and_given_ones_are_not():
    drawn = probabilities("availability.pi", "beta(0.1,0.1)", 500, 0, (0.02, 0.98))
    assert (drawn.min(), drawn.max()) == (0.02, 0.98)
    assert probabilities("availability.pi", [0.0, 1.0], 2, 0, (0.02, 0.98)).tolist() == [0.0, 1.0]


def test_what_is_drawn_is_a_probability_and_no_more_is_cut_off_where_no_bounds_are_given():
    """A drop-out rate of up to 1 % stays one; a log-normal one has values above 1."""
    rates = probabilities("dropout.rate", "uniform(0,0.01)", 500, 0)
    assert 0 < rates.min() < rates.max() <= 0.01
    assert probabilities("dropout.rate", "lognormal(0,1)", 500, 0).max() == 1.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "utility.mu has 2 values for 3 clients: give one per client"),
        (float("nan"), "utility.mu holds nan: every value must be a finite number"),
        ([1.0, float("inf"), 2.0], "utility.mu holds inf"),
        ("beta(1)", r"utility.mu = 'beta\(1\)' is no distribution: use beta"),
        ("gamma(1,2)", "is no distribution"),
        ("beta(a,b)", "is no distribution"),
        ("", "is no distribution"),
        ("0.5", "is no distribution"),
        ("beta(-1,2)", "cannot be drawn from"),
        ("uniform(2,1)", "cannot be drawn from"),
        ("uniform(0,inf)", "cannot be drawn from"),
        ("exponential(-1)", "cannot be drawn from"),
        ("beta(nan,1)", "not finite"),
        ("lognormal(1000,1)", "not finite"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        per_client("utility.mu", value, 3, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-0.1, 1.1, [0.5, 2.0, 0.5]])
def test_a_probability_is_between_0_and_1(value):
    with pytest.raises(ConfigError, match=r"availability.pi holds .*: every value must be between 0 and 1"):
        probabilities("availability.pi", value, 3, 0)
