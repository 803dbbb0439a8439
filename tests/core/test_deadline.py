from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityfl.core.deadline import Deadline
from parityfl.core.ledger import OUTCOME_CODES, Ledger, RoundRecord, account
from parityfl.core.types import Outcome

SECONDS = st.one_of(st.just(float("nan")), st.floats(0.001, 1e6))


def ledger(latency, last_participated=1, last_overdue=0) -> Ledger:
    count = len(latency)
    full = lambda value: np.broadcast_to(np.asarray(value, dtype=np.int64), count)  # noqa: E731
    return replace(
        Ledger.empty(count),
        latency_s=np.asarray(latency, dtype=float),
        last_participated=full(last_participated),
        last_overdue=full(last_overdue),
    )


def test_a_fixed_deadline_does_not_look() -> None:
    assert Deadline(60.0).seconds(ledger([1.0, 2.0, 3.0])) == 60.0


def test_median_plus_k_median_absolute_deviations() -> None:
    """Of 1, 2, 3, 4, 10 the median is 3, the deviations 2, 1, 0, 1, 7 with median 1: 3 + 4 x 1 = 7. Nan is unknown."""
    rule = Deadline(60.0, adaptive=True, spread=4.0)
    assert rule.seconds(ledger([1.0, 2.0, np.nan, 3.0, 4.0, 10.0])) == 7.0


def test_too_few_latencies_are_no_reason_to_hurry() -> None:
    assert Deadline(60.0, adaptive=True).seconds(ledger([1.0, 2.0, np.nan])) == 60.0


def test_who_missed_its_last_deadline_counts_with_the_limit() -> None:
    """Two of three were cut off at 3 s: the median is the limit, 60, and so is the deadline. Old lateness is over."""
    rule = Deadline(60.0, adaptive=True)
    assert rule.seconds(ledger([2.0, 3.0, 3.0], last_participated=[5, 4, 0], last_overdue=[0, 5, 5])) == 60.0
    assert rule.seconds(ledger([2.0, 3.0, 3.0], last_participated=5, last_overdue=[0, 4, 4])) == 3.0


def test_who_failed_after_it_was_cut_off_still_counts_with_the_limit() -> None:
    """Clients 1 and 2 are cut off at 3 s in round 1 and fail in round 2, which says nothing of their latency.

    In round 3 they complete in 4 and 5 s: of 2, 4, 5 the median is 4, the deviations 2, 0, 1: 4 + 4 x 1 = 8.
    """
    rule, history = Deadline(60.0, adaptive=True), Ledger.empty(3)
    completed, late, failed = (OUTCOME_CODES.index(end) for end in (Outcome.COMPLETED, Outcome.LATE, Outcome.FAILED))
    played = [
        ([completed, late, late], [2.0, 3.0, 3.0], 60.0),
        ([completed, failed, failed], [2.0, 1.0, 1.0], 60.0),
        ([completed] * 3, [2.0, 4.0, 5.0], 8.0),
    ]
    for number, (outcome, latency_s, deadline_s) in enumerate(played, start=1):
        here = np.ones(3, dtype=bool)
        record = RoundRecord.unmeasured(
            np.full(3, np.nan),
            round=number,
            time_s=0.0,
            registered=here,
            available=here,
            selected=here,
            outcome=np.array(outcome),
            latency_s=np.array(latency_s),
        )
        history = account(history, record)
        assert rule.seconds(history) == deadline_s


@given(st.lists(SECONDS, min_size=1, max_size=9), st.floats(0.1, 1e4), st.floats(0, 10))
def test_it_is_above_zero_and_never_above_the_limit(latency, limit, spread) -> None:
    assert 0 < Deadline(limit, True, spread).seconds(ledger(latency)) <= limit


@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0])
def test_a_larger_spread_waits_longer(spread) -> None:
    seen = ledger([1.0, 2.0, 4.0, 8.0])
    assert Deadline(60.0, True, spread).seconds(seen) <= Deadline(60.0, True, spread + 1).seconds(seen)
