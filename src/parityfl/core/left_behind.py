"""Who is left behind, and why: the warning of a run that goes on and of the report of one that has ended."""

import numpy as np
from numpy.typing import NDArray

from parityfl.core.types import FloatArray, IntArray

MANY_OPPORTUNITIES = 5
"""Rounds since a client registered before it can count as left behind, and in which it must have been available before
it counts as left behind for what became of them."""

LITTLE_BENEFIT = 0.1
"""A normalised utility of at most this share of the median is little."""

REASONS = ("never available", "never selected", "never completed a round", "little benefit")
"""Why a client may be left behind; of those that hold, the first one is said."""


def left_behind(
    rounds_present: IntArray,
    available: IntArray,
    selected: IntArray,
    participated: IntArray,
    normalized_utility: FloatArray,
) -> NDArray[np.str_]:
    """Return for each client why it is left behind, one of `REASONS`, or ''; who has only just come is not.

    Benefit is judged only where the median of the known utilities is above 0: where nobody measured any, all are 0.

    Args:
        rounds_present: rounds since each client registered, that round included, shape (N,).
        available: n_k, rounds in which it was available.
        selected: rounds in which it was selected.
        participated: rounds that it completed.
        normalized_utility: its utility per opportunity, nan where unknown.
    """
    never = (rounds_present >= MANY_OPPORTUNITIES) & (available == 0)
    often = available >= MANY_OPPORTUNITIES
    known = normalized_utility[~np.isnan(normalized_utility)]
    median = float(np.median(known)) if len(known) else 0.0
    little = often & (median > 0) & (normalized_utility <= LITTLE_BENEFIT * median)
    holds = (never, often & (selected == 0), often & (participated == 0), little)
    return np.select(holds, REASONS, "")
