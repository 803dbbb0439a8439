import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityfl.core.errors import ConfigError
from parityfl.core.optimizers import Adam, Momentum, PlainStep

OPTIMIZERS = [PlainStep(), Momentum(), Adam()]


def vector(*values):
    return np.array(values, dtype=np.float32)


def steps(optimizer, directions, lr=1.0):
    weights, state = np.zeros_like(directions[0]), optimizer.init(len(directions[0]))
    for direction in directions:
        weights, state = optimizer.step(state, weights, direction, lr)
    return weights


def test_plain_step():
    """(1, 2) + 0.5 (2, -4) = (2, 0)."""
    weights, _ = PlainStep().step({}, vector(1, 2), vector(2, -4), 0.5)
    np.testing.assert_array_equal(weights, vector(2, 0))


def test_momentum_by_hand():
    """Directions 1, 1, memory .5: v = 1, then 1.5; w = 2 (1) = 2, then 2 + 2 (1.5) = 5."""
    assert steps(Momentum(0.5), [vector(1), vector(1)], lr=2.0)[0] == 5


def test_momentum_zero_is_the_plain_step():
    directions = [vector(1, -3), vector(0.5, 2)]
    np.testing.assert_array_equal(steps(Momentum(0.0), directions), steps(PlainStep(), directions))


def test_adam_first_step_by_hand():
    """D = 2, b1 = .9, b2 = .99, tau = .5: m = .2; v = .99 (.25) + .01 (4) = .2875; w = .1 (.2) / (sqrt .2875 + .5)."""
    expected = 0.1 * 0.2 / (0.2875**0.5 + 0.5)
    assert steps(Adam(tau=0.5), [vector(2)], lr=0.1)[0] == pytest.approx(expected, rel=1e-6)


def test_adam_second_step_by_hand():
    """D = 0 after D = 2: m = .18; v = .99 (.2875) = .284625; the step adds .1 (.18) / (sqrt .284625 + .5)."""
    first = 0.1 * 0.2 / (0.2875**0.5 + 0.5)
    second = 0.1 * 0.18 / (0.284625**0.5 + 0.5)
    assert steps(Adam(tau=0.5), [vector(2), vector(0)], lr=0.1)[0] == pytest.approx(first + second, rel=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_leaves_its_arguments_alone(optimizer):
    weights, direction = vector(1, 2, 3), vector(1, 0, -1)
    moved, state = optimizer.step(optimizer.init(3), weights, direction, 0.1)
    np.testing.assert_array_equal(weights, vector(1, 2, 3))
    np.testing.assert_array_equal(direction, vector(1, 0, -1))
    assert moved.dtype == np.float32
    assert all(array.dtype == np.float32 and array.shape == (3,) for array in state.values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=5), st.floats(0.01, 2))
def test_is_deterministic_and_finite(optimizer, values, lr):
    directions = [vector(value, 1) for value in values]
    once = steps(optimizer, directions, lr)
    assert np.isfinite(once).all()
    assert once.tobytes() == steps(optimizer, directions, lr).tobytes()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_what_float32_cannot_hold_is_no_warning(optimizer):
    """The largest float32 is 3.4e38: a step size of 1e300 is more, and so are the square of 3e38 and twice that."""
    assert not np.isfinite(steps(optimizer, [vector(1, 0)], lr=1e300)).all()
    steps(optimizer, [vector(3e38, 1)] * 3, lr=1e30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Momentum(1.0), r"server\.momentum = 1 must be"),
        (lambda: Adam(beta1=-0.1), r"server\.beta1 = -0\.1"),
        (lambda: Adam(beta2=1.0), r"server\.beta2 = 1"),
        (lambda: Adam(tau=0.0), r"server\.tau = 0 must be from 1e-30 to 1e\+15"),
        (lambda: Adam(tau=1e300), r"server\.tau = 1e\+300 must be from 1e-30 to 1e\+15"),
    ],
)
def test_refuses_bad_keys(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
