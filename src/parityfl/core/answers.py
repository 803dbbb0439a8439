"""What is wrong with values that a part returned, whatever they are: '' where nothing is."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

NUMBERS = "biuf"
"""The kinds of arrays that the journal stores: bool, integers, floats."""


def shown(values: Any) -> str:
    """Return an array, or what can be made one, in one line: its first and its last three where it is long."""
    return np.array2string(np.asarray(values), threshold=8, max_line_width=10**6)


def array_fault(what: str, value: Any, shape: tuple[int, ...], dtype: type[np.generic]) -> str:
    """Say why a value is no array of this shape and dtype."""
    if not isinstance(value, np.ndarray):
        return f"{what} is a {type(value).__name__}, not an array"
    if value.shape != shape:
        return f"{what} has shape {value.shape}, not {shape}"
    if value.dtype != dtype:
        return f"{what} is {value.dtype}, not {np.dtype(dtype)}"
    return ""


def state_fault(state: Any) -> str:
    """Say why a value is no state: named arrays of numbers."""
    if not isinstance(state, Mapping):
        return f"the state is a {type(state).__name__}, not named arrays"
    for name, array in state.items():
        if not isinstance(name, str):
            return f"the state has the name {name!r}, which is no text"
        if not isinstance(array, np.ndarray | np.generic):  # numpy makes scalars of arrays of shape ()
            return f"state {name!r} is a {type(array).__name__}, not an array"
        if array.dtype.kind not in NUMBERS:
            return f"state {name!r} holds {array.dtype}, not numbers, and no journal stores that"
    return ""


def notes_fault(notes: Any) -> str:
    """Say why a value is no figures by name."""
    if not isinstance(notes, Mapping):
        return f"the notes are a {type(notes).__name__}, not figures by name"
    for name, value in notes.items():
        if not isinstance(name, str) or not isinstance(value, Real):
            return f"note {name!r} is {value!r}, not a number"
    return ""
