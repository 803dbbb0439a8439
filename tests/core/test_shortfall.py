"""The parts of a shortfall: by hand, that they add up, and that no utility is too much for them."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityfl.core.ledger import Ledger
from parityfl.core.shortfall import shortfall


def ledger_of(rounds, available, selected, participated, utility):
    counts = {"available": available, "selected": selected, "participated": participated}
    arrays = {name: np.array(value, dtype=np.int64) for name, value in counts.items()}
    first = np.ones(len(utility), dtype=np.int64)
    return replace(Ledger.empty(len(utility)), rounds=rounds, first_round=first, utility=np.array(utility), **arrays)


def test_the_parts_by_hand():
    """Four rounds, n = (4, 2), s = (2, 2), P = (2, 1), u = (3, 1): pi = 6/8, sigma = 4/6, e = 3/4, g = 4/3.

    The share is 4 x 3/4 x 2/3 x 3/4 x 4/3 = 2. Absence (3 - n) 2/3, scheduling 2n/3 - s, execution (3s/4 - P) 4/3,
    learning 4P/3 - u.
    """
    parts = shortfall(ledger_of(4, (4, 2), (2, 2), (2, 1), (3.0, 1.0)))
    assert parts.share == pytest.approx([2, 2])
    assert parts.total == pytest.approx([-1, 1])
    assert parts.physical == pytest.approx([-2 / 3, 2 / 3])
    assert parts.scheduling == pytest.approx([2 / 3, -2 / 3])
    assert parts.execution == pytest.approx([-2 / 3, 2 / 3])
    assert parts.learning == pytest.approx([-1 / 3, 1 / 3])


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 3, st.floats(-1e6, 1e6)), min_size=1, max_size=8))
def test_the_parts_add_up(clients):
    """Whatever happened, with n at most 9 rounds, s at most n and P at most s."""
    there, chosen, done, utility = (np.array(column) for column in zip(*clients, strict=True))
    chosen = np.minimum(chosen, there)
    parts = shortfall(ledger_of(9, there, chosen, np.minimum(done, chosen), utility))
    added = parts.physical + parts.scheduling + parts.execution + parts.learning
    np.testing.assert_allclose(added, parts.total, rtol=1e-9, atol=1e-9 * max(1.0, float(np.abs(utility).sum())))


def test_of_a_client_whose_utility_nobody_measured_only_its_gain_is_unknown():
    """Four rounds, n = (4, 2), s = (2, 2), P = (2, 1), u = (3, ?): g = 3/2, from the first alone, so the share is 9/4.

    Absence (3 - n) 3/4, scheduling (2n/3 - s) 9/8, execution (3s/4 - P) 3/2, learning 3P/2 - u.
    """
    parts = shortfall(ledger_of(4, (4, 2), (2, 2), (2, 1), (3.0, np.nan)))
    assert parts.share == pytest.approx([9 / 4, 9 / 4])
    assert parts.physical == pytest.approx([-3 / 4, 3 / 4])
    assert parts.scheduling == pytest.approx([3 / 4, -3 / 4])
    assert parts.execution == pytest.approx([-3 / 4, 3 / 4])
    assert parts.learning == pytest.approx([0, np.nan], nan_ok=True)
    assert parts.total == pytest.approx([-3 / 4, np.nan], nan_ok=True)


@pytest.mark.parametrize("utility", [(1.7e308, 1.7e308), (np.inf, 1.0), (np.inf, -np.inf), (1.7e308, -1.7e308)])
def test_no_utility_ends_a_run(utility):
    """What cannot be added up is not finite, and raises nothing."""
    assert all(len(part) == 2 for part in astuple(shortfall(ledger_of(4, (4, 2), (2, 2), (2, 1), utility))))


def test_a_single_participation_counts():
    """pi 1, sigma 1/2, e 1, g 2."""
    parts = shortfall(ledger_of(1, (1, 1), (1, 0), (1, 0), (2.0, 0.0)))
    assert parts.share == pytest.approx([1, 1])
    assert parts.scheduling == pytest.approx([-1, 1])
