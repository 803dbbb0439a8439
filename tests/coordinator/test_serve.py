import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from network import LAYOUT, PATIENCE_S, SAMPLES, WEIGHTS, NumpyWorkbench, run, small_config, until
from parityfl.client.identity import Identity
from parityfl.client.serve import serve as serve_devices
from parityfl.client.settings import Settings
from parityfl.config import Config
from parityfl.coordinator.evaluate import HttpEvaluator
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.roster import read_roster
from parityfl.coordinator.serve import Drive, Service, serve
from parityfl.coordinator.trust import Trust
from parityfl.core.errors import ConfigError, FolderError, UnfinishedError
from parityfl.core.types import World
from parityfl.engine.fleet import ClosedRound, Observer
from parityfl.engine.folder import RunFolder
from parityfl.engine.loop import run_rounds
from parityfl.experiments.build import build_spec, document
from parityfl.experiments.coordinate import coordinate
from parityfl.web.server import bind, port_of
from parityfl.wire.digests import model_digest
from parityfl.wire.payload import unpack
from parityfl.wire.schemas import Registration, TrainRequest
from parityfl.wire.signing import Token

HEARTBEAT = {"heartbeat_s": 0.5}


class Seen:
    """An observer that keeps what it saw."""

    def __init__(self) -> None:
        self.rounds: list[ClosedRound] = []

    def started(self, weights: Any, rounds_done: int, rounds_total: int) -> None:
        """Nothing to keep."""

    def round_closed(self, closed: ClosedRound) -> None:
        self.rounds.append(closed)


def the_round_loop(config: Config, out: Path, seen: Seen) -> Drive:
    """Return what the composition root does: the real loop, FedAvg, into a folder."""
    bench = NumpyWorkbench(config, ())
    world = World(config.seed, 4, 4, config.rounds.interval_s, bench.num_samples, bench.label_counts)
    world = replace(world, availability=config.availability.build().bind(world))
    spec = build_spec(config, world, LAYOUT, WEIGHTS.copy)

    async def drive(fleet: HttpFleet, observer: Observer) -> None:
        folder = RunFolder(out)
        folder.prepare(config.document(), False)
        await run_rounds(spec, fleet, HttpEvaluator(fleet), folder, observers=[observer, seen], stop=fleet.stop)

    return drive


class Rig:
    """A coordinator and processes of devices, in one event loop."""

    def __init__(self, config: Config, drive: Drive, **service: Any) -> None:
        self.config = config
        self.listening = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port_of(self.listening)}"
        self.serve(drive, **service)

    def serve(self, drive: Drive, **service: Any) -> None:
        config, availability = self.config, None
        if config.rounds.clock == "virtual":
            bench = NumpyWorkbench(config, ())
            world = World(config.seed, 4, 4, config.rounds.interval_s, bench.num_samples, bench.label_counts)
            availability = config.availability.build().bind(world)
        self.coordinator = asyncio.create_task(
            serve(config, LAYOUT, drive, self.listening, Service(**service), availability=availability)
        )

    def devices(self, *names: str, **more: Any) -> "asyncio.Task[None]":
        settings = Settings(self.url, names, port=0, patience_s=20, **more)
        return asyncio.create_task(serve_devices(settings, NumpyWorkbench))

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url) as http:
            return await http.get(path)

    async def post(self, path: str, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url) as http:
            return await http.post(path, **more)


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_a_whole_run_over_two_processes(clock: str, tmp_path: Path) -> None:
    """Client k adds k + 1 and holds 10 (k + 1) examples: FedAvg adds (10 + 40 + 90 + 160) / 100 = 3 a round.

    Three rounds take (1, 2, 3) to (10, 11, 12). The devices' loss is the sum of the parameters: 6, then 15, 24, 33.
    """

    async def main() -> None:
        config = small_config(rounds={"count": 3, "clock": clock, "heartbeat_s": 1.0})
        seen = Seen()
        rig = Rig(config, the_round_loop(config, tmp_path / "run", seen), min_clients=4)
        await asyncio.gather(rig.coordinator, rig.devices("h0", "h1"), rig.devices("h2", "h3"))
        assert [closed.record.outcome.tolist() for closed in seen.rounds] == [[1, 1, 1, 1]] * 3
        np.testing.assert_array_equal(seen.rounds[-1].weights, [10, 11, 12])
        if clock == "wall":
            np.testing.assert_array_equal(seen.rounds[-1].record.eval_loss, [33] * 4)
        np.testing.assert_array_equal(seen.rounds[0].record.num_samples, SAMPLES)

    run(main())


