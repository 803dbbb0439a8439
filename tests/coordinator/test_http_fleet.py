import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fakes import (
    WEIGHTS_DIGEST,
    FakeDevice,
    answer,
    differing,
    enter,
    fixed,
    fleet_of,
    hanging,
    honest,
    replies,
    task,
    waiting_for,
)
from fastapi.responses import Response

from network import WEIGHTS, closed_port, run, served, small_config, until
from parityfl.core.types import BoolArray, FloatArray, Outcome, Vector
from parityfl.engine.fleet import Late, Reply
from parityfl.web.problems import detail_of, problem
from parityfl.wire.schemas import DeviceReport, TrainRequest


def calls() -> list["asyncio.Task[Any]"]:
    """Return the calls of devices that go on."""
    return [task for task in asyncio.all_tasks() if "HttpFleet._call" in repr(task) and not task.cancelling()]


def live(**rounds: Any) -> Any:
    return small_config(rounds={"clock": "wall", "grace_s": 0, "heartbeat_s": 0.2, **rounds})


async def one(behave: Callable[..., Awaitable[Response]], **rounds: Any) -> Reply:
    """Return how a device that behaves like this ends its round on the wall clock."""
    async with fleet_of(live(**rounds), behave) as (fleet, _):
        (reply,) = await replies(fleet, task(0))
        assert reply.client == 0
        return reply


def assert_outcome(reply: Reply, outcome: Outcome, *words: str, reproducible: bool = False) -> None:
    assert reply.outcome is outcome, reply
    assert reply.update is None
    assert all(word in reply.reason for word in words), reply.reason
    assert reply.reproducible == reproducible


def test_a_completed_round() -> None:
    """Device k's update adds k + 1 to every parameter; sizes are those of the bodies."""

    async def main() -> None:
        async with fleet_of(live(), honest, honest) as (fleet, fakes):
            first, second = await replies(fleet, task(0, 1, memory_round=np.array([3, 0, 0, 0])))
            assert [first.client, second.client] == [0, 1]
            assert second.update is not None
            np.testing.assert_array_equal(second.update.delta, [2, 2, 2])
            assert (second.update.client, second.update.num_samples, second.update.staleness) == (1, 20, 0)
            assert (second.update.train_loss, second.update.loss_before, second.update.loss_after) == (0.5, 1.5, 1.0)
            assert second.reason == ""
            assert second.latency_s > 0
            assert second.bytes_up > 12 < second.bytes_down
            asked = fakes[0].asked[0]
            assert (asked.device_id, asked.round, asked.memory_round) == ("h0", 1, 3)
            assert asked.model_digest == WEIGHTS_DIGEST
            np.testing.assert_array_equal(fakes[0].received[0]["model"], WEIGHTS)
            assert fleet.registry.available().tolist() == [True, True, False, False]

    run(main())


