"""Arrays that this process and its workers see at once, without a copy in each."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from multiprocessing import RawArray
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parityfl.core.errors import FleetError
from parityfl.core.types import Vector
from parityfl.training.holdings import Holdings, Part

_MEMORY = "/dev/shm"  # noqa: S108 - where multiprocessing puts such files on Linux if it has room for them


class SharedArray:
    """An array in an anonymous memory-mapped file, which is gone with the last process that has it.

    It can be handed to a process only when that one starts: multiprocessing passes the file's descriptor then.

    Raises:
        FleetError: there is no room for it.
    """

    def __init__(self, shape: Sequence[int], dtype: DTypeLike) -> None:
        self._shape, self._dtype = tuple(shape), np.dtype(dtype)
        size = max(1, prod(self._shape) * self._dtype.itemsize)
        _require_room(size)
        self._raw = RawArray(ctypes.c_byte, size)

    @staticmethod
    def copy_of(array: NDArray[Any]) -> SharedArray:
        """Return a shared array with the same content."""
        shared = SharedArray(array.shape, array.dtype)
        shared.view()[...] = array
        return shared

    def view(self) -> NDArray[Any]:
        """Return the array; what one process writes to it, all see."""
        return np.frombuffer(memoryview(self._raw), self._dtype, prod(self._shape)).reshape(self._shape)


class Board:
    """Model vectors of shape (d,) that this process puts up for its workers to read, by name.

    Attributes:
        size: parameters of the model d.
    """

    NAMES = ("weights", "average", "control")

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows = SharedArray((len(self.NAMES), size), np.float32)

    def put(self, name: str, vector: Vector) -> None:
        """Put up a vector in the place of the one before it."""
        self[name][:] = vector

    def __getitem__(self, name: str) -> Vector:
        row: Vector = self._rows.view()[self.NAMES.index(name)]
        return row


@dataclass(frozen=True)
class SharedHoldings:
    """Holdings whose images and labels are shared."""

    bare: Holdings
    arrays: tuple[tuple[SharedArray, SharedArray], ...]

    @staticmethod
    def copy_of(holdings: Holdings) -> SharedHoldings:
        """Move the examples of holdings into shared memory."""
        parts = (holdings.train, holdings.held, holdings.test)
        arrays = tuple((SharedArray.copy_of(part.images), SharedArray.copy_of(part.labels)) for part in parts)
        return SharedHoldings(holdings.with_parts([_emptied(part) for part in parts]), arrays)

    def open(self) -> Holdings:
        """Return the holdings, their examples in shared memory."""
        bare = (self.bare.train, self.bare.held, self.bare.test)
        pairs = zip(bare, self.arrays, strict=True)
        return self.bare.with_parts([Part(images.view(), labels.view(), p.bounds) for p, (images, labels) in pairs])


def _require_room(size: int) -> None:
    """Refuse what does not fit: the file takes its room as it is written to, and a lack of it kills without a word."""
    places = [Path(_MEMORY), Path(gettempdir())]
    room = max(disk_usage(place).free for place in places if place.is_dir())
    if size > room:
        raise FleetError(
            f"{size / 1e6:.0f} MB that processes share fit neither into {places[0]} nor into {places[1]} ($TMPDIR), "
            f"where there is room for {room / 1e6:.0f}: make room, or do without worker processes (engine.workers = 1)"
        )


def _emptied(part: Part) -> Part:
    return Part(part.images[:0], part.labels[:0], part.bounds)
