import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import isnan
from threading import Event
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from network import RUN, NumpyWorkbench, closed_port, run, served, small_config, train_document, until
from parityfl.client.membership import Membership
from parityfl.client.serve import serve
from parityfl.client.settings import Settings
from parityfl.config import Config
from parityfl.core.errors import ConfigError, FleetError
from parityfl.web.problems import problem
from parityfl.web.server import bind, port_of
from parityfl.wire.schemas import Registration, StatusUpdate

HEARTBEAT_S = 0.02


@dataclass
class FakeCoordinator:
    """Answers as it is told and keeps what it was sent."""

    config: Config = field(default_factory=small_config)
    registrations: list[Registration] = field(default_factory=list)
    updates: list[StatusUpdate] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=lambda: {"known": True, "leave": False, "time_s": None})
    run_id: str = RUN
    answer: Response | None = None
    refusals: int = 0
    asked: list[float] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/register")
        async def register(registration: Registration, request: Request) -> Response:
            self.registrations.append(registration)
            index = int(registration.device_id[1:])
            self.status["known"] = True
            return self.answer or JSONResponse(
                {
                    "index": index,
                    "run_id": self.run_id,
                    "config": self.config.document(),
                    "heartbeat_s": HEARTBEAT_S,
                }
            )

        @app.post("/status_update")
        async def status_update(update: StatusUpdate) -> Any:
            self.asked.append(time.monotonic())
            if self.refusals:
                self.refusals -= 1
                return problem(503, "later")
            self.updates.append(update)
            return self.status

        return app

    @property
    def last(self) -> list[Any]:
        return [(report.device_id, report.available, report.training) for report in self.updates[-1].devices]


@dataclass
class Rig:
    """A process of devices that is a member of a fake coordinator's run."""

    coordinator: FakeCoordinator
    devices: "asyncio.Task[None]"
    benches: list[NumpyWorkbench]

    async def is_loaded(self) -> None:
        registrations = self.coordinator.registrations
        await until(lambda: registrations and registrations[-1].num_samples and len(self.coordinator.updates) > 2)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.coordinator.registrations[-1].port}"


@asynccontextmanager
async def member(
    *names: str, coordinator: FakeCoordinator | None = None, gate: Event | None = None, patience_s: float = 0.3
) -> AsyncIterator[Rig]:
    coordinator = coordinator or FakeCoordinator()
    benches: list[NumpyWorkbench] = []

    def factory(config: Config, clients: Collection[int]) -> NumpyWorkbench:
        benches.append(NumpyWorkbench(config, clients, gate))
        return benches[-1]

    async with served(coordinator.app()) as http:
        settings = Settings(str(http.base_url), names, port=0, patience_s=patience_s)
        devices = asyncio.create_task(serve(settings, factory))
        try:
            yield Rig(coordinator, devices, benches)
        finally:
            coordinator.status["leave"] = True
            if gate is not None:
                gate.set()
            await asyncio.wait({devices})


def test_devices_register_load_and_register_again_with_what_they_hold() -> None:
    async def main() -> None:
        async with member("h0", "h1") as rig:
            await rig.is_loaded()
            told = [(r.device_id, r.num_samples, r.label_counts) for r in rig.coordinator.registrations]
            assert told[:2] == [("h0", None, []), ("h1", None, [])]
            assert told[2:] == [("h0", 10, [10, 0]), ("h1", 20, [20, 0])]
            assert rig.benches[0].clients == [0, 1]
            assert rig.benches[0].config == rig.coordinator.config
            assert len({r.port for r in rig.coordinator.registrations}) == 1
            assert rig.coordinator.last == [("h0", True, None), ("h1", True, None)]

    run(main())


def test_latency_is_that_of_the_update_before() -> None:
    async def main() -> None:
        async with member("h0") as rig:
            await until(lambda: len(rig.coordinator.updates) > 2)
            first, second = (update.devices[0].latency_s for update in rig.coordinator.updates[:2])
            assert isnan(first)
            assert second > 0

    run(main())


def test_latency_is_that_of_the_request_that_was_answered_and_not_of_an_outage() -> None:
    """Three requests are in vain, and 0.1, 0.2 and 0.4 s are waited before the next ones."""

    async def main() -> None:
        coordinator = FakeCoordinator(refusals=3)
        async with member("h0", coordinator=coordinator, patience_s=20.0):
            await until(lambda: len(coordinator.updates) > 1)
            outage_s = coordinator.asked[3] - coordinator.asked[0]
            assert outage_s >= 0.7
            assert 0 < coordinator.updates[1].devices[0].latency_s < outage_s

    run(main())


def test_told_to_leave_it_leaves() -> None:
    async def main() -> None:
        async with member("h0") as rig:
            await rig.is_loaded()
            rig.coordinator.status["leave"] = True
            await rig.devices

    run(main())


