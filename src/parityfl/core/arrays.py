"""A model as one flat float32 vector: where each named parameter lies in it, and the hash that identifies it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from math import prod

import numpy as np
from numpy.typing import NDArray

from parityfl.core.errors import PayloadError
from parityfl.core.types import Vector
from parityfl.core.wording import listed

_BLOCK = 2**13
"""Numbers that BLAS is given at a time for a dot product: above 10,000 OpenBLAS splits them among its threads, and the
sum would depend on the number of threads."""


@dataclass(frozen=True)
class Layout:
    """Where each named parameter of a model lies in its flat vector: one after the other, row-major, in this order.

    Attributes:
        names: the parameters' names, distinct.
        shapes: their shapes, in the same order; () is a scalar.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.shapes), "one shape per name"
        assert len(set(self.names)) == len(self.names), "names are distinct"

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first position of each parameter and, last, the end: one more than there are parameters."""
        return tuple(accumulate(map(prod, self.shapes), initial=0))

    @property
    def size(self) -> int:
        """The number of model parameters d."""
        return self.offsets[-1]

    @property
    def nbytes(self) -> int:
        """The bytes of the vector."""
        return 4 * self.size

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the names and shapes in order: two models with the same one can be averaged."""
        return sha256(json.dumps([self.names, self.shapes]).encode()).hexdigest()

    def views(self, vector: Vector) -> dict[str, Vector]:
        """Return each parameter as a view of `vector` in its own shape; writing to a view writes to the vector.

        Raises:
            PayloadError: `vector` is not of shape (d,).
        """
        if vector.shape != (self.size,):
            raise PayloadError(f"the vector has shape {vector.shape}, the model needs ({self.size},)")
        spans = zip(self.offsets, self.offsets[1:], strict=False)
        return {
            name: vector[start:stop].reshape(shape)
            for name, shape, (start, stop) in zip(self.names, self.shapes, spans, strict=True)
        }

    def flatten(self, arrays: Mapping[str, NDArray[np.generic]]) -> Vector:
        """Return a new vector that holds `arrays`, given in any order.

        Raises:
            PayloadError: a name is missing or unknown, a shape differs, or a dtype is not float32.
        """
        self._check(arrays)
        vector = np.empty(self.size, dtype=np.float32)
        for name, view in self.views(vector).items():
            view[...] = arrays[name]
        return vector

    def _check(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        missing = [name for name in self.names if name not in arrays]
        unknown = sorted(set(arrays) - set(self.names))
        if missing or unknown:
            raise PayloadError(
                f"the arrays do not name this model's parameters: missing {_some(missing)}, unknown {_some(unknown)}; "
                "both sides must use the same model"
            )
        for name, shape in zip(self.names, self.shapes, strict=True):
            array = arrays[name]
            if array.shape != shape or array.dtype != np.float32:
                raise PayloadError(
                    f"parameter {name!r} is {array.dtype} of shape {array.shape}, "
                    f"the model needs float32 of shape {shape}"
                )


def model_hash(vector: Vector) -> str:
    """Return the SHA-256, in hexadecimal, of the parameters in order as little-endian float32."""
    return sha256(np.ascontiguousarray(vector, dtype="<f4").data).hexdigest()


def all_finite(vector: Vector) -> bool:
    """Return whether every number is finite; in nearly all cases one pass at the speed of memory says so."""
    with np.errstate(over="ignore", invalid="ignore"):
        sum_of_squares = np.dot(vector, vector)
    return bool(np.isfinite(sum_of_squares) or np.isfinite(vector).all())


def dot(one: Vector, other: Vector) -> float:
    """Return the dot product of two vectors of shape (d,), in float64: the same bits on any number of threads."""
    total = 0.0
    for start in range(0, len(one), _BLOCK):
        block = slice(start, start + _BLOCK)
        total += float(np.dot(one[block].astype(np.float64), other[block].astype(np.float64)))
    return total


def _some(names: list[str]) -> str:
    return listed([repr(name) for name in names], 3)
