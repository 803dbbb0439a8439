"""The ledger adds up what happened, and nothing impossible gets into it."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityfl.core.ledger import COMPLETED, LATE, OUTCOME_CODES, Ledger, RoundRecord, account
from parityfl.core.types import Outcome

FAILED = OUTCOME_CODES.index(Outcome.FAILED)
NAN = float("nan")


def record(number, available, outcome, **columns):
    """Return a round; what is not given is unknown, and everybody is registered."""
    size = len(available)
    plain = {field.name: np.full(size, NAN) for field in fields(RoundRecord)}
    plain |= {
        "round": number,
        "time_s": 600.0 * (number - 1),
        "registered": np.ones(size, dtype=bool),
        "available": np.array(available, dtype=bool),
        "outcome": np.array(outcome, dtype=np.int64),
        "selected": np.array(outcome) > 0,
        "credit": np.zeros(size),
    }
    return RoundRecord(**{**plain, **{name: np.array(value) for name, value in columns.items()}})


@st.composite
def histories(draw):
    """Return up to 12 rounds of 4 clients, consistent but otherwise arbitrary; registration is for good."""
    rounds, registered = [], np.zeros(4, dtype=bool)
    flags = st.lists(st.booleans(), min_size=4, max_size=4).map(np.array)
    for number in range(1, draw(st.integers(1, 12)) + 1):
        registered = registered | draw(flags)
        available = registered & draw(flags)
        selected = available & draw(flags)
        fate = np.array(draw(st.lists(st.integers(1, len(OUTCOME_CODES) - 1), min_size=4, max_size=4)))
        outcome = np.where(selected, fate, 0)
        credit = np.where(outcome == COMPLETED, draw(st.floats(-2, 2)), 0.0)
        loss = np.array(draw(st.lists(st.floats(0, 3) | st.just(NAN), min_size=4, max_size=4)))
        rounds.append(record(number, available, outcome, registered=registered, credit=credit, eval_loss=loss))
    return rounds


def ledger_of(rounds):
    ledger = Ledger.empty(len(rounds[0].available))
    for each in rounds:
        ledger = account(ledger, each)
    return ledger


@given(histories())
def test_participated_implies_selected_implies_available_implies_registered(rounds):
    ledger = ledger_of(rounds)
    assert np.all(ledger.participated <= ledger.selected)
    assert np.all(ledger.selected <= ledger.available)
    assert np.all(ledger.available <= ledger.rounds_present)
    assert np.all(ledger.rounds_present <= ledger.rounds)
    assert np.all(ledger.last_participated <= ledger.last_selected)


@given(histories())
def test_the_account_adds_up(rounds):
    """Every sum equals the one over the records, computed at once."""
    ledger = ledger_of(rounds)
    for name in ("available", "selected", "participated"):
        np.testing.assert_array_equal(getattr(ledger, name), sum(getattr(each, name).astype(int) for each in rounds))
    np.testing.assert_allclose(ledger.utility, sum(each.credit for each in rounds), atol=1e-12)
    assert ledger.rounds == len(rounds)
    for k in range(4):
        there = [each.round for each in rounds if each.registered[k]]
        assert ledger.first_round[k] == (there[0] if there else 0)
        took = [each.round for each in rounds if each.participated[k]]
        assert ledger.last_participated[k] == max(took, default=0)
        known = [(each.round, each.eval_loss[k]) for each in rounds if not np.isnan(each.eval_loss[k])]
        np.testing.assert_equal((ledger.last_evaluated[k], ledger.eval_loss[k]), known[-1] if known else (0, NAN))


@given(histories())
def test_switches_are_counted_from_the_first_registration(rounds):
    ledger = ledger_of(rounds)
    for k in range(4):
        seen = [bool(each.available[k]) for each in rounds if each.registered[k]]
        on = sum(after and not before for before, after in pairwise(seen))
        off = sum(before and not after for before, after in pairwise(seen))
        assert (ledger.switched_on[k], ledger.switched_off[k]) == (on, off)


@given(histories())
def test_a_ledger_survives_the_journal(rounds):
    before = ledger_of(rounds)
    after = Ledger.from_arrays(before.to_arrays())
    for field in fields(Ledger):
        np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))


@given(histories())
def test_accounting_changes_nothing_in_place(rounds):
    ledger = Ledger.empty(4)
    account(ledger, rounds[0])
    assert ledger.rounds == 0
    assert not ledger.available.any()


def test_two_rounds_by_hand():
    """Three clients. Round 1: 0 and 1 there, both selected, 0 completes with 0.5, 1 fails. Round 2: 0 and 2 there, 2
    selected and late, with no credit. n = (2, 1, 1), s = (1, 1, 1), p = (1, 0, 0), u = (.5, 0, 0), u/n = (.25, 0, 0).
    The latency of a failure is none.
    """
    ledger = ledger_of(
        [
            record(
                1,
                [1, 1, 0],
                [COMPLETED, FAILED, 0],
                credit=[0.5, 0, 0],
                eval_loss=[1.0, 2.0, NAN],
                latency_s=[3, 4, 5],
            ),
            record(2, [1, 0, 1], [0, 0, LATE], eval_loss=[0.7, NAN, 3.0]),
        ]
    )
    assert ledger.available.tolist() == [2, 1, 1]
    assert ledger.selected.tolist() == [1, 1, 1]
    assert ledger.participated.tolist() == [1, 0, 0]
    assert ledger.last_selected.tolist() == [1, 1, 2]
    assert ledger.last_participated.tolist() == [1, 0, 0]
    assert ledger.normalized_utility.tolist() == [0.25, 0.0, 0.0]
    assert ledger.eval_loss.tolist() == [0.7, 2.0, 3.0]
    assert ledger.last_evaluated.tolist() == [2, 1, 2]
    np.testing.assert_array_equal(ledger.latency_s, [3, NAN, NAN])
    assert (ledger.late.tolist(), ledger.last_overdue.tolist()) == ([0, 0, 1], [0, 0, 2])
    assert (ledger.switched_on.tolist(), ledger.switched_off.tolist()) == ([0, 0, 1], [0, 1, 0])
    assert ledger.present.tolist() == [1, 0, 1]


def test_a_client_never_seen_has_no_utility_per_opportunity():
    ledger = ledger_of([record(1, [1, 0], [0, 0])])
    np.testing.assert_array_equal(ledger.normalized_utility, [0.0, NAN])


def test_an_unknown_truth_stays_unknown():
    ledger = ledger_of([record(1, [1, 1], [0, 0], availability_true=[0.5, NAN])] * 2)
    np.testing.assert_array_equal(ledger.expected_available, [1.0, NAN])


GOOD = record(1, [1, 1, 0], [COMPLETED, 0, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selected": np.array([False, False, False])}, "participated implies selected"),
        ({"available": np.array([False, True, True])}, "selected implies available"),
        ({"registered": np.array([True, False, True])}, "available implies registered"),
        ({"selected": np.array([True, True, False])}, "exactly one outcome"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(AssertionError, match=message):
        replace(GOOD, **changes)


def test_a_utility_that_no_float_holds_is_infinite_from_then_on():
    """1e308 + 1e308 is more than the largest float, 1.8e308; the 0.5 after it does not bring it back."""
    rounds = [record(number, [1], [COMPLETED], credit=[credit]) for number, credit in enumerate([1e308, 1e308, 0.5], 1)]
    assert [ledger_of(rounds[:count]).utility[0] for count in (1, 2, 3)] == [1e308, np.inf, np.inf]


def test_what_is_counted_over_many_rounds():
    """Client 0 comes and goes twice; client 1 fails three times, completes, then fails."""
    there, fates = [1, 0, 1, 0, 1], [FAILED, FAILED, FAILED, COMPLETED, FAILED]
    rounds = [record(t + 1, [there[t], 1], [0, fates[t]]) for t in range(5)]
    assert ledger_of(rounds[:3]).missed.tolist() == [0, 3]
    after = ledger_of(rounds)
    assert after.missed.tolist() == [0, 1]
    assert (after.switched_on.tolist(), after.switched_off.tolist()) == ([2, 0], [2, 0])
    late = ledger_of([record(t, [1], [LATE]) for t in (1, 2, 3)])
    assert (late.late.tolist(), late.last_overdue.tolist()) == ([3], [3])