def test_intermittent_devices_refuse_nothing_when_both_sides_see_the_same_model(tmp_path: Path) -> None:
    async def main() -> None:
        config = small_config(rounds={"count": 8, **HEARTBEAT}, availability={"name": "bernoulli", "pi": 0.5})
        seen = Seen()
        rig = Rig(config, the_round_loop(config, tmp_path / "run", seen))
        await asyncio.gather(rig.coordinator, rig.devices("h0", "h1", "h2", "h3"))
        selected = np.array([closed.record.selected for closed in seen.rounds])
        completed = np.array([closed.record.participated for closed in seen.rounds])
        assert 0 < selected.sum() < selected.size
        np.testing.assert_array_equal(selected, completed)

    run(main())


def test_the_model_can_be_posted_to_a_device_by_hand() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def drive(fleet: HttpFleet, observer: Observer) -> None:
            observer.started(WEIGHTS, 0, 30)
            await release.wait()

        rig = Rig(small_config(rounds={**HEARTBEAT}), drive, min_clients=1)
        devices = rig.devices("h0")
        async with httpx.AsyncClient(base_url=rig.url) as http:
            model = await _when_ok(lambda: http.get("/model"))
            address = (await http.get("/clients/h0")).json()["address"]
            trained = await http.post(f"{address}/train", content=model.content)
            assert trained.status_code == 200, trained.text
        release.set()
        await asyncio.gather(rig.coordinator, devices)

    run(main())


@pytest.mark.parametrize("error", [ZeroDivisionError("in the loop"), UnfinishedError("the disk is full")])
def test_what_the_round_loop_raises_is_raised_and_the_devices_wait_for_a_restart(
    error: Exception, tmp_path: Path
) -> None:
    """The next coordinator, at the same address, finishes the run with the same devices."""

    async def main() -> None:
        config = small_config(rounds={"count": 2, **HEARTBEAT})

        async def drive(fleet: HttpFleet, observer: Observer) -> None:
            raise error

        rig = Rig(config, drive, min_clients=2)
        devices = rig.devices("h0", "h1")
        with pytest.raises(type(error), match=str(error)):
            await rig.coordinator
        rig.listening, seen = bind("127.0.0.1", int(rig.url.rpartition(":")[2])), Seen()
        rig.serve(the_round_loop(config, tmp_path / "run", seen), min_clients=2)
        await asyncio.gather(rig.coordinator, devices)
        assert [closed.record.participated.sum() for closed in seen.rounds] == [2, 2]

    run(main())


def test_start_does_not_wait_for_the_minimum_and_stop_ends_after_the_round(tmp_path: Path) -> None:
    async def main() -> None:
        config = small_config(rounds={"count": 10**6, "clock": "wall", **HEARTBEAT})
        seen = Seen()
        rig = Rig(config, the_round_loop(config, tmp_path / "run", seen), min_clients=4)
        devices = rig.devices("h0")
        await _when_ok(lambda: rig.get("/clients/h0"))
        assert (await rig.get("/ready")).status_code == 503
        assert (await rig.post("/training/start")).status_code == 200
        await until(lambda: len(seen.rounds) > 2)
        assert (await rig.post("/training/stop")).status_code == 200
        await devices
        with pytest.raises(UnfinishedError, match="as asked"):
            await rig.coordinator
        assert (tmp_path / "run" / "summary.json").is_file()

    run(main())


def test_it_keeps_serving_until_a_signal() -> None:
    async def main() -> None:
        async def drive(fleet: HttpFleet, observer: Observer) -> None:
            pass

        reports: list[threading.Thread] = []
        service = {"keep_serving": True, "report": lambda: reports.append(threading.current_thread())}
        rig = Rig(small_config(rounds={**HEARTBEAT}), drive, min_clients=1, **service)
        await _when_ok(lambda: rig.post("/training/start"))
        await _when_ok(lambda: rig.get("/health"), lambda r: r.json()["phase"] == "done")
        assert (await rig.post("/register", json={"device_id": "h0", "port": 5000})).status_code == 410
        await until(lambda: reports)
        os.kill(os.getpid(), signal.SIGTERM)
        await rig.coordinator
        assert len(reports) == 1
        assert reports[0] is not threading.main_thread()

    run(main())


