"""Who is left behind, and why: the warning of a run that goes on and of the report of one that has ended."""

import numpy as np
from numpy.typing import NDArray

from parityfl.core.types import FloatArray, IntArray

MANY_ROUNDS = 5
"""Rounds since a client registered before it can count as left behind for having been away."""

MANY_DUE = 5
"""A client can count as left behind for what became of its opportunities once the average client with as many would
have been selected so often: where one in twenty is selected, that takes a hundred rounds."""

MANY_MISSED = 10
"""So many selections in a row without a completed round are no accident."""

LITTLE_BENEFIT = 0.1
"""A utility of at most this share of the median is little."""

REASONS = (
    "never available",
    "never selected",
    "never completed a round",
    "no longer completes rounds",
    "little benefit",
)
"""Why a client may be left behind; the first that holds is the one given."""


def left_behind(
    *,
    rounds_present: IntArray,
    available: IntArray,
    selected: IntArray,
    participated: IntArray,
    missed: IntArray,
    normalized_utility: FloatArray,
) -> NDArray[np.str_]:
    """Return for each client why it is left behind, one of `REASONS`, '' where it is not; a newcomer is not.

    Benefit is judged only where the median of the known utilities is above 0: where nobody measured any, all are 0. It
    is little where it is so in total and per opportunity: once there is little left to learn, those who are always
    there have ever less per opportunity, and those who are seldom there have less in total.

    Args:
        rounds_present: rounds since each client registered, that round included, shape (N,).
        available: n_k, rounds in which it was available.
        selected: rounds in which it was selected.
        participated: rounds that it completed.
        missed: how often it was selected since it last completed a round.
        normalized_utility: its utility per opportunity, nan where unknown.
    """
    absent = (rounds_present >= MANY_ROUNDS) & (available == 0)
    due = (available > 0) & (available * selected.sum() >= MANY_DUE * available.sum())
    little = _is_little(normalized_utility) & _is_little(normalized_utility * available)
    holds = (absent, due & (selected == 0), due & (participated == 0), missed >= MANY_MISSED, due & little)
    return np.select(holds, REASONS, "")


def _is_little(utility: FloatArray) -> NDArray[np.bool_]:
    known = utility[~np.isnan(utility)]
    median = float(np.median(known)) if len(known) else 0.0
    return (utility <= LITTLE_BENEFIT * median) & (median > 0)
