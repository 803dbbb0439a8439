from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parityfl.core.arrays import Layout, all_finite, dot, model_hash
from parityfl.core.errors import PayloadError

LAYOUT = Layout(("weight", "bias", "scale"), ((2, 3), (2,), ()))


def arrays():
    return {
        "scale": np.array(9, dtype=np.float32),
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bias": np.array([7, 8], dtype=np.float32),
    }


def test_positions():
    """2 x 3 = 6 values, then 2, then a scalar: offsets 0, 6, 8, end 9."""
    assert LAYOUT.offsets == (0, 6, 8, 9)
    assert LAYOUT.size == 9


def test_flatten_takes_any_order():
    np.testing.assert_array_equal(LAYOUT.flatten(arrays()), np.array([0, 1, 2, 3, 4, 5, 7, 8, 9], dtype=np.float32))


def test_views_write_through():
    vector = np.zeros(9, dtype=np.float32)
    LAYOUT.views(vector)["bias"][1] = 5
    assert vector[7] == 5


@given(hnp.arrays(np.float32, 9, elements=st.floats(width=32, allow_nan=False)))
def test_views_and_flatten_are_inverse(vector):
    assert LAYOUT.flatten(LAYOUT.views(vector)).tobytes() == vector.tobytes()


def test_an_empty_model():
    assert Layout((), ()).flatten({}).shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.zeros(3, dtype=np.float32)}, r"'bias' is float32 of shape \(3,\).*shape \(2,\)"),
        ({"bias": np.zeros(2)}, "'bias' is float64"),
        ({"extra": np.zeros(2, dtype=np.float32)}, "missing none, unknown 'extra'"),
    ],
)
def test_flatten_refuses(change, message):
    with pytest.raises(PayloadError, match=message):
        LAYOUT.flatten({**arrays(), **change})


def test_flatten_names_what_is_missing():
    with pytest.raises(PayloadError, match="missing 'weight', 'bias', 'scale', unknown none"):
        LAYOUT.flatten({})


def test_views_refuse_another_length():
    with pytest.raises(PayloadError, match=r"shape \(8,\), the model needs \(9,\)"):
        LAYOUT.views(np.zeros(8, dtype=np.float32))


def test_model_hash_is_of_the_little_endian_bytes():
    """1.0 is 0x3f800000 and -2.0 is 0xc0000000, lowest byte first."""
    expected = sha256(bytes.fromhex("0000803f000000c0")).hexdigest()
    assert model_hash(np.array([1, -2], dtype=np.float32)) == expected
    assert model_hash(np.array([1, 0, -2, 0], dtype=np.float32)[::2]) == expected
    assert model_hash(np.array([1, -2], dtype=">f4")) == expected


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([], True),
        ([0, -1.5, 3e38], True),
        ([3e38] * 4, True),
        ([1, np.nan], False),
        ([np.inf, 1], False),
        ([-np.inf, np.inf], False),
        ([3e38, np.nan], False),
    ],
)
def test_what_is_not_finite_is_found(values: list[float], finite: bool) -> None:
    """Also where the squares of finite numbers, or their sum, are too large for float32."""
    assert all_finite(np.array(values, dtype=np.float32)) is finite


@pytest.mark.parametrize("size", [0, 1, 2**13, 2**13 + 1, 3 * 2**13 - 1])
def test_a_dot_product_is_exact_where_float64_is(size: int) -> None:
    """Every number is 4097, and the other one -1: each product of 4097 with itself already has 25 bits."""
    ones = np.full(size, 4097, dtype=np.float32)
    assert dot(ones, ones) == size * 4097**2
    assert dot(ones, -np.ones_like(ones)) == -size * 4097


def test_a_dot_product_of_large_numbers_is_finite() -> None:
    """Their squares are beyond float32."""
    assert dot(np.array([1e30, 1], dtype=np.float32), np.array([1e30, 1], dtype=np.float32)) == pytest.approx(1e60)
