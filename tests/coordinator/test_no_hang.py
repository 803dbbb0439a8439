"""Every round ends in time, whatever the devices do, and rounds that bring nothing do not spin."""

import asyncio
from typing import Any

import numpy as np
import pytest
from fakes import answer, enter, fixed, fleet_of, hanging, honest, replies, task, waiting_for
from fastapi.responses import Response

from network import WEIGHTS, run, small_config, until
from parityfl.coordinator.closing import Closing
from parityfl.coordinator.device_registry import LOOKS
from parityfl.coordinator.evaluate import HttpEvaluator
from parityfl.coordinator.events import KEPT, EventLog
from parityfl.coordinator.exchange import Exchange
from parityfl.coordinator.fleet import HttpFleet
from parityfl.core.availability.always import Always
from parityfl.core.errors import FolderError, UnfinishedError
from parityfl.core.types import Outcome
from parityfl.engine.fleet import Reply
from parityfl.testing.selection import small_world
from parityfl.web.problems import problem
from parityfl.wire.digests import CONTENT_DIGEST, content_digest, digest_of
from parityfl.wire.schemas import DeviceReport, TrainRequest


def live(**rounds: Any) -> Any:
    return small_config(rounds={"clock": "wall", "grace_s": 0.2, **rounds})


def now() -> float:
    return asyncio.get_running_loop().time()


def test_with_nobody_there_a_round_lasts_a_heartbeat() -> None:
    async def main() -> None:
        async with fleet_of(live(heartbeat_s=0.2)) as (fleet, _):
            for number in (1, 2, 3):
                began = now()
                assert await replies(fleet, task(round=number)) == []
                assert now() - began >= 0.2

    run(main())


def test_a_round_begins_as_soon_as_somebody_comes() -> None:
    async def main() -> None:
        async with fleet_of(live(heartbeat_s=60.0)) as (fleet, _):
            looking = asyncio.create_task(fleet.look(1, 0.0))
            await asyncio.sleep(0)
            enter(fleet.registry, "h0", 5000)
            assert (await looking).available.tolist() == [True, False, False, False]

    run(main())


def test_a_round_in_which_nobody_delivers_is_followed_by_a_heartbeat() -> None:
    """A device that fails at once is there all the time: without a pause a thousand rounds would pass in a second."""

    async def main() -> None:
        async with fleet_of(live(heartbeat_s=0.2), fixed(Response(status_code=500))) as (fleet, _):
            began = now()  # the heartbeat counts from the first look, however long its round then takes
            await replies(fleet, task(0))
            await replies(fleet, task(0, round=2))
            assert now() - began >= 0.2

    run(main())


def test_a_round_that_brings_something_is_followed_by_the_next_at_once() -> None:
    async def main() -> None:
        async with fleet_of(live(heartbeat_s=60.0), honest) as (fleet, _):
            await replies(fleet, task(0))
            await replies(fleet, task(0, round=2))

    run(main())


def test_whoever_stops_the_run_does_not_wait_for_the_pause() -> None:
    async def main() -> None:
        async with fleet_of(live(heartbeat_s=2.0)) as (fleet, _):
            fleet.stop.set()
            async with asyncio.timeout(1):
                await fleet.look(1, 0.0)

    run(main())


def test_an_adaptive_deadline_is_the_rounds() -> None:
    async def main() -> None:
        async with fleet_of(live(deadline_s=60.0), hanging) as (fleet, fakes):
            (reply,) = await replies(fleet, task(0, deadline_s=0.2))
            assert (reply.outcome, reply.reproducible) == (Outcome.LATE, False)
            assert "0.2 s" in reply.reason
            assert fakes[0].asked[0].deadline_s == 0.2

    run(main())


@pytest.mark.parametrize(("late", "lease_s"), [("discard", 1.0), ("next-round", 7.0)])
def test_a_device_knows_for_how_long_somebody_waits(late: str, lease_s: float) -> None:
    """Where late updates count, until its time-out; where they do not, until the round's deadline."""

    async def main() -> None:
        async with fleet_of(live(deadline_s=1.0, train_timeout_s=7.0, late=late), hanging) as (fleet, fakes):
            await replies(fleet, task(0))
            assert fakes[0].asked[0].deadline_s == lease_s

    run(main())