def test_a_signal_in_the_middle_tells_the_devices_to_leave() -> None:
    started: list[bool] = []
    cancelled: list[bool] = []

    async def main() -> None:
        async def drive(fleet: HttpFleet, observer: Observer) -> None:
            started.append(True)
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(True)

        rig = Rig(small_config(rounds={**HEARTBEAT}), drive, min_clients=1)
        async with httpx.AsyncClient(base_url=rig.url) as http:
            device = {"device_id": "h0", "port": 5000, "num_samples": 1}
            update = {"device_id": "h0", "available": True}
            await _when_ok(lambda: http.post("/register", json=device))
            await _when_ok(lambda: http.post("/status_update", json=update))
            await until(lambda: started)
            os.kill(os.getpid(), signal.SIGINT)
            await _when_ok(lambda: http.post("/status_update", json=update), lambda r: r.json()["leave"])
        await rig.coordinator

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cancelled == [True]


def test_before_a_restart_nobody_is_sent_home() -> None:
    """SIGTERM: what h0 hears last is not that it should leave."""
    heard: list[bool] = []

    async def main() -> None:
        started = asyncio.Event()

        async def drive(fleet: HttpFleet, observer: Observer) -> None:
            started.set()
            await asyncio.Event().wait()

        rig = Rig(small_config(rounds={**HEARTBEAT}), drive, min_clients=1)
        await _when_ok(lambda: rig.post("/register", json={"device_id": "h0", "port": 5000, "num_samples": 1}))
        update = {"device_id": "h0", "available": True}
        await _when_ok(lambda: rig.post("/status_update", json=update))
        await started.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        with suppress(httpx.TransportError):
            while True:
                heard.append((await rig.post("/status_update", json=update)).json()["leave"])
        await rig.coordinator

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert not any(heard)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_that_ends_early_is_served_on_only_if_an_operator_ended_it(stopped: bool) -> None:
    async def main() -> None:
        async def drive(fleet: HttpFleet, observer: Observer) -> None:
            if stopped:
                fleet.stop.set()
            raise UnfinishedError("it ended early")

        rig = Rig(small_config(rounds={**HEARTBEAT}), drive, min_clients=1, keep_serving=True)
        await _when_ok(lambda: rig.post("/training/start"))
        if stopped:
            await _when_ok(lambda: rig.get("/health"), lambda r: r.json()["reason"] == "it ended early")
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(UnfinishedError, match="it ended early"):
            await rig.coordinator

    run(main())


def test_the_end_does_not_wait_for_devices_that_have_gone() -> None:
    """h0 registers and is never heard of again: after two heartbeats nobody waits for it."""

    async def main() -> None:
        async def drive(fleet: HttpFleet, observer: Observer) -> None:
            pass

        rig = Rig(small_config(rounds={**HEARTBEAT}), drive, min_clients=1)
        await _when_ok(lambda: rig.post("/register", json={"device_id": "h0", "port": 5000, "num_samples": 1}))
        await _when_ok(lambda: rig.post("/status_update", json={"device_id": "h0", "available": True}))
        await rig.coordinator

    run(main())


def test_devices_find_a_coordinator_that_was_killed_and_came_back(tmp_path: Path) -> None:
    """The first one is gone without a word; the second, at the same address, finishes the run with the same devices."""

    async def main() -> None:
        config = small_config(rounds={"count": 2, "clock": "wall", **HEARTBEAT})

        async def stuck(fleet: HttpFleet, observer: Observer) -> None:
            await asyncio.Event().wait()

        rig = Rig(config, stuck, min_clients=2)
        devices = rig.devices("h0", "h1")
        await _when_ok(lambda: rig.get("/ready"))
        rig.coordinator.cancel()
        await asyncio.wait({rig.coordinator})
        seen = Seen()
        listening = bind("127.0.0.1", int(rig.url.rpartition(":")[2]))
        drive = the_round_loop(config, tmp_path / "run", seen)
        await asyncio.gather(serve(config, LAYOUT, drive, listening, Service(min_clients=2)), devices)
        assert len(seen.rounds) == 2

    run(main())


