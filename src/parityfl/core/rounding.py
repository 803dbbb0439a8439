"""What a vector is after it has travelled as bfloat16: the same rule on every engine, whether or not it travels."""

from collections.abc import Callable

import numpy as np
from ml_dtypes import bfloat16

from parityfl.core.types import Vector

Carry = Callable[[Vector], Vector]
"""Returns a vector, float32 or as bfloat16, as the float32 vector that arrives."""


def as_it_is(vector: Vector) -> Vector:
    """Return the vector: float32 arrives as it was sent."""
    return vector.astype(np.float32, copy=False)


def to_bfloat16(vector: Vector) -> Vector:
    """Return a vector's numbers rounded to the nearest bfloat16, ties to even, as float32, shape (d,).

    The relative error of a normal number is at most 2^-8; a finite number above 3.39e38 becomes infinite.
    """
    return vector.astype(bfloat16, copy=False).astype(np.float32)
