import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityfl.reporting.intervals import estimate, sign_test

FIGURES = st.lists(st.floats(-10, 10), min_size=2, max_size=20)


def test_t_interval():
    """Values 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.3027, half width 4.3027 / sqrt(3) = 2.4841."""
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    assert (found.low, found.high) == (pytest.approx(-0.4841, abs=1e-4), pytest.approx(4.4841, abs=1e-4))
    assert found.half_width == pytest.approx(2.4841, abs=1e-4)
    assert not found.excludes_zero


def test_one_value_has_no_interval_and_none_no_estimate():
    found = estimate([5.0])
    assert found is not None
    assert (found.mean, found.low, found.high, found.half_width, found.n) == (5.0, None, None, None, 1)
    assert not found.excludes_zero
    assert estimate([]) is None


def test_equal_values_have_an_interval_of_no_length():
    found = estimate([0.25, 0.25])
    assert found is not None
    assert (found.low, found.high) == (0.25, 0.25)
    assert found.excludes_zero


@given(FIGURES, st.floats(-5, 5))
def test_the_interval_moves_with_the_values(values: list[float], shift: float):
    here, there = estimate(values), estimate([value + shift for value in values])
    assert here is not None
    assert there is not None
    assert here.low <= here.mean <= here.high
    assert np.allclose([there.low, there.high], [here.low + shift, here.high + shift], atol=1e-6)


def test_sign_test():
    """All 3 of 3: p = 2 / 2^3 = 0.25. Of 5, 4 positive: p = 2 (5 + 1) / 2^5 = 0.375; zeros do not count."""
    assert sign_test([0.1, 0.2, 0.3]) == pytest.approx(0.25)
    assert sign_test([1, 1, 1, 1, -1, 0]) == pytest.approx(0.375)
    assert sign_test([0.1]) is None
    assert sign_test([0.1, 0.0]) is None


def test_sign_test_of_small_differences():
    """One of five below 0: 2 (5 + 1) / 2^5. One each of two: never more than 1. Two of two: 2 / 2^2."""
    assert sign_test([0.1, 0.2, 0.3, 0.4, -0.1]) == pytest.approx(0.375)
    assert sign_test([0.1, -0.1]) == 1.0
    assert sign_test([0.1, 0.2]) == pytest.approx(0.5)