def test_a_client_may_start_from_a_model_of_its_own_and_be_sent_a_control_variate() -> None:
    async def main() -> None:
        async def controlled(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
            return answer(device, asked, control=vectors["control"] * 2)

        async with fleet_of(live(), controlled, controlled) as (fleet, fakes):
            own = WEIGHTS + 5
            asked = task(0, 1, start=lambda k: own if k == 1 else WEIGHTS, control=np.ones(3, np.float32))
            got = await replies(fleet, asked)
            np.testing.assert_array_equal(fakes[0].received[0]["model"], WEIGHTS)
            np.testing.assert_array_equal(fakes[1].received[0]["model"], own)
            assert all(reply.update is not None for reply in got)
            np.testing.assert_array_equal(got[1].update.control, [2, 2, 2])  # type: ignore[union-attr, arg-type]

    run(main())


def test_replies_come_in_client_order_each_as_soon_as_all_before_it_are_there() -> None:
    """2 answers first, then 0, then 1: 0 is yielded while 1 is still on its way, then 1 and 2 together."""

    async def main() -> None:
        zero, one = asyncio.Event(), asyncio.Event()
        async with fleet_of(live(), waiting_for(zero), waiting_for(one), honest) as (fleet, _):
            await fleet.look(1, 0.0)
            arriving = fleet.train(task(0, 1, 2))
            first = asyncio.ensure_future(anext(arriving))
            await until(lambda: fleet.registry.at(2).state == "available")
            assert not first.done()
            zero.set()
            assert (await first).client == 0
            assert not one.is_set()
            one.set()
            assert [reply.client async for reply in arriving] == [1, 2]

    run(main())


FAULTS = [
    (fixed(problem(409, "h0 is away")), Outcome.REFUSED, "answered 409: h0 is away"),
    (fixed(problem(503, "busy")), Outcome.REFUSED, "answered 503: busy"),
    (fixed(Response("boom", 500)), Outcome.FAILED, "answered 500: boom"),
    (fixed(problem(422, "no such tensor")), Outcome.FAILED, "answered 422"),
    (fixed(Response(status_code=302, headers={"Location": "http://127.0.0.1:1/"})), Outcome.FAILED, "302"),
    (fixed(Response(b"garbage")), Outcome.INVALID, "no safetensors document"),
    (fixed(Response(b"")), Outcome.INVALID, "no safetensors document"),
    (fixed(Response(bytes(2 * 10**6))), Outcome.INVALID, "more than"),
    (differing(control=WEIGHTS), Outcome.INVALID, "unknown tensor 'control"),
    (differing(num_samples=2**40), Outcome.INVALID, "but the device registered 10"),
]


@pytest.mark.parametrize(("behave", "outcome", "words"), FAULTS)
def test_every_fault_is_one_outcome_with_a_reason(behave: Any, outcome: Outcome, words: str) -> None:
    assert_outcome(run(one(behave)), outcome, words, reproducible=False)


def test_of_an_error_only_the_beginning_is_looked_at() -> None:
    written = b'{"title": "", "status": 500, "detail": "%s"}'
    assert detail_of(memoryview(written % b"so it is")) == "so it is"
    assert detail_of(written % (b"x" * 2**16)).startswith('{"title": "", "status": 500, "detail": "xxx')


def test_an_error_cannot_steer_the_terminal_that_shows_it() -> None:
    assert detail_of(b"\x1b[2Jno\rERROR forged\x00\nmore") == " [2Jno ERROR forged  more"
    assert detail_of(b'{"title": "", "status": 409, "detail": "away\\u001b[31m"}') == "away [31m"


def test_a_device_that_hangs_is_timed_out() -> None:
    reply = run(one(hanging, train_timeout_s=0.2))
    assert_outcome(reply, Outcome.TIMED_OUT, "train_timeout_s = 0.2 s")
    assert reply.latency_s >= 0.2


def test_a_device_that_trickles_is_timed_out_too() -> None:
    """A byte now and then keeps a read time-out from firing; the time-out of the whole call does not care."""

    async def trickle() -> Any:
        while True:
            yield b"."
            await asyncio.sleep(0.05)

    async def behave(*_: Any) -> Response:
        from fastapi.responses import StreamingResponse

        return StreamingResponse(trickle())

    assert_outcome(run(one(behave, train_timeout_s=0.3)), Outcome.TIMED_OUT)


def test_a_device_that_is_slower_than_the_deadline_is_late() -> None:
    reply = run(one(hanging, deadline_s=0.2))
    assert_outcome(reply, Outcome.LATE, "deadline of 0.2 s")
    assert reply.latency_s >= 0.2


def test_nobody_listening_is_unreachable() -> None:
    async def main() -> None:
        async with fleet_of(live()) as (fleet, _):
            enter(fleet.registry, "h0", closed_port())
            (reply,) = await replies(fleet, task(0))
            assert_outcome(reply, Outcome.UNREACHABLE)
            assert np.isnan(reply.bytes_up)
            assert np.isnan(reply.bytes_down)
            assert fleet.registry.at(0).state == "suspect"
            assert fleet.registry.at(0).misplaced

    run(main())


def test_the_reason_of_an_outcome_is_a_line() -> None:
    """A device says why it refuses, in as many words as it likes, and the coordinator keeps them all."""

    async def main() -> None:
        async with fleet_of(live(), fixed(problem(409, "one\ntwo " + "x" * 10**4))) as (fleet, _):
            (reply,) = await replies(fleet, task(0))
            assert_outcome(reply, Outcome.REFUSED, "answered 409: one")
            assert len(reply.reason) <= 200
            assert "\n" not in reply.reason

    run(main())


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        pytest.param(b"", Outcome.UNREACHABLE, id="hangs up"),
        pytest.param(b"good evening\r\n\r\n", Outcome.UNREACHABLE, id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nand", Outcome.UNREACHABLE, id="breaks off"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Outcome.UNREACHABLE, id="no chunk"),
        pytest.param(b"HTTP/1.1 500 \xff\r\nContent-Length: 0\r\n\r\n", Outcome.FAILED, id="no text"),
    ],
)
def test_who_breaks_the_connection_or_speaks_no_http_is_unreachable(said: bytes, outcome: Outcome) -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(said)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, fleet_of(live()) as (fleet, _):
            enter(fleet.registry, "h0", server.sockets[0].getsockname()[1])
            (reply,) = await replies(fleet, task(0))
            assert_outcome(reply, outcome)

    run(main())


