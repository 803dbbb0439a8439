import threading

import numpy as np
import pytest
from fakes import enter, fleet_of, honest, replies, task

from network import WEIGHTS, run, small_config
from parityfl.coordinator.evaluate import HttpEvaluator
from parityfl.core.types import Vector
from parityfl.wire.schemas import DeviceReport


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


def test_who_does_not_answer_in_time_rests_and_holds_up_few_rounds(caplog: pytest.LogCaptureFixture) -> None:
    """h1 hangs: it is asked in round 1, after 1 round in 3, after 2 in 6, after 4 in 11; then it answers."""
    times = {"clock": "wall", "heartbeat_s": 0.5, "deadline_s": 0.25, "grace_s": 0.25}

    async def main() -> None:
        async with fleet_of(small_config(rounds=times), honest, honest) as (fleet, fakes):
            fakes[1].hangs_in_evaluation = True
            evaluate, asked, known = HttpEvaluator(fleet), [], []
            for number in range(1, 14):
                if number == 11:
                    fakes[1].hangs_in_evaluation = False
                for fake in fakes:
                    fleet.registry.report(DeviceReport(device_id=fake.name, available=True))
                before = fakes[1].evaluations
                measured = await evaluate(number, WEIGHTS, WEIGHTS)
                asked += [number] * (fakes[1].evaluations - before)
                known += [number] * int(not np.isnan(measured.clients.loss[1]))
                assert measured.clients.loss[0] == 6
            assert (asked, known) == ([1, 3, 6, 11, 12, 13], [11, 12, 13])

    run(main())
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition("again ")[2] for line in said if "/evaluate" in line] == [
        f"from round {number} on" for number in (3, 6, 11)
    ]


def test_who_had_next_to_no_time_does_not_rest() -> None:
    times = {"clock": "wall", "heartbeat_s": 5.0, "deadline_s": 0.1, "grace_s": 0.1}

    async def main() -> None:
        async with fleet_of(small_config(rounds=times), honest) as (fleet, fakes):
            fakes[0].hangs_in_evaluation = True
            evaluate = HttpEvaluator(fleet)
            for number in (1, 2):
                await evaluate(number, WEIGHTS, WEIGHTS)
            assert fakes[0].evaluations == 2

    run(main())


def test_who_only_waited_for_its_turn_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is asked at a time, and h0 takes all the time of the first evaluation: it rests then, and h1 does not."""
    monkeypatch.setattr("parityfl.coordinator.devices.MAX_CONNECTIONS", 1)
    times = {"clock": "wall", "heartbeat_s": 0.2, "deadline_s": 0.1, "grace_s": 0.3}

    async def main() -> None:
        async with fleet_of(small_config(rounds=times), honest, honest) as (fleet, fakes):
            fakes[0].hangs_in_evaluation = True
            evaluate = HttpEvaluator(fleet)
            for number in (1, 2):
                for fake in fakes:
                    fleet.registry.report(DeviceReport(device_id=fake.name, available=True))
                assert await replies(fleet, task(round=number)) == []
                await evaluate(number, WEIGHTS, WEIGHTS)
            assert [fake.evaluations for fake in fakes] == [1, 1]

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
