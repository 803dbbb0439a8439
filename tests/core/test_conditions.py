"""Latency and drop-out are pure functions of (seed, round, client) with the distributions that they promise."""

import numpy as np
import pytest

from parityfl.core.conditions import Dropout, Latency, dropouts, latencies
from parityfl.core.errors import ConfigError
from parityfl.core.types import World


def world(num_clients, seed=0):
    return World(seed, num_clients, 2, 600.0, np.arange(1, num_clients + 1), np.zeros((num_clients, 0), dtype=np.int64))


def test_no_latency_by_default():
    assert latencies(Latency(), world(3), 1).tolist() == [0.0, 0.0, 0.0]


def test_latency_without_noise_by_hand():
    """2 s and half a second for each of 1, 2 and 3 examples: 2.5, 3, 3.5."""
    assert latencies(Latency(median_s=2, spread=0, jitter=0, per_sample_s=0.5), world(3), 1).tolist() == [2.5, 3.0, 3.5]


def test_spread_stays_and_jitter_does_not():
    slow = Latency(median_s=1, spread=1, jitter=0)
    assert np.array_equal(latencies(slow, world(5), 1), latencies(slow, world(5), 2))
    assert len(set(latencies(slow, world(5), 1))) == 5
    jittery = Latency(median_s=1, spread=0, jitter=1)
    assert not np.any(latencies(jittery, world(5), 1) == latencies(jittery, world(5), 2))


def test_latency_is_pure_and_independent_of_the_number_of_clients():
    keys = Latency(median_s=3, spread=0.5, jitter=0.2, per_sample_s=0.1)
    few, many = latencies(keys, world(4), 7), latencies(keys, world(50), 7)
    assert np.array_equal(few, many[:4])
    assert np.array_equal(few, latencies(keys, world(4), 7))
    assert not np.array_equal(few, latencies(keys, world(4, seed=1), 7))


def test_latency_is_log_normal_about_its_median():
    """log latency has mean log 3 and variance 0.5^2 + 0.2^2 = 0.29; 5 standard errors of 4000 clients."""
    logs = np.log(latencies(Latency(median_s=3, spread=0.5, jitter=0.2), world(4000), 1))
    assert logs.mean() == pytest.approx(np.log(3), abs=5 * np.sqrt(0.29 / 4000))
    assert logs.var() == pytest.approx(0.29, rel=5 * np.sqrt(2 / 4000))


def test_dropout_rates():
    """Rates 0 and 1 are exact; 0.3 over 2000 rounds within 5 standard errors."""
    rounds = np.array([dropouts(Dropout(rate=[0.0, 1.0, 0.3]), world(3), r) for r in range(1, 2001)])
    assert not rounds[:, 0].any()
    assert rounds[:, 1].all()
    assert rounds[:, 2].mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / 2000))


def test_dropout_is_pure_and_independent_of_the_number_of_clients():
    few, many = dropouts(Dropout(rate=0.5), world(8), 3), dropouts(Dropout(rate=0.5), world(80), 3)
    assert few.dtype == np.bool_
    assert np.array_equal(few, many[:8])


def test_nobody_drops_out_by_default():
    assert not dropouts(Dropout(), world(4), 1).any()


@pytest.mark.parametrize("key", ["median_s", "spread", "jitter", "per_sample_s"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_wrong_latency_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"latency\.{key} = {value:g} must be at least 0"):
        Latency(**{key: value})


def test_a_wrong_rate_is_named():
    with pytest.raises(ConfigError, match=r"dropout\.rate holds 2"):
        dropouts(Dropout(rate=2), world(2), 1)