def test_late_for_a_run_that_is_over_it_leaves() -> None:
    async def main() -> None:
        coordinator = FakeCoordinator(answer=problem(410, "the run is over"))
        async with member("h0", coordinator=coordinator) as rig:
            await rig.devices

    run(main())


def test_it_reports_while_it_trains() -> None:
    async def main() -> None:
        gate = Event()
        async with member("h0", gate=gate) as rig, httpx.AsyncClient() as http:
            await rig.is_loaded()
            training = asyncio.create_task(http.post(f"{rig.url}/train", content=train_document(small_config())))
            await until(lambda: rig.coordinator.last == [("h0", True, 1)])
            seen = len(rig.coordinator.updates)
            await until(lambda: len(rig.coordinator.updates) > seen + 2)
            gate.set()
            assert (await training).status_code == 200
            await until(lambda: rig.coordinator.last == [("h0", True, None)])

    run(main())


def test_a_coordinator_that_forgot_it_is_told_again() -> None:
    """After a restart the coordinator knows nobody; the data is not loaded again for the same configuration."""

    async def main() -> None:
        async with member("h0") as rig:
            await rig.is_loaded()
            rig.coordinator.registrations.clear()
            rig.coordinator.run_id = "run-2"
            rig.coordinator.status["known"] = False
            await until(lambda: len(rig.coordinator.registrations) == 2)
            assert [r.num_samples for r in rig.coordinator.registrations] == [None, 10]
            assert len(rig.benches) == 1
            async with httpx.AsyncClient() as http:
                document = train_document(small_config(), run_id="run-2")
                await until(lambda: rig.coordinator.status["known"])
                assert (await http.post(f"{rig.url}/train", content=document)).status_code == 200

    run(main())


def test_another_configuration_is_loaded_afresh_before_anything_is_told_of_its_data() -> None:
    async def main() -> None:
        async with member("h0") as rig:
            await rig.is_loaded()
            rig.coordinator.registrations.clear()
            rig.coordinator.config = small_config(seed=5)
            rig.coordinator.status["known"] = False
            await until(lambda: len(rig.coordinator.registrations) == 2)
            assert [bench.config.seed for bench in rig.benches] == [0, 5]
            told = [(r.num_samples, r.layout_hash is None) for r in rig.coordinator.registrations]
            assert told == [(None, True), (10, False)]  # of the data and model of the old run nothing

    run(main())


def test_what_was_still_loading_for_another_run_is_dropped() -> None:
    """The coordinator was replaced meanwhile: what the old one's run needed is of no use."""

    async def main() -> None:
        old, new, begun, coordinator = Event(), Event(), [], FakeCoordinator()

        def factory(config: Config, clients: Collection[int]) -> NumpyWorkbench:
            begun.append(config.seed)
            (new if config.seed == 5 else old).wait()
            return NumpyWorkbench(config, clients)

        async with served(coordinator.app()) as http, httpx.AsyncClient() as caller:
            settings = Settings(str(http.base_url), ("h0",), port=0, patience_s=0.3)
            devices = asyncio.create_task(serve(settings, factory))
            try:
                await until(lambda: begun)
                coordinator.config = small_config(seed=5)
                coordinator.status["known"] = False
                await until(lambda: len(coordinator.registrations) > 1)
                heard = len(coordinator.updates)
                await until(lambda: len(coordinator.updates) > heard)
                old.set()
                await until(lambda: 5 in begun)
                health = await caller.get(f"http://127.0.0.1:{coordinator.registrations[-1].port}/health")
                assert health.json()["phase"] == "loading"
            finally:
                coordinator.status["leave"] = True
                old.set()
                new.set()
                await asyncio.wait({devices})

    run(main())


def test_wall_clock_availability_follows_the_time_of_the_run() -> None:
    """At time_scale 1e6 the first second is a million seconds of the model: what it says there is what is reported."""

    async def main() -> None:
        config = small_config(
            availability={"name": "bernoulli", "pi": 0.5}, rounds={"clock": "wall", "time_scale": 1e6}
        )
        coordinator = FakeCoordinator(config)
        coordinator.status["time_s"] = 0.0
        async with member("h0", coordinator=coordinator):
            await until(lambda: {update.devices[0].available for update in coordinator.updates[5:]} == {True, False})

    run(main())


def test_an_absent_coordinator_is_waited_for_and_then_given_up() -> None:
    async def main() -> None:
        settings = Settings(f"http://127.0.0.1:{closed_port()}", ("h0",), port=0, patience_s=0.2)
        with pytest.raises(FleetError, match=r"no coordinator at http://127.0.0.1:\d+.* 0.2 s .*--patience"):
            await serve(settings, NumpyWorkbench)

    run(main())


