"""Devices that listen count as available once they have answered where they are called."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fakes import FakeDevice, honest
from fastapi import FastAPI

from network import SAMPLES, closed_port, run, served, small_config, until
from parityfl.config import Rounds
from parityfl.coordinator.device_registry import DeviceRegistry
from parityfl.coordinator.devices import Devices
from parityfl.coordinator.probing import Prober
from parityfl.wire.schemas import DeviceReport, Registration

HEARTBEAT_S = 100.0


class Rig:
    """A registry and its prober, on a clock that stands until it is moved."""

    def __init__(self, devices: Devices, rounds: Rounds) -> None:
        self.devices = devices
        self.now = 0.0
        self.registry = DeviceRegistry(["h0", "h1"], True, HEARTBEAT_S, lambda: self.now, probing=True)
        self.prober = Prober(self.registry, devices, rounds, lambda: self.now)

    def enter(self, name: str, port: int | None) -> None:
        self.registry.register(Registration(device_id=name, port=port, num_samples=SAMPLES[0]), "127.0.0.1")

    def state(self, name: str) -> str:
        """Return a device's state after its next report."""
        self.registry.report(DeviceReport(device_id=name, available=True))
        member = self.registry.get(name)
        assert member is not None
        return member.state

    async def probe(self) -> int:
        """Look, and wait until the probes are over; return how many there were."""
        self.prober.look()
        probes = [task for task in asyncio.all_tasks() if task.get_name().startswith("probe ")]
        await asyncio.gather(*probes)
        return len(probes)


@asynccontextmanager
async def rig(**times: float) -> AsyncIterator[Rig]:
    rounds = small_config(rounds={"clock": "wall", "heartbeat_s": HEARTBEAT_S, **times}).rounds
    async with Devices(rounds) as devices:
        found = Rig(devices, rounds)
        yield found
        await found.prober.close()


def test_a_device_that_answers_is_available_and_not_probed_again() -> None:
    async def main() -> None:
        async with rig() as here, served(FakeDevice("h0", honest).app()) as http:
            here.enter("h0", http.base_url.port)
            assert here.state("h0") == "unreachable"
            assert not here.registry.available().any()
            assert not here.registry.prepared
            assert await here.probe() == 1
            assert here.registry.available().tolist() == [True, False]
            assert here.state("h0") == "available"
            assert await here.probe() == 0

    run(main())


def test_a_device_that_only_reports_is_never_available(caplog: pytest.LogCaptureFixture) -> None:
    """It is probed at once, after 1 heartbeat, and then after 2, 4, ... 32; registering again changes nothing."""

    async def main() -> None:
        async with rig() as here:
            here.enter("h0", closed_port())
            probed = []
            for heartbeat in range(101):
                here.now = heartbeat * HEARTBEAT_S
                assert here.state("h0") == "unreachable"
                if await here.probe():
                    probed.append(heartbeat)
            assert probed == [0, 1, 3, 7, 15, 31, 63, 95]

    run(main())
    (warning,) = [record.getMessage() for record in caplog.records if "probing" in record.name]
    assert "h0 does not answer at http://127.0.0.1:" in warning
    assert "--advertise" in warning


def test_what_answers_without_being_a_device_is_not_available() -> None:
    async def main() -> None:
        async with rig() as here, served(FastAPI()) as http:
            here.enter("h0", http.base_url.port)
            await here.probe()
            assert here.state("h0") == "unreachable"

    run(main())


def test_a_device_that_was_unreachable_is_available_once_it_answers_again() -> None:
    async def main() -> None:
        async with rig() as here, served(FakeDevice("h0", honest).app()) as http:
            here.enter("h0", http.base_url.port)
            here.state("h0")
            await here.probe()
            here.registry.miss(here.registry.at(0))
            assert here.registry.at(0).state == "unreachable"
            assert here.state("h0") == "unreachable"
            await here.probe()
            assert here.state("h0") == "available"

    run(main())


def test_a_probe_that_waits_for_its_turn_is_no_silence_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is asked at a time, and for longer than a probe may take it is another."""
    monkeypatch.setattr("parityfl.coordinator.devices.MAX_CONNECTIONS", 1)

    async def main() -> None:
        async with rig(connect_timeout_s=0.5) as here, served(FakeDevice("h0", honest).app()) as http:
            here.enter("h0", http.base_url.port)
            assert here.state("h0") == "unreachable"
            async with here.devices.slot(here.registry.at(0)):
                here.prober.look()
                await asyncio.sleep(0.6)
                assert here.state("h0") == "unreachable"
            await until(lambda: here.state("h0") == "available")

    run(main())


def test_a_device_that_moves_is_probed_where_it_is_at_once() -> None:
    async def main() -> None:
        async with rig() as here, served(FakeDevice("h0", honest).app()) as http:
            here.enter("h0", closed_port())
            assert here.state("h0") == "unreachable"
            await here.probe()
            here.enter("h0", http.base_url.port)
            assert here.state("h0") == "unreachable"
            await here.probe()
            assert here.state("h0") == "available"
            here.enter("h0", closed_port())
            assert here.state("h0") == "unreachable"

    run(main())


def test_an_answer_from_where_a_device_no_longer_is_counts_for_nothing() -> None:
    async def main() -> None:
        asked, released = asyncio.Event(), asyncio.Event()
        app = FastAPI()

        @app.get("/health")
        async def health() -> dict[str, Any]:
            asked.set()
            await released.wait()
            return {}

        async with rig() as here, served(app) as http:
            here.enter("h0", http.base_url.port)
            here.prober.look()
            await asked.wait()
            here.enter("h0", closed_port())
            released.set()
            await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "probe h0"])
            assert here.state("h0") == "unreachable"

    run(main())


def test_a_device_that_polls_is_available_by_its_report() -> None:
    async def main() -> None:
        async with rig() as here:
            here.enter("h0", None)
            assert here.state("h0") == "available"
            here.registry.miss(here.registry.at(0))
            assert here.state("h0") == "available"
            assert await here.probe() == 0

    run(main())


def test_who_is_silent_is_not_probed() -> None:
    async def main() -> None:
        async with rig() as here:
            here.enter("h0", closed_port())
            here.state("h0")
            for quarter in range(1, 8):  # who does not look for longer excuses the silence
                here.now = quarter * HEARTBEAT_S / 4
                here.registry.refresh()
            assert here.registry.at(0).state == "lost"
            assert await here.probe() == 0

    run(main())
