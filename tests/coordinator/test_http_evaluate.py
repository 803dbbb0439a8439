import threading

import numpy as np
import pytest
from fakes import enter, fleet_of, honest

from network import WEIGHTS, run, small_config
from parityfl.coordinator.evaluate import HttpEvaluator
from parityfl.core.types import Vector


def test_who_is_there_measures_and_nobody_else() -> None:
    """The loss is the sum of the parameters, 6; device k's accuracy is k / 10. h2 is away, h3 is not there."""

    async def main() -> None:
        async with fleet_of(small_config(rounds={"clock": "wall"}), honest, honest, honest) as (fleet, _):
            fleet.registry.move(fleet.registry.at(2), "away", "test")
            measured = await HttpEvaluator(fleet)(1, WEIGHTS, WEIGHTS)
            np.testing.assert_array_equal(measured.clients.loss, [6, 6, np.nan, np.nan])
            np.testing.assert_array_equal(measured.clients.accuracy, [0.0, 0.1, np.nan, np.nan])
            assert np.isnan(measured.global_loss)
            assert np.isnan(measured.ema_global_accuracy)

    run(main())


def test_who_does_not_answer_leaves_nan() -> None:
    async def main() -> None:
        async with fleet_of(small_config(rounds={"clock": "wall"}), honest) as (fleet, _):
            enter(fleet.registry, "h1", 1)
            measured = await HttpEvaluator(fleet)(1, WEIGHTS, WEIGHTS)
            np.testing.assert_array_equal(measured.clients.loss, [6, np.nan, np.nan, np.nan])

    run(main())


@pytest.mark.parametrize("factor", [-1, 1e12])
def test_a_loss_that_cannot_be_is_none(factor: float) -> None:
    """The sum of the parameters is then -6, or 6e12."""

    async def main() -> None:
        async with fleet_of(small_config(rounds={"clock": "wall"}), honest) as (fleet, _):
            weights = WEIGHTS * np.float32(factor)
            measured = await HttpEvaluator(fleet)(1, weights, weights)
            assert np.isnan(measured.clients.loss).all()
            assert np.isnan(measured.clients.accuracy).all()

    run(main())


def test_the_test_set_is_measured_off_the_event_loop() -> None:
    threads = set()

    def test_set(weights: Vector) -> tuple[float, float]:
        threads.add(threading.current_thread())
        return float(weights[0]), float(weights[1]) / 10

    async def main() -> None:
        async with fleet_of(small_config(rounds={"clock": "wall"})) as (fleet, _):
            measured = await HttpEvaluator(fleet, test_set)(1, WEIGHTS, WEIGHTS * 2)
            assert (measured.global_loss, measured.global_accuracy) == (1.0, 0.2)
            assert measured.ema_global_accuracy == 0.4
            between = await HttpEvaluator(fleet, test_set)(2, WEIGHTS, WEIGHTS * 2, on_test_set=False)
            assert np.isnan([between.global_loss, between.global_accuracy, between.ema_global_accuracy]).all()

    run(main())
    assert len(threads) == 1
    assert threading.main_thread() not in threads