def test_devices_that_hang_in_evaluation_do_not_hold_the_round_beyond_deadline_and_grace() -> None:
    """h0 is late (1 s) and then hangs in /evaluate, for which the grace of 0.2 s is left; h1 evaluates."""

    async def main() -> None:
        async with fleet_of(live(deadline_s=1.0), hanging, honest) as (fleet, fakes):
            fakes[0].hangs_in_evaluation = True
            began = now()
            got = await replies(fleet, task(0, 1))
            assert [reply.outcome.value for reply in got] == ["late", "completed"]
            fleet.registry.report(DeviceReport(device_id="h0", available=True))
            found = await HttpEvaluator(fleet)(1, WEIGHTS, WEIGHTS)
            assert 1.0 < now() - began < 5.0
            assert np.isnan(found.clients.loss[0])
            assert found.clients.loss[1] == 6.0

    run(main())


@pytest.mark.parametrize(("status", "kind"), [(410, FolderError), (507, UnfinishedError)])
def test_what_a_device_cannot_do_without_ends_an_experiment_but_no_live_run(status: int, kind: type[Exception]) -> None:
    async def main() -> None:
        lost = fixed(problem(status, "what h0 kept in round 3 is lost"))
        async with fleet_of(small_config(), lost, honest) as (fleet, _):
            with pytest.raises(kind, match="what h0 kept in round 3 is lost"):
                await replies(fleet, task(0, 1))
        async with fleet_of(live(), lost) as (fleet, _):
            (reply,) = await replies(fleet, task(0))
            assert reply.outcome is Outcome.FAILED

    run(main())


async def watch(fleet: HttpFleet) -> None:
    """Look for the lost as the coordinator does."""
    while True:
        await asyncio.sleep(fleet.config.rounds.heartbeat_s / LOOKS)
        fleet.give_up_lost()


@pytest.mark.parametrize("late", ["discard", "next-round"])
def test_a_device_that_falls_silent_while_it_is_asked_does_not_hold_the_round(
    late: str, caplog: pytest.LogCaptureFixture
) -> None:
    """h0 neither answers nor reports (no device of this test does): given up when it is lost, not after a minute."""

    async def main() -> None:
        config = live(heartbeat_s=1.0, deadline_s=60.0, train_timeout_s=60.0, late=late)
        async with fleet_of(config, hanging, honest) as (fleet, _):
            watching = asyncio.create_task(watch(fleet))
            gone, here = await replies(fleet, task(0, 1))
            watching.cancel()
            assert (gone.outcome, here.outcome) == (Outcome.UNREACHABLE, Outcome.COMPLETED)
            assert "lost while it was asked: silent for" in gone.reason
            assert fleet.registry.at(0).state == "lost"
            assert fleet.registry.at(0).training is None
            assert "lost (h0" in caplog.text or "h0 is lost" in caplog.text

    run(main())


@pytest.mark.parametrize("clock", ["wall", "virtual"])
def test_a_device_that_is_revoked_while_it_is_asked_does_not_hold_the_round(clock: str) -> None:
    async def main() -> None:
        config = live(clock=clock, heartbeat_s=60.0, deadline_s=60.0, train_timeout_s=60.0)
        always = Always().bind(small_world((1.0,) * 4, 1)) if clock == "virtual" else None
        async with fleet_of(config, hanging, availability=always) as (fleet, fakes):
            answer = asyncio.create_task(replies(fleet, task(0)))
            await until(lambda: fakes[0].asked)
            fleet.registry.bar(["h0"])
            fleet.give_up_lost()
            (reply,) = await answer
            assert (reply.outcome, reply.reason) == (Outcome.UNREACHABLE, "revoked while it was asked")
            assert fleet.registry.at(0).state == "revoked"

    run(main())


def test_a_device_that_falls_silent_while_it_evaluates_does_not_hold_the_round() -> None:
    async def main() -> None:
        config = live(heartbeat_s=1.0, deadline_s=60.0)
        async with fleet_of(config, honest, honest) as (fleet, fakes):
            fakes[0].hangs_in_evaluation = True
            watching = asyncio.create_task(watch(fleet))
            found = await HttpEvaluator(fleet)(1, WEIGHTS, WEIGHTS)
            watching.cancel()
            np.testing.assert_array_equal(found.clients.loss[:2], [np.nan, 6.0])
            assert fleet.registry.at(0).state == "lost"

    run(main())


def test_an_answer_that_has_arrived_is_in_time_however_long_it_waits_to_be_read() -> None:
    async def main() -> None:
        read = asyncio.Event()

        async def call() -> Reply:
            await read.wait()
            return Reply(0, Outcome.COMPLETED)

        here, away = asyncio.create_task(call()), asyncio.create_task(call())
        closing = Closing([here, away], 0.01, None, lambda task: task is here)
        await closing.wait_for(away)
        assert closing.overdue == {away}
        waiting = asyncio.create_task(closing.wait_for(here))
        await asyncio.sleep(0)
        assert not waiting.done()
        read.set()
        await waiting
        assert here.done()

    run(main())