def test_a_coordinator_that_comes_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Any] = []
    bear = Membership._bear
    monkeypatch.setattr(Membership, "_bear", lambda self, attempt: (failures.append(attempt), bear(self, attempt)))

    async def main() -> None:
        coordinator, port = FakeCoordinator(), closed_port()
        devices = asyncio.create_task(
            serve(Settings(f"http://127.0.0.1:{port}", ("h0",), port=0, patience_s=20), NumpyWorkbench)
        )
        await until(lambda: failures)
        async with served(coordinator.app(), port):
            await until(lambda: coordinator.updates)
            coordinator.status["leave"] = True
            await devices

    run(main())


def test_a_coordinator_that_vanishes_and_returns_is_found_again() -> None:
    async def main() -> None:
        coordinator, port = FakeCoordinator(), closed_port()
        devices = asyncio.create_task(
            serve(Settings(f"http://127.0.0.1:{port}", ("h0",), port=0, patience_s=20), NumpyWorkbench)
        )
        async with served(coordinator.app(), port):
            await until(lambda: coordinator.updates)
        restarted = FakeCoordinator()
        restarted.status["known"] = False
        async with served(restarted.app(), port):
            await until(lambda: restarted.registrations)
            restarted.status["leave"] = True
            await devices

    run(main())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (problem(409, "there is no place for device 'h0'"), "refuses: there is no place for device 'h0'"),
        (Response("<html>", 404), r"no coordinator at .* for 0.3 s \(it answers 404: <html>\)"),
        (Response("{}", 200), "no coordinator of this version"),
    ],
)
def test_a_coordinator_that_refuses_is_a_mistake_in_the_call(answer: Response, message: str) -> None:
    async def main() -> None:
        async with member("h0", coordinator=FakeCoordinator(answer=answer)) as rig:
            with pytest.raises(FleetError, match=message):
                await rig.devices

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        *(problem(status, "later") for status in (408, 429, 503)),
        *(Response("<html>", status) for status in (400, 401, 403, 404, 410, 429, 502)),
        JSONResponse({"detail": "Not Found"}, 404),
    ],
    ids=lambda answer: f"{answer.status_code}-{answer.media_type}",
)
def test_an_error_that_passes_is_waited_for(answer: Response) -> None:
    """Also one of what stands before the coordinator, such as an ingress while it moves: the refusal is not its own."""

    async def main() -> None:
        coordinator = FakeCoordinator(answer=answer)
        async with member("h0", coordinator=coordinator, patience_s=20.0) as rig:
            await until(lambda: coordinator.registrations)
            coordinator.answer = None
            await rig.is_loaded()

    run(main())


def test_what_a_coordinator_says_that_cannot_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        coordinator = FakeCoordinator(answer=problem(500, "roster.jsonl cannot be written: No space left"))
        async with member("h0", coordinator=coordinator, patience_s=0.5) as rig:
            with pytest.raises(FleetError, match=r"it answers 500: roster.jsonl cannot be written: No space left"):
                await rig.devices
            assert len(coordinator.registrations) > 2
        told = [r.message for r in caplog.records if r.levelname == "WARNING" and "No space left" in r.message]
        assert len(told) == 1, told

    run(main())


def test_a_configuration_that_is_not_understood_is_a_mistake() -> None:
    async def main() -> None:
        coordinator = FakeCoordinator()
        async with member("h0", coordinator=coordinator) as rig:
            document = {**coordinator.config.document(), "unheard_of": 1}
            coordinator.config = type("Newer", (), {"document": lambda self: document})()
            with pytest.raises(ConfigError, match="unheard_of"):
                await rig.devices

    run(main())


def test_a_port_in_use_is_one_clear_line() -> None:
    async def main() -> None:
        with bind("127.0.0.1", 0) as taken:
            settings = Settings("http://127.0.0.1:8080", ("h0",), port=port_of(taken))
            with pytest.raises(FleetError, match="in use: choose another with --port"):
                await serve(settings, NumpyWorkbench)

    run(main())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_after_a_farewell(number: signal.Signals, code: int) -> None:
    async def main() -> None:
        coordinator = FakeCoordinator()
        async with served(coordinator.app()) as http:
            process = await _spawn(str(http.base_url))
            await until(lambda: coordinator.updates and coordinator.updates[-1].devices[0].available)
            process.send_signal(number)
            assert await asyncio.to_thread(process.wait) == code
            assert coordinator.last == [("h0", False, None)]

    run(main())


SCRIPT = """
import sys
from network import NumpyWorkbench
from parityfl.client.serve import serve
from parityfl.client.settings import Settings
from parityfl.web.server import run
try:
    run(serve(Settings(sys.argv[1], ("h0",), port=0), NumpyWorkbench))
except KeyboardInterrupt:
    sys.exit(130)
"""


async def _spawn(url: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, url], env=environment)