@pytest.mark.parametrize("token", [None, Token("a token that is long enough")])
def test_a_run_that_is_done_is_served_again_until_a_signal(token: Token | None, tmp_path: Path) -> None:
    """As after a restart: it shows how it ended, gives the model, and tells a device that comes late to leave.

    Nothing in the folder has changed when it ends, and without `keep_serving` it ends at once.
    """

    async def main() -> None:
        config = small_config(rounds={"count": 3, **HEARTBEAT})
        seen, out = Seen(), tmp_path / "run"
        rig = Rig(config, the_round_loop(config, out, seen))
        await asyncio.gather(rig.coordinator, rig.devices("h0", "h1", "h2", "h3"))
        (out / "config.json").write_text(json.dumps(document(config)))  # as the command writes it
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        rig.listening = bind("127.0.0.1", 0)
        rig.url = f"http://127.0.0.1:{port_of(rig.listening)}"
        once, on = Service(trust=Trust(token)), Service(trust=Trust(token), keep_serving=True)
        await coordinate(config, out, rig.listening, once, resume=True, watch=nullcontext)
        serving = asyncio.create_task(coordinate(config, out, rig.listening, on, resume=True, watch=nullcontext))
        await _when_ok(lambda: rig.get("/health"), lambda r: r.json()["phase"] == "done")
        request, vectors = unpack((await rig.get("/model")).content, TrainRequest, LAYOUT)
        np.testing.assert_array_equal(vectors["model"], seen.rounds[-1].weights)
        assert request.model_digest == model_digest(seen.rounds[-1].weights)
        metrics = (await rig.get("/metrics")).text
        assert "parityfl_rounds_done 3.0\n" in metrics
        assert "parityfl_num_available 4.0\n" in metrics
        identity = Identity(token)
        late = Registration(device_id="h0", port=5000, process_key=identity.key).model_dump(mode="json")
        assert (await rig.post("/register", json=late, auth=identity)).status_code == 410
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert after == before

    run(main())


def test_too_few_devices_in_time_end_a_run_that_goes_on_with_those_that_wait(tmp_path: Path) -> None:
    async def main() -> None:
        config = small_config(rounds={"count": 2, "clock": "wall", **HEARTBEAT})
        seen = Seen()
        drive = the_round_loop(config, tmp_path / "run", seen)
        rig = Rig(config, drive, min_clients=2, start_within_s=1.5, keep_serving=True)
        devices = rig.devices("h0")
        with pytest.raises(UnfinishedError, match=r"^[01] of 2 devices are here after 1\.5 s: start more .* --resume$"):
            await rig.coordinator
        assert seen.rounds == []
        rig.listening = bind("127.0.0.1", int(rig.url.rpartition(":")[2]))
        rig.serve(drive, min_clients=1, start_within_s=PATIENCE_S)
        await asyncio.gather(rig.coordinator, devices)
        assert len(seen.rounds) == 2

    run(main())


def test_a_second_coordinator_of_a_folder_takes_no_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would give the places in the folder to others, which a restart of the first then found there."""
    monkeypatch.setattr("parityfl.engine.folder.LOCK_PATIENCE_S", 0.1)

    async def main() -> None:
        config, out = small_config(rounds={"clock": "wall", **HEARTBEAT}), tmp_path / "run"
        first, second = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        service = Service(min_clients=4)
        serving = asyncio.create_task(coordinate(config, out, first, service, resume=False, watch=nullcontext))
        await _registered(first, "a")
        coming = asyncio.create_task(_registered(second, "b"))
        with pytest.raises(FolderError, match="run is being written by another process: wait for it, or stop it"):
            await coordinate(config, out, second, service, resume=True, watch=nullcontext)
        second.close()
        with pytest.raises(httpx.HTTPError):
            await coming
        assert read_roster(out / "roster.jsonl") == {0: "a"}
        serving.cancel()
        await asyncio.wait({serving})
        third = bind("127.0.0.1", 0)
        serving = asyncio.create_task(coordinate(config, out, third, service, resume=True, watch=nullcontext))
        await _registered(third, "c")
        assert read_roster(out / "roster.jsonl") == {0: "a", 1: "c"}
        serving.cancel()
        await asyncio.wait({serving})

    run(main())


def test_what_a_selector_cannot_do_is_told_before_devices_are_waited_for(tmp_path: Path) -> None:
    """Also where the model is the devices' to tell, and so nothing is known of the aggregator's memory."""
    own = {"name": "local", "classes": ["a", "b"], "shape": [1, 8, 8]}
    config = small_config(data=own, rounds={"clock": "wall"}, selector={"name": "oracle-maxmin"})

    async def main() -> None:
        with bind("127.0.0.1", 0) as listening, pytest.raises(ConfigError, match="true availabilities are not known"):
            await coordinate(config, tmp_path / "run", listening, Service(), resume=False, watch=nullcontext)

    run(main())
    assert not (tmp_path / "run").exists()


async def _registered(listening: socket.socket, device_id: str) -> None:
    """Register a device once somebody serves there."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(listening)}", timeout=PATIENCE_S) as http:
        body = Registration(device_id=device_id, port=5000).model_dump(mode="json")
        (await http.post("/register", json=body)).raise_for_status()


async def _when_ok(
    ask: Callable[[], Awaitable[httpx.Response]], satisfied: Callable[[httpx.Response], bool] = lambda _: True
) -> httpx.Response:
    """Return the first answer with status 200 that satisfies."""
    while True:
        response = await ask()
        if response.status_code == 200 and satisfied(response):
            return response
        await asyncio.sleep(0.01)
