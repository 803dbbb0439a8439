"""Reused buffers: fresh pages cost as much as two passes over the data."""

import weakref
from collections import deque
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from parityfl.core.types import Vector

_STEP = 2**16
_VECTORS_BYTES = 2**28


class Buffers:
    """Memory that comes back by itself, from whichever thread, when the last view of it is gone.

    Args:
        budget: how many bytes may be lent at a time; one buffer may be, whatever its size.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._lent = 0
        self._free: list[NDArray[np.uint8]] = []
        self._returned: deque[NDArray[np.uint8]] = deque()
        self._lock = Lock()

    def lend(self, size: int) -> memoryview | None:
        """Return a buffer of at least `size` bytes of arbitrary content; None where the budget is used up."""
        size = -(-size // _STEP) * _STEP
        with self._lock:
            self._take_back()
            if any(len(buffer) != size for buffer in self._free):
                self._free.clear()
            if not self._free and self._lent + size > max(self._budget, size):
                return None
            buffer = self._free.pop() if self._free else np.empty(size, dtype=np.uint8)
            self._lent += size
        lent = buffer[:]
        weakref.finalize(lent, self._returned.append, buffer)  # takes no lock: a collection may run within `lend`
        return lent.data

    def _take_back(self) -> None:
        while self._returned:
            back = self._returned.popleft()
            self._lent -= len(back)
            self._free.append(back)


_vectors = Buffers(_VECTORS_BYTES)


def empty_vector(size: int) -> Vector:
    """Return a float32 vector of `size` arbitrary numbers, where possible in the memory of an earlier one."""
    buffer = _vectors.lend(4 * size)
    return np.empty(size, dtype=np.float32) if buffer is None else np.frombuffer(buffer, np.float32, size)
