"""Devices that poll, against a real coordinator in the same event loop."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import fleet_of, honest, replies, task
from fastapi import FastAPI, Request
from fastapi.responses import Response
from test_serve import Rig, Seen, the_round_loop

from network import LAYOUT, SAMPLES, WEIGHTS, run, served, small_config, until
from parityfl.client.polling import polling
from parityfl.config import Config
from parityfl.coordinator.app import create_app
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.initial import initial_model
from parityfl.coordinator.service import Coordinator
from parityfl.core.arrays import Layout
from parityfl.core.errors import UnfinishedError
from parityfl.core.types import Outcome
from parityfl.wire.digests import CONTENT_DIGEST, content_digest, digest_of, is_intact, model_digest
from parityfl.wire.payload import assemble
from parityfl.wire.schemas import DeviceReport, InitialReply, Registration


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_a_run_of_devices_that_poll_and_devices_that_are_called(clock: str, tmp_path: Path) -> None:
    """As in test_serve: client k adds k + 1 and holds 10 (k + 1) examples, so FedAvg adds 3 a round to (1, 2, 3)."""

    async def main() -> None:
        config = small_config(rounds={"count": 3, "clock": clock, "heartbeat_s": 0.5})
        seen = Seen()
        rig = Rig(config, the_round_loop(config, tmp_path / "run", seen), min_clients=4)
        pulling = rig.devices("h0", "h1", pull=True)
        await asyncio.gather(rig.coordinator, pulling, rig.devices("h2", "h3"))
        assert [closed.record.outcome.tolist() for closed in seen.rounds] == [[1, 1, 1, 1]] * 3
        np.testing.assert_array_equal(seen.rounds[-1].weights, [10, 11, 12])
        assert np.all(seen.rounds[-1].record.bytes_up > 0)
        if clock == "wall":
            np.testing.assert_array_equal(seen.rounds[-1].record.eval_loss, [33] * 4)

    run(main())


def enter_polling(fleet: HttpFleet, *names: str) -> None:
    for name in names:
        index = int(name[1:])
        registration = Registration(
            device_id=name, port=None, num_samples=SAMPLES[index], layout_hash=fleet.layout.digest
        )
        fleet.registry.register(registration, "127.0.0.1")
        fleet.registry.report(DeviceReport(device_id=name, available=True))


def quick(**rounds: Any) -> Config:
    return small_config(rounds={"clock": "wall", "heartbeat_s": 0.2, "connect_timeout_s": 1.0, **rounds})


def test_who_does_not_ask_is_unreachable_and_who_does_not_answer_times_out() -> None:
    """h0 never asks. h1 asks all the time and does not answer. h2 answers with 409, h3 with what is no document."""

    async def main() -> None:
        config = quick(train_timeout_s=2.0)
        async with fleet_of(config) as (fleet, _), served(create_app(Coordinator(config, fleet, 4))) as http:
            enter_polling(fleet, "h0", "h1", "h2", "h3")
            app, done = FastAPI(), asyncio.Event()

            @app.post("/train")
            async def train(request: Request) -> Response:
                body = await request.body()
                if b"h1" in body:
                    await done.wait()
                return Response(b"x", 409 if b"h2" in body else 200)

            async with polling(app, http, ["h1"]), polling(app, http, ["h2", "h3"]):
                outcomes = [reply.outcome for reply in await replies(fleet, task(0, 1, 2, 3))]
                done.set()
            assert outcomes == [Outcome.UNREACHABLE, Outcome.TIMED_OUT, Outcome.REFUSED, Outcome.INVALID]

    run(main())


def test_a_device_that_polls_stops_when_a_quorum_has_closed_the_round() -> None:
    async def main() -> None:
        config, stopped = quick(quorum=1), asyncio.Event()
        async with fleet_of(config, honest) as (fleet, _), served(create_app(Coordinator(config, fleet, 4))) as http:
            enter_polling(fleet, "h1")
            app = FastAPI()

            @app.post("/train")
            async def train() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    stopped.set()

            async with polling(app, http, ["h1"]):
                outcomes = await replies(fleet, task(0, 1))
                assert [reply.outcome for reply in outcomes] == [Outcome.COMPLETED, Outcome.LATE]
                await stopped.wait()

    run(main())


def test_an_answer_that_is_too_large_is_invalid_and_refused() -> None:
    async def main() -> None:
        config = quick()
        async with fleet_of(config) as (fleet, _), served(create_app(Coordinator(config, fleet, 4))) as http:
            enter_polling(fleet, "h0")
            asked = asyncio.create_task(replies(fleet, task(0)))
            work = await http.post("/work", json={"devices": ["h0"]})
            assert work.status_code == 200
            assert work.headers["Parityfl-Path"] == "/train"
            path = f"/work/{work.headers['Parityfl-Work']}/result"
            assert (await http.post(path, params={"status": 200}, content=b"x" * 200_000)).status_code == 413
            (reply,) = await asked
            assert reply.outcome is Outcome.INVALID
            assert (await http.post(path, params={"status": 200}, content=b"x")).status_code == 404

    run(main())


def test_a_result_that_was_changed_on_the_way_is_not_taken() -> None:
    async def main() -> None:
        config = quick()
        async with fleet_of(config) as (fleet, _), served(create_app(Coordinator(config, fleet, 4))) as http:
            enter_polling(fleet, "h0")
            asked = asyncio.create_task(replies(fleet, task(0)))
            work = await http.post("/work", json={"devices": ["h0"]})
            told = work.headers[CONTENT_DIGEST]
            assert told.startswith("blake3-parts=")
            assert await is_intact(told, work.content)
            assert not await is_intact(told, work.content[:-1] + b"?")
            path = f"/work/{work.headers['Parityfl-Work']}/result"
            told = {CONTENT_DIGEST: content_digest(digest_of(b"sent"))}
            changed = await http.post(path, params={"status": 409}, content=b"sand", headers=told)
            assert changed.status_code == 400
            assert (await http.post(path, params={"status": 409}, content=b"sent", headers=told)).status_code == 204
            (reply,) = await asked
            assert reply.outcome is Outcome.REFUSED

    run(main())


def test_work_is_for_devices_that_have_registered_to_poll() -> None:
    async def main() -> None:
        config = quick()
        async with fleet_of(config) as (fleet, _), served(create_app(Coordinator(config, fleet, 4))) as http:
            fleet.registry.register(Registration(device_id="h1", port=5000), "127.0.0.1")
            for name in ("h0", "h1"):
                assert (await http.post("/work", json={"devices": [name]})).status_code == 409
            enter_polling(fleet, "h1")
            assert (await http.post("/work", json={"devices": ["h1"]})).status_code == 204

    run(main())


def test_a_poller_outlives_a_coordinator_that_falters() -> None:
    """It answers 503 to the first poll and the first result, and spoils the second of both: all comes right."""

    async def main() -> None:
        faults, results = {"/work": 1, "/work/1/result": 1}, []
        spoilt = [content_digest(digest_of(b"2 + 3")), content_digest(digest_of(b"2 + 2"))]
        boss, device = FastAPI(), FastAPI()

        def falter(path: str) -> bool:
            faults[path] -= 1
            return faults[path] >= 0

        @boss.post("/work")
        async def work(request: Request) -> Response:
            if falter("/work"):
                return Response(status_code=503)
            if "1" in (await request.json())["holding"] or results:
                await asyncio.sleep(0.01)
                return Response(status_code=204)
            about = {"Parityfl-Work": "1", "Parityfl-Path": "/sum", CONTENT_DIGEST: spoilt.pop(0)}
            return Response(b"2 + 2", headers=about)

        @boss.post("/work/1/result")
        async def result(status: int, request: Request) -> Response:
            if falter("/work/1/result"):
                return Response(status_code=503)
            if faults["/work/1/result"] == -1:
                return Response(status_code=400)
            results.append((status, await request.body()))
            return Response(status_code=204)

        @device.post("/sum")
        async def add() -> Response:
            return Response(b"4", 201)

        async with served(boss) as http, polling(device, http, ["h0"]):
            await until(lambda: results)
        assert results == [(201, b"4")]

    run(main())


def initial(seed: int = 0, layout: Layout = LAYOUT) -> bytes:
    reply = InitialReply(model=small_config().model.name, seed=seed, model_digest=model_digest(WEIGHTS))
    return bytes(assemble(reply, {"model": WEIGHTS}, layout))


@pytest.mark.parametrize("wrong", [b"nothing", initial(seed=1), initial(layout=Layout(("w",), ((3,),))), b""])
def test_the_initial_model_comes_from_the_first_device_that_gives_the_right_one(wrong: bytes) -> None:
    async def main() -> None:
        config = quick()
        async with fleet_of(config) as (fleet, _), served(create_app(Coordinator(config, fleet, 4))) as http:
            enter_polling(fleet, "h0", "h1")
            apps = FastAPI(), FastAPI()
            for app, content in zip(apps, (wrong, initial()), strict=True):
                app.get("/initial")(_answering(content))
            async with polling(apps[0], http, ["h0"]), polling(apps[1], http, ["h1"]):
                layout, weights = await initial_model(fleet)
            assert layout == LAYOUT
            np.testing.assert_array_equal(weights, WEIGHTS)
            fleet.stop.set()
            with pytest.raises(UnfinishedError, match="stopped before the first round"):
                await initial_model(fleet)

    run(main())


def test_an_initial_model_is_only_taken_once_it_is_known_to_be_the_runs(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        config = quick(max_idle_rounds=1)
        async with fleet_of(config) as (fleet, _), served(create_app(Coordinator(config, fleet, 4))) as http:
            fleet.registry.register(Registration(device_id="h0", port=None, num_samples=SAMPLES[0]), "127.0.0.1")
            fleet.registry.report(DeviceReport(device_id="h0", available=True))
            app = FastAPI()
            app.get("/initial")(_answering(initial()))
            async with polling(app, http, ["h0"]):
                with pytest.raises(UnfinishedError, match="initial model"):
                    await initial_model(fleet)

    run(main())
    assert "no device has told the layout_hash of its model yet" in caplog.text


def test_a_run_whose_devices_have_left_does_not_wait_for_the_initial_model_for_ever() -> None:
    """h0 has nothing to give and falls silent, and nobody else comes."""

    async def main() -> None:
        config = small_config(rounds={"clock": "wall", "heartbeat_s": 0.1, "max_idle_rounds": 2})
        async with fleet_of(config, honest) as (fleet, _):
            with pytest.raises(UnfinishedError, match=r"2 heartbeats \(rounds\.max_idle_rounds\)") as caught:
                await initial_model(fleet)
            assert "\n" not in str(caught.value)

    run(main())


def _answering(content: bytes) -> Any:
    async def answer() -> Response:
        return Response(content)

    return answer
