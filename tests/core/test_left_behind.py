"""Who is left behind: one reason each, the first that holds."""

import numpy as np
import pytest

from parityfl.core.left_behind import REASONS, left_behind

NAN = float("nan")
ARGUMENTS = ("rounds_present", "available", "selected", "participated", "missed", "normalized_utility")


def reasons(*clients):
    """Return the reasons for clients given as (available, selected, participated, missed, normalised utility).

    They registered nine rounds ago, and somebody who is always selected makes up for those who are not: see `USUAL`.
    """
    return judge(*np.array([(9, *client) for client in clients]).T)


def judge(*facts):
    """Return the reasons for clients given as an array for each argument of `left_behind`, in their order."""
    return left_behind(**dict(zip(ARGUMENTS, facts, strict=True))).tolist()


USUAL = [(1000, 1000, 1000, 0, 0.5)] * 3
"""With them the average client is selected nearly whenever it is there, and the median per opportunity is 0.5."""


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ((0, 0, 0, 0, NAN), "never available"),
        ((5, 0, 0, 0, 0.0), ""),
        ((6, 0, 0, 0, 0.0), "never selected"),
        ((6, 1, 0, 1, 0.0), "never completed a round"),
        ((6, 1, 1, 0, 0.05), "little benefit"),
        ((6, 1, 1, 0, 0.06), ""),
        ((5, 1, 1, 0, 0.0), ""),
        ((6, 1, 1, 0, -1.0), "little benefit"),
        ((6, 1, 1, 0, NAN), ""),
        ((1000, 1000, 1000, 0, 0.01), "little benefit"),
        ((50, 30, 20, 10, 0.5), "no longer completes rounds"),
        ((50, 30, 21, 9, 0.5), ""),
    ],
)
def test_each_reason(client, reason):
    """Selected is 3,000 and a few of 3,006 times, so that 6 opportunities and not 5 are worth five selections."""
    assert reasons(client, *USUAL) == [reason, "", "", ""]


@pytest.mark.parametrize(("rounds", "reason"), [(124, ""), (125, "never selected")])
def test_where_places_are_few_a_client_waits_its_turn(rounds, reason):
    """4 of 100 are selected a round, 99 of them in turn: the average client has five selections in 125 rounds."""
    served = [(rounds, rounds * 4 // 99, 1, 0, 0.1)] * 99
    missing = rounds * 4 - 99 * (rounds * 4 // 99)
    served[0] = (rounds, rounds * 4 // 99 + missing, 1, 0, 0.1)
    assert reasons((rounds, 0, 0, 0, 0.0), *served) == [reason] + [""] * 99


def test_benefit_that_is_little_for_each_opportunity_only_is_not_little():
    """All gained 0.7 in all; the first two had ten times as many rounds for it."""
    assert reasons(*[(900, 900, 900, 0, 0.7 / 900)] * 2, *[(90, 90, 90, 0, 0.7 / 90)] * 3) == [""] * 5


@pytest.mark.parametrize("median", [0.0, -0.5, NAN])
def test_without_benefit_nobody_has_little(median):
    """Utility is 0 for all where nobody measured any; below 0 where the model gets worse for most."""
    assert reasons(*[(9, 9, 9, 0, median)] * 4, (9, 9, 9, 0, -1.0)) == [""] * 5


def test_who_has_only_just_come_is_not_left_behind():
    """It is judged from its fifth round on."""
    nothing = np.zeros(3, dtype=np.int64)
    found = judge(np.array([1, 4, 5]), *[nothing] * 4, np.full(3, NAN))
    assert found == ["", "", "never available"]


def test_it_says_nothing_else():
    unlucky = [(0, 0, 0, 0, NAN), (9, 0, 0, 0, 0.0), (9, 1, 0, 1, 0.0), (30, 20, 10, 10, 0.5), (9, 1, 1, 0, 0.0)]
    found = reasons(*unlucky, *USUAL * 3)
    assert tuple(found[:5]) == REASONS
    assert set(found[5:]) == {""}


def test_nobody_is_nobody():
    assert judge(*np.zeros((6, 0))) == []
