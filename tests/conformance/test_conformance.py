"""Every claim about a resting point holds, and every registered aggregator has at least one."""

import numpy as np
import pytest
from cards import card

from parityfl.conformance.aggregation import CHECKS, Verdict
from parityfl.conformance.quadratic import Quadratic, Trial
from parityfl.core.aggregation import aggregator
from parityfl.core.aggregation.fedavg import FedAvg

PAIR = Quadratic(optima=np.array([0.0, 1.0]), rates=np.array([1.0, 0.5]), per_round=1)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_row(check):
    row = check()
    assert row.ok, f"{row.name}: {row.claim}: expected {row.expected}, measured {row.measured}"
    assert row.name.replace("-", "_") in check.__name__
    assert f'"{row.claim}"' in card("Aggregators", row.name)


def test_a_row_says_when_a_claim_fails():
    assert Verdict("fedavg", "one is one", 1.0, 1.05, 0.1).ok
    assert not Verdict("fedavg", "one is two", 2.0, 1.0, 0.1).ok
    assert not Verdict("fedavg", "nothing was measured", 2.0, float("nan"), 0.1).ok


def test_local_training_goes_part_of_the_way():
    """1 - (1 - .1)^5 = .40951 of the way from 3 to 1; the loss before is 2² / 2."""
    problem = Quadratic(optima=np.array([1.0]), rates=np.ones(1), per_round=1)
    update = problem.update(0, np.array([3.0], dtype=np.float32))
    assert update.delta[0] == pytest.approx(-2 * 0.40951)
    assert update.loss_before == 2.0


def test_expectation_by_hand():
    """Client 1 is there half of the time and then drawn half of the time: it is the participant with chance 1/4."""
    assert PAIR.expectation(lambda _, group: float(group == (1,))) == pytest.approx(0.25)
    np.testing.assert_allclose(PAIR.probability((0, 1)), [0.5, 0.5])
    np.testing.assert_allclose(PAIR.probability((0,)), [1.0, 0.0])


def test_presence_in_bursts_keeps_the_rate():
    """20,000 rounds that stay with chance .8 are worth 20,000 / 9 fresh ones: standard error .01."""
    bursty = Quadratic(np.zeros(1), np.array([0.3]), 1, persistence=0.8)
    present = bursty.presence(20_000, 0)[:, 0]
    assert present.mean() == pytest.approx(0.3, abs=0.04)
    assert np.mean(present[1:] == present[:-1]) > 0.9


def test_a_trial_is_seeded():
    once, again, other = (Trial(PAIR, FedAvg(), seed=seed).models(50) for seed in (1, 1, 2))
    assert once.tobytes() == again.tobytes()
    assert once.tobytes() != other.tobytes()


def test_nobody_there_leaves_the_model():
    absent = Quadratic(np.ones(2), np.zeros(2), 1)
    np.testing.assert_array_equal(Trial(absent, FedAvg(), start=0.5).models(3), [0.5, 0.5, 0.5])


def test_every_aggregator_has_a_row():
    """A check has the name of its rule in its own, which `test_row` asserts."""
    checks = " ".join(check.__name__ for check in CHECKS)
    assert [name for name in aggregator.names() if name.replace("-", "_") not in checks] == []