def test_whatever_the_others_do_every_client_has_one_outcome() -> None:
    async def main() -> None:
        behaviours = [fixed(Response(b"garbage")), honest, hanging, fixed(Response(status_code=500))]
        async with fleet_of(live(deadline_s=1.0), *behaviours) as (fleet, _):
            got = await replies(fleet, task(0, 1, 2, 3))
            assert [(reply.client, reply.outcome.value) for reply in got] == [
                (0, "invalid"),
                (1, "completed"),
                (2, "late"),
                (3, "failed"),
            ]

    run(main())


def test_a_quorum_closes_the_round() -> None:
    """Two of three are wanted: 1 and 2 complete, 0 is late although the deadline is far."""

    async def main() -> None:
        async with fleet_of(live(quorum=2), hanging, honest, honest) as (fleet, _):
            got = await replies(fleet, task(0, 1, 2))
            assert [reply.outcome.value for reply in got] == ["late", "completed", "completed"]
            assert_outcome(got[0], Outcome.LATE, "quorum")

    run(main())


@pytest.mark.parametrize("late", ["discard", "next-round"])
def test_a_late_update_counts_in_the_next_round_where_that_is_wanted(late: str) -> None:
    """Client 0's update of round 1 comes after it closed; folded into round 2 it is one round stale."""

    async def main() -> None:
        event = asyncio.Event()
        async with fleet_of(live(deadline_s=0.2, late=late), waiting_for(event)) as (fleet, _):
            (reply,) = await replies(fleet, task(0))
            assert reply.outcome is Outcome.LATE
            assert fleet.late_updates() == []
            assert bool(calls()) == (late == "next-round")  # nobody waits for what would not count
            event.set()
            if late == "next-round":
                arrived: list[Late] = []
                await until(lambda: arrived.extend(fleet.late_updates()) or arrived)
                (update,) = (late.update for late in arrived)
                np.testing.assert_array_equal(update.delta, [1, 1, 1])
                assert (update.client, update.staleness, arrived[0].enters) == (0, 1, 2)
            assert fleet.late_updates() == []

    run(main())


def test_an_update_that_is_two_rounds_late_says_so() -> None:
    async def main() -> None:
        event = asyncio.Event()
        async with fleet_of(live(deadline_s=1.0, late="next-round"), waiting_for(event), honest) as (fleet, _):
            await replies(fleet, task(0))
            await replies(fleet, task(1, round=2))
            assert fleet.late_updates() == []
            event.set()
            arrived: list[Late] = []
            await until(lambda: arrived.extend(fleet.late_updates()) or arrived)
            assert [(late.update.staleness, late.enters) for late in arrived] == [(2, 3)]

    run(main())


