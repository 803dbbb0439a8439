"""What is wrong with an update that could not be aggregated without harm, whatever engine it comes from."""

import numpy as np

from parityfl.core.arrays import all_finite
from parityfl.core.types import Update, Vector


def update_fault(update: Update, max_norm: float | None) -> str:
    """Return why an update is refused, empty where it is not.

    Args:
        update: the update.
        max_norm: the largest Euclidean norm of its vectors, None for any that is finite.
    """
    vectors = {"update": update.delta, "change of its control variate": update.control}
    faults = (_fault(name, vector, max_norm) for name, vector in vectors.items() if vector is not None)
    return next(filter(None, faults), "")


def _fault(name: str, vector: Vector, max_norm: float | None) -> str:
    with np.errstate(over="ignore"):  # then it is infinite, and too large for any limit
        norm = np.sqrt(np.dot(vector, vector))
    if not np.isfinite(norm) and not all_finite(vector):
        return f"the {name} holds a number that is not finite"
    if max_norm is not None and norm > max_norm:
        return f"the {name} has norm {norm:.4g}, at most security.max_update_norm = {max_norm:g} is taken"
    return ""
