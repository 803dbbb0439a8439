"""Pickles read without trust: arrays of bytes and plain containers, and nothing else.

Nothing of numpy's is given to a pickle: its types believe what a pickle says of their memory. What stands for them here
takes the shape and the bytes of an array, and makes the array itself.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parityfl.core.errors import DataError

NO_ARRAY = "what it calls an array is no array as numpy pickles it, or not of bytes"


class _Byte:
    """Stands for the only type of number that is read."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Pass over what a pickle says of it: there is nothing left to say."""


class _Array:
    """Stands for an array, which a pickle makes empty and fills next.

    Attributes:
        content: the array, uint8.
    """

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: Any) -> None:
        """Take the shape and the bytes, if they fit each other."""
        version, shape, number, is_fortran, raw = state
        plain = type(shape) is tuple and all(type(size) is int and size >= 0 for size in shape) and type(raw) is bytes
        if version != 1 or not isinstance(number, _Byte) or not plain or len(raw) != math.prod(shape):
            raise pickle.UnpicklingError(NO_ARRAY)
        self.content = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if is_fortran else "C").copy()


_NDARRAY = object()
"""Stands for numpy's class of arrays, which a pickle only names."""


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    """Make the empty array that a pickle fills next."""
    if subtype is not _NDARRAY or shape != (0,):
        raise pickle.UnpicklingError(NO_ARRAY)
    return _Array()


def _dtype(name: object, align: object, copy: object) -> _Byte:
    """Return the type of number that a pickle names."""
    if name not in ("u1", "|u1", b"u1", b"|u1"):
        raise pickle.UnpicklingError(NO_ARRAY)
    return _Byte()


def _encode(text: str, encoding: str) -> bytes:
    """Make bytes of a text, as Python 3 writes bytes for protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r} are not as Python pickles them")
    return text.encode("latin1")


ADMITTED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}
"""The only names that a pickle may use, and what stands for them."""


class _ArrayUnpickler(pickle.Unpickler):
    """Refuses every name that an array does not need."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return what stands for a name."""
        try:
            return ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None


def read_arrays(path: Path) -> dict[str, Any]:
    """Return the dictionary in a pickle of Python 2 or 3: what it has under texts, and under bytes, which become texts.

    Raises:
        DataError: the file is no pickle, holds anything but arrays of bytes and plain containers, or is no dictionary.
    """
    try:
        with path.open("rb") as stream:
            content = _ArrayUnpickler(stream, encoding="bytes").load()
    except Exception as error:  # a hostile pickle can raise anything
        raise DataError(
            f"{path} is refused: {error}; a pickle of this data set holds arrays of bytes and plain containers only"
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not the dictionary of a CIFAR batch")
    named = {_text(key): value for key, value in content.items() if isinstance(key, bytes | str)}
    return {key: value.content if isinstance(value, _Array) else value for key, value in named.items()}


def _text(key: bytes | str) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else key
