import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from parityfl.core.rounding import to_bfloat16


def test_ties_go_to_even_and_what_is_not_finite_stays_so() -> None:
    """bfloat16 has 8 significant bits: between 256 and 512 it holds the even numbers."""
    vector = np.array([1.0, 257.0, 259.0, 258.0, -257.0, np.inf, np.nan, 3.4e38], dtype=np.float32)
    rounded = to_bfloat16(vector)
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(rounded, [1.0, 256.0, 260.0, 258.0, -256.0, np.inf, np.nan, np.inf])


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_it_rounds_as_torch_does_and_only_once(numbers: list[float]) -> None:
    vector = np.array(numbers, dtype=np.float32)
    rounded = to_bfloat16(vector)
    np.testing.assert_array_equal(rounded, torch.from_numpy(vector).bfloat16().float().numpy())
    np.testing.assert_array_equal(to_bfloat16(rounded), rounded)