def test_who_was_not_asked_by_the_deadline_is_not_asked_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may be asked at a time, and 0 has not answered when the round closes: 1 has never heard of it."""
    monkeypatch.setattr("parityfl.coordinator.devices.MAX_CONNECTIONS", 1)

    async def main() -> None:
        event = asyncio.Event()
        async with fleet_of(live(deadline_s=1.0, late="next-round"), waiting_for(event), honest) as (fleet, fakes):
            got = await replies(fleet, task(0, 1))
            assert_outcome(got[0], Outcome.LATE, "deadline")
            assert_outcome(got[1], Outcome.LATE, "not asked")
            event.set()
            arrived: list[Late] = []
            await until(lambda: arrived.extend(fleet.late_updates()) or arrived)
            (reply,) = await replies(fleet, task(1, round=2))
            assert reply.outcome is Outcome.COMPLETED
            assert [asked.round for asked in fakes[1].asked] == [2]

    run(main())


def test_of_too_many_late_ones_the_oldest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parityfl.coordinator.fleet.MAX_STRAGGLERS", 1)

    async def main() -> None:
        event = asyncio.Event()
        behave = waiting_for(event)
        async with fleet_of(live(deadline_s=0.2, late="next-round"), behave, behave, behave) as (fleet, _):
            assert [reply.outcome for reply in await replies(fleet, task(0, 1, 2))] == [Outcome.LATE] * 3
            event.set()
            arrived: list[Late] = []
            await until(lambda: arrived.extend(fleet.late_updates()) or arrived)
            assert [late.update.client for late in arrived] == [2]

    run(main())


def test_a_round_of_nobody() -> None:
    async def main() -> None:
        async with fleet_of(live()) as (fleet, _):
            assert await replies(fleet, task()) == []

    run(main())


def test_the_wall_clock_sees_who_reports() -> None:
    async def main() -> None:
        async with fleet_of(live(), honest, honest) as (fleet, _):
            fleet.registry.move(fleet.registry.at(1), "away", "test")
            presence = await fleet.look(1, 2.5)
            assert presence.registered.tolist() == [True, True, False, False]
            assert presence.available.tolist() == [True, False, False, False]
            assert 2.5 <= fleet.elapsed_s < 5

    run(main())


@dataclass(frozen=True)
class Alternating:
    """Client k is available at time t if k + t is even."""

    def available(self, time_s: float) -> BoolArray:
        return (np.arange(4) + int(time_s)) % 2 == 0

    def probability(self, time_s: float) -> FloatArray | None:
        return None


def test_the_virtual_clock_sees_whom_the_model_says() -> None:
    async def main() -> None:
        async with fleet_of(small_config(), honest, honest, honest, availability=Alternating()) as (fleet, _):
            assert (await fleet.look(1, 0.0)).available.tolist() == [True, False, True, False]
            assert (await fleet.look(2, 1.0)).available.tolist() == [False, True, False, False]

    run(main())


def test_on_the_virtual_clock_a_client_that_is_restarted_is_asked_again_at_its_new_address() -> None:
    """Nobody listens at first; once the device has registered at another port, it completes the same round."""

    async def main() -> None:
        async with fleet_of(small_config()) as (fleet, _):
            enter(fleet.registry, "h0", closed_port())
            pending = asyncio.create_task(replies(fleet, task(0)))
            device = FakeDevice("h0", honest)
            async with served(device.app()) as http:
                enter(fleet.registry, "h0", http.base_url.port or 0)
                (reply,) = await pending
            assert reply.outcome is Outcome.COMPLETED
            assert reply.reproducible

    run(main())


def test_on_the_virtual_clock_a_client_that_never_returns_is_unreachable_in_the_end() -> None:
    async def main() -> None:
        async with fleet_of(small_config(rounds={"train_timeout_s": 0.3})) as (fleet, _):
            enter(fleet.registry, "h0", closed_port())
            (reply,) = await replies(fleet, task(0))
            assert_outcome(reply, Outcome.UNREACHABLE, "for 0.3 s")

    run(main())


def test_on_the_virtual_clock_no_quorum_and_no_short_deadline_ends_a_round() -> None:
    """Both are virtual there: the seeded latencies decide, in the round loop."""

    async def main() -> None:
        event = asyncio.Event()
        config = small_config(rounds={"quorum": 1, "deadline_s": 0.01, "grace_s": 0})
        async with fleet_of(config, waiting_for(event), honest) as (fleet, fakes):
            pending = asyncio.create_task(replies(fleet, task(0, 1)))
            await until(lambda: fleet.registry.at(1).training is None and fakes[1].asked)
            event.set()
            assert [reply.outcome.value for reply in await pending] == ["completed", "completed"]
            assert fakes[0].asked[0].deadline_s is None

    run(main())


def test_a_report_that_its_device_s_answer_has_overtaken_does_not_keep_it_from_the_next_round() -> None:
    async def main() -> None:
        async with fleet_of(live(), honest) as (fleet, _):
            await replies(fleet, task(0, round=3))
            late = DeviceReport(device_id="h0", available=True, training=3, latency_s=0.01)
            assert fleet.registry.report(late)
            assert fleet.registry.at(0).state == "available"
            fleet.registry.report(late.model_copy(update={"training": 4}))
            assert (fleet.registry.at(0).state, fleet.registry.at(0).training) == ("training", 4)

    run(main())


def test_who_trains_on_when_a_proxy_has_given_up_is_taken_at_its_word() -> None:
    async def gives_up(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
        return problem(504, "the device took too long")

    async def main() -> None:
        async with fleet_of(live(), gives_up) as (fleet, _):
            (reply,) = await replies(fleet, task(0, round=3))
            assert_outcome(reply, Outcome.FAILED, "answered 504")
            fleet.registry.report(DeviceReport(device_id="h0", available=True, training=3, latency_s=0.01))
            assert (fleet.registry.at(0).state, fleet.registry.at(0).training) == ("training", 3)

    run(main())


def test_leaving_a_round_gives_up_its_calls() -> None:
    async def main() -> None:
        async with fleet_of(live(), hanging) as (fleet, fakes):
            pending = asyncio.create_task(replies(fleet, task(0)))
            await until(lambda: fakes[0].asked)
            pending.cancel()
            await asyncio.wait({pending})
            assert not calls()

    run(main())
