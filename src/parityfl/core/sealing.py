"""History and models as parts see them: a part's mistake must not change what the others read."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")
A = TypeVar("A", bound=NDArray[Any])


def sealed(value: D) -> D:
    """Return a dataclass with arrays that cannot be written to; they are views, not copies."""
    named = ((key.name, getattr(value, key.name)) for key in fields(value))
    return replace(value, **{name: read_only(array) for name, array in named if isinstance(array, np.ndarray)})


def read_only(array: A) -> A:
    """Return a view of an array that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
