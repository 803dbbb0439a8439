"""Who is left behind: one reason each, the first that holds."""

import numpy as np
import pytest

from parityfl.core.left_behind import REASONS, left_behind

NAN = float("nan")


def reasons(*clients):
    """Return the reasons for clients given as (available, selected, participated, normalised utility), here long."""
    counts = np.array([(9, *client[:3]) for client in clients], dtype=np.int64).T
    return left_behind(*counts, np.array([client[3] for client in clients])).tolist()


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ((0, 0, 0, NAN), "never available"),
        ((4, 0, 0, 0.0), ""),
        ((5, 0, 0, 0.0), "never selected"),
        ((5, 1, 0, 0.0), "never completed a round"),
        ((5, 1, 1, 0.05), "little benefit"),
        ((5, 1, 1, 0.06), ""),
        ((4, 1, 1, 0.0), ""),
        ((5, 1, 1, -1.0), "little benefit"),
        ((5, 1, 1, NAN), ""),
    ],
)
def test_each_reason(client, reason):
    """The median of the known utilities is 0.5, so little is 0.05 or less, in 5 opportunities or more."""
    others = [(9, 3, 3, 0.5)] * 3
    assert reasons(client, *others) == [reason, "", "", ""]


@pytest.mark.parametrize("median", [0.0, -0.5, NAN])
def test_without_benefit_nobody_has_little(median):
    """Utility is 0 for all where nobody measured any; below 0 where the model gets worse for most."""
    assert reasons(*[(9, 3, 3, median)] * 4, (9, 3, 3, -1.0)) == [""] * 5


def test_who_has_only_just_come_is_not_left_behind():
    """It is judged from its fifth round on."""
    nothing = np.zeros(3, dtype=np.int64)
    found = left_behind(np.array([1, 4, 5]), nothing, nothing, nothing, np.full(3, NAN))
    assert found.tolist() == ["", "", "never available"]


def test_it_says_nothing_else():
    found = reasons((0, 0, 0, NAN), (5, 0, 0, 0.0), (5, 1, 0, 0.0), (5, 1, 1, 0.0), *[(9, 3, 3, 0.5)] * 9)
    assert tuple(found[:4]) == REASONS
    assert set(found[4:]) == {""}


def test_nobody_is_nobody():
    assert left_behind(*np.zeros((4, 0), dtype=np.int64), np.zeros(0)).tolist() == []
