"""Where a worker process leaves updates for its owner, so that they need not go through a pipe."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from parityfl.core.types import Update, Vector
from parityfl.workers.shared_memory import SharedArray

R = TypeVar("R")

PLACES = 4
"""How many updates of a worker may lie here until they are folded; further ones go through the pipe."""
SMALLEST = 2**13
"""Bytes of the smallest update that is left here: a pipe takes a smaller one at once."""


@dataclass(frozen=True)
class Place:
    """A place on a shelf, free again when nothing refers to its vector, nor to a view of that, any more."""

    number: int
    vector: memoryview


@dataclass(frozen=True)
class Left:
    """The result of training a client whose update lies on the shelf.

    Attributes:
        told: the attributes of the update but for its vector.
        kept: what the client keeps, or None.
    """

    told: dict[str, Any]
    kept: Vector | None


class Shelf:
    """Memory that a worker shares with its owner, who lends places in it.

    Args:
        size: parameters of the model d.
    """

    def __init__(self, size: int) -> None:
        self._memory = SharedArray((PLACES, size), np.float32)
        self._free = deque(range(PLACES if 4 * size >= SMALLEST else 0))

    def lend(self) -> Place | None:
        """Return a free place; None where there is none."""
        if not self._free:
            return None
        number = self._free.popleft()
        row = self._memory.view()[number]
        weakref.finalize(row, self._free.append, number)
        return Place(number, row.data)

    def leave(self, result: R, number: int) -> R | Left:
        """Return a result as it goes through the pipe, an update left in a place; called in the worker."""
        match result:
            case (Update() as update, kept):
                told = dict(vars(update))
                self._memory.view()[number] = told.pop("delta")
                return Left(told, cast(Vector | None, kept))
        return result


def collect(result: R | Left, place: Place | None) -> R:
    """Return a result as the worker had it."""
    if not isinstance(result, Left):
        return result
    assert place is not None, "it was left there"
    return cast(R, (Update(delta=np.frombuffer(place.vector, np.float32), **result.told), result.kept))