def test_when_an_answer_has_arrived_no_clock_of_its_device_runs_any_more() -> None:
    async def main() -> None:
        exchange = Exchange(0, asyncio.timeout(0.05), now)
        async with exchange.patience:
            exchange.arrive()
            exchange.give_up("lost")
            await asyncio.sleep(0.1)

    run(main())


def test_a_device_that_reports_while_it_trains_is_not_given_up() -> None:
    async def main() -> None:
        event = asyncio.Event()

        async with fleet_of(live(heartbeat_s=0.4), waiting_for(event)) as (fleet, _):
            watching = asyncio.create_task(watch(fleet))
            asking = asyncio.create_task(replies(fleet, task(0)))
            for _ in range(10):
                await asyncio.sleep(0.1)
                fleet.registry.report(DeviceReport(device_id="h0", available=True, training=1))
            event.set()
            (reply,) = await asking
            watching.cancel()
            assert reply.outcome is Outcome.COMPLETED

    run(main())


def test_in_an_experiment_silence_gives_nobody_up() -> None:
    """The device is lost meanwhile, and completes: on the virtual clock no result depends on who reports."""

    async def main() -> None:
        event = asyncio.Event()
        async with fleet_of(small_config(rounds={"heartbeat_s": 0.05}), waiting_for(event)) as (fleet, _):
            watching = asyncio.create_task(watch(fleet))
            asking = asyncio.create_task(replies(fleet, task(0)))
            await until(lambda: fleet.registry.at(0).state == "lost")
            event.set()
            (reply,) = await asking
            watching.cancel()
            assert (reply.outcome, reply.reproducible) == (Outcome.COMPLETED, True)

    run(main())


def test_in_an_experiment_a_process_that_is_stopping_is_asked_again() -> None:
    async def main() -> None:
        async def first_busy(device: Any, asked: TrainRequest, _: Any) -> Response:
            return answer(device, asked) if len(device.asked) > 1 else Response(status_code=503)

        async with fleet_of(small_config(), first_busy) as (fleet, _):
            (reply,) = await replies(fleet, task(0))
            assert (reply.outcome, reply.reproducible) == (Outcome.COMPLETED, True)

    run(main())


def test_an_answer_that_was_changed_on_the_way_is_a_broken_connection() -> None:
    """Live it is the outcome; in an experiment the device is asked again, and the second answer is whole."""

    async def main() -> None:
        async def spoiled_once(device: Any, asked: TrainRequest, _: Any) -> Response:
            response = answer(device, asked)
            shown = response.body if len(device.asked) > 1 else b"other"
            response.headers[CONTENT_DIGEST] = content_digest(digest_of(shown))
            return response

        async with fleet_of(live(), spoiled_once) as (fleet, _):
            (reply,) = await replies(fleet, task(0))
            assert (reply.outcome, reply.update) == (Outcome.UNREACHABLE, None)
            assert "changed on the way" in reply.reason
        async with fleet_of(small_config(), spoiled_once) as (fleet, _):
            (reply,) = await replies(fleet, task(0))
            assert reply.outcome is Outcome.COMPLETED

    run(main())


def test_events_are_kept_in_bounded_memory() -> None:
    """Of KEPT + 5 events the second to the fifth are forgotten: the first says how long the run is.

    Who has seen some is given those after them.
    """

    async def main() -> None:
        log = EventLog()
        for number in range(1, KEPT + 6):
            log.publish("round", str(number))
        log.close()
        first = (await anext(log.follow())).number
        kept = [first, *range(first + 5, first + KEPT + 5)]
        assert [event.number async for event in log.follow()] == kept
        assert [event.number async for event in log.follow(first)] == kept[1:]
        assert [event.number async for event in log.follow(first + KEPT + 2)] == kept[-2:]
        for before_a_restart in (KEPT + 3, first + KEPT + 1000):
            assert [event.number async for event in log.follow(before_a_restart)] == kept

    run(main())


def test_a_follower_sees_every_event_that_comes_while_it_looks() -> None:
    async def main() -> None:
        log = EventLog()
        seen: list[str] = []

        async def follow() -> None:
            nonlocal seen
            async for event in log.follow():
                seen += [event.data]

        following = asyncio.create_task(follow())
        for text in "abc":
            log.publish("round", text)
            await asyncio.sleep(0)
        await until(lambda: len(seen) == 3)
        log.close()
        await following
        assert seen == ["a", "b", "c"]

    run(main())
