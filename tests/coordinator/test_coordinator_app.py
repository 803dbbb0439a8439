import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from network import LAYOUT, RUN, WEIGHTS, assert_problem, run, served, small_config, until
from parityfl.config import Config
from parityfl.coordinator.addresses import Addresses
from parityfl.coordinator.app import create_app
from parityfl.coordinator.device_registry import DeviceRegistry
from parityfl.coordinator.devices import Devices
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.roster import read_roster
from parityfl.coordinator.service import Coordinator
from parityfl.core.ledger import OUTCOME_CODES, Ledger, RoundRecord, account
from parityfl.core.left_behind import REASONS
from parityfl.engine.fleet import ClosedRound
from parityfl.wire.digests import model_digest
from parityfl.wire.payload import unpack
from parityfl.wire.schemas import (
    SAFETENSORS,
    ClientHistory,
    ClientInfo,
    DeviceReport,
    Registration,
    RegistrationReply,
    RoundInfo,
    StatusReply,
    TrainRequest,
)


@dataclass
class Rig:
    """A served coordinator."""

    http: httpx.AsyncClient
    coordinator: Coordinator
    config: Config

    async def register(self, name: str, **more: Any) -> httpx.Response:
        registration = Registration(device_id=name, port=5000, **more)
        return await self.http.post("/register", json=registration.model_dump(mode="json"))

    async def report(self, name: str, available: bool = True) -> StatusReply:
        update = {"devices": [{"device_id": name, "available": available, "training": None, "latency_s": 0.01}]}
        response = await self.http.post("/status_update", json=update)
        return StatusReply.model_validate_json(response.content)


@asynccontextmanager
async def coordinating(
    config: Config | None = None,
    min_clients: int = 2,
    allowed_hosts: Sequence[str] = (),
    roster: Path | None = None,
    port: int = 0,
) -> AsyncIterator[Rig]:
    config = config or small_config()
    virtual = config.rounds.clock == "virtual"
    registry = DeviceRegistry(config.device_ids, not virtual, 1.0, asyncio.get_running_loop().time)
    async with Devices(config.rounds) as devices:
        fleet = HttpFleet(config, LAYOUT, registry, devices, RUN)
        coordinator = Coordinator(config, fleet, min_clients, addresses=Addresses(allowed_hosts), roster=roster)
        async with served(create_app(coordinator), port) as http:
            try:
                yield Rig(http, coordinator, config)
            finally:
                coordinator.events.close()


def closed_round(number: int, clients: int = 4) -> ClosedRound:
    """Client 0 completed and was credited 0.5, 1 was late, 2 was available, 3 and all after it were not."""
    unknown, credit = np.full(clients, np.nan), np.zeros(clients)
    outcome, available = np.zeros(clients, dtype=np.int64), np.arange(clients) < 3
    outcome[:2], credit[0] = [OUTCOME_CODES.index("completed"), OUTCOME_CODES.index("late")], 0.5
    known = {"outcome": outcome, "available": available, "selected": outcome > 0, "registered": np.ones(clients, bool)}
    fields = dict.fromkeys(RoundRecord.__dataclass_fields__, unknown)
    more = {"round": number, "time_s": 0.0, "credit": credit}
    record = RoundRecord(**{**fields, **known, **more})
    ledger = Ledger.empty(clients)
    for earlier in range(1, number + 1):
        ledger = account(ledger, RoundRecord(**{**fields, **known, **more, "round": earlier}))
    figures = {"round": number, "global_accuracy": 0.25, "utility_cv": np.nan, "num_available": 3}
    return ClosedRound(record, ledger, figures, WEIGHTS + number, {1: "no reply"})


def test_registration_gives_what_a_device_needs() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            reply = RegistrationReply.model_validate_json((await rig.register("h2")).content)
            assert (reply.index, reply.run_id) == (2, RUN)
            assert reply.heartbeat_s == rig.config.rounds.heartbeat_s
            assert Config(**reply.config) == rig.config
            assert rig.coordinator.registry.at(2).url == "http://127.0.0.1:5000"

    run(main())


def test_ready_says_when_enough_have_registered_and_health_is_there_before() -> None:
    async def main() -> None:
        async with coordinating(min_clients=2) as rig:
            assert (await rig.http.get("/health")).json()["phase"] == "waiting"
            await rig.register("h0")
            assert_problem(await rig.http.get("/ready"), 503, "1 of 2 devices")
            await rig.register("h1")
            response = await rig.http.get("/ready")
            assert (response.status_code, response.text) == (200, "ready")

    run(main())


def test_health_and_readiness_may_be_asked_for_without_a_body() -> None:
    async def main() -> None:
        async with coordinating(min_clients=1) as rig:
            assert (await rig.http.head("/ready")).status_code == 503
            await rig.register("h0")
            for path in ("/ready", "/health"):
                response = await rig.http.head(path)
                assert (response.status_code, response.content) == (200, b"")

    run(main())


def test_health_says_how_many_devices_are_waited_for() -> None:
    """A device is here once it has loaded its data and reported; who has gone is not."""

    async def main() -> None:
        async with coordinating(min_clients=2) as rig:

            async def reason() -> str:
                return str((await rig.http.get("/health")).json()["reason"])

            assert await reason() == "0 of 2 devices are here"
            await rig.register("h0")
            assert await reason() == "0 of 2 devices are here"
            await rig.register("h0", num_samples=10)
            await rig.report("h0")
            assert await reason() == "1 of 2 devices are here"
            rig.coordinator.phase = "training"
            assert await reason() == ""
            rig.coordinator.finish("failed", "the disk is full")
            assert await reason() == "the disk is full"

    run(main())


def test_the_rounds_begin_once_enough_have_loaded_their_data_and_reported() -> None:
    def begins(rig: Rig) -> bool:
        rig.coordinator.check_start()
        return rig.coordinator.start.is_set()

    async def main() -> None:
        async with coordinating(min_clients=2) as rig:
            for name in ("h0", "h1"):
                await rig.register(name)
                await rig.report(name, available=False)
            await rig.register("h0", num_samples=10)
            assert not begins(rig)
            await rig.register("h1", num_samples=20)
            assert begins(rig)
        async with coordinating(min_clients=1) as rig:
            await rig.register("h0", num_samples=10)
            assert not begins(rig)
            await rig.report("h0")
            assert begins(rig)

    run(main())


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_who_has_no_place_is_refused(clock: str) -> None:
    async def main() -> None:
        async with coordinating(small_config(rounds={"clock": clock})) as rig:
            if clock == "virtual":
                assert_problem(await rig.register("phone"), 409, "phone", "h0 to h3")
                return
            for name in ("a", "b", "c", "d"):
                assert (await rig.register(name)).status_code == 200
            assert_problem(await rig.register("e"), 409, "population.clients = 4")

    run(main())


@pytest.mark.parametrize("host", ["10.9.8.7", "192.0.2.7"])
def test_a_device_names_no_address_but_its_own(host: str) -> None:
    async def main() -> None:
        async with coordinating() as rig:
            assert_problem(await rig.register("h0", host=host), 403, host, "127.0.0.1")
            assert (await rig.register("h0", host="127.0.0.1")).status_code == 200
        async with coordinating(allowed_hosts=[host]) as rig:
            assert (await rig.register("h0", host=host)).status_code == 200
            assert rig.coordinator.registry.at(0).url == f"http://{host}:5000"

    run(main())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"device_id": "a b", "port": 5000}, "device_id"),
        ({"device_id": "h0", "port": 0}, "port"),
        ({"device_id": "h0"}, "port"),
        ({"device_id": "h0", "port": 5000, "shard": 3}, "shard"),
        ({"device_id": "h0", "port": 5000, "num_samples": "7"}, "num_samples"),
        ({"device_id": "h0", "port": 5000, "dtypes": ["BF16"]}, "dtypes"),
        ({"device_id": "h0", "port": 5000, "dtypes": ["F32", "a name of no type"]}, "dtypes"),
    ],
)
def test_a_malformed_registration_is_a_problem_that_names_the_field(body: dict[str, Any], field: str) -> None:
    async def main() -> None:
        async with coordinating() as rig:
            response = await rig.http.post("/register", json=body)
            assert_problem(response, 422, field)
            assert field in response.json()["errors"][0]["field"]

    run(main())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"device_id": "h0", "available": True, "training": -1}, "training"),
        ({"device_id": "h0", "available": True, "training": 2**63}, "training"),
        ({"devices": [{"device_id": "h0", "available": True, "latency_s": -1}]}, "latency_s"),
        ({"devices": []}, "devices"),
        ([], "dictionary"),
    ],
)
def test_a_malformed_report_is_a_problem_that_names_the_field(body: Any, field: str) -> None:
    async def main() -> None:
        async with coordinating() as rig:
            assert_problem(await rig.http.post("/status_update", json=body), 422, field)

    run(main())


def test_errors_of_every_kind_are_problems() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            assert_problem(await rig.http.get("/nothing"), 404)
            assert_problem(await rig.http.delete("/clients"), 405)
            assert_problem(await rig.http.get("/clients/h9"), 404, "h9")
            assert_problem(await rig.http.get("/rounds/1"), 404, "round 1")
            assert_problem(await rig.http.get("/rounds/x"), 422)
            assert_problem(await rig.http.get("/model"), 503, "/training/start")
            assert_problem(await rig.http.post("/training/stop"), 409, "waiting")
            assert_problem(await rig.http.post("/register", content=b"{"), 422)
            assert_problem(await rig.http.post("/register", content=bytes(5 * 2**20)), 413, "security.max_json_bytes")
            assert_problem(await rig.http.post("/register", content=_endless()), 413, "security.max_json_bytes")
            for path in ("/register", "/status_update", "/work"):
                coded = await rig.http.post(path, content=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
                assert_problem(coded, 415, "Content-Encoding", "gzip")
                assert coded.headers["Accept-Encoding"] == "identity"
            rig.coordinator.model = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
            assert_problem(await rig.http.get("/model"), 500, "ZeroDivisionError")

    run(main())


async def _endless() -> AsyncIterator[bytes]:
    for _ in range(80):
        yield bytes(2**16)


def test_a_status_update_of_several_devices_or_of_one() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            assert (await rig.report("h0")).known is False
            await rig.register("h0")
            reply = await rig.report("h0")
            assert (reply.known, reply.leave) == (True, False)
            assert np.isnan(reply.time_s)
            single = DeviceReport(device_id="h0", available=False).model_dump(mode="json")
            assert (await rig.http.post("/status_update", json=single)).json()["known"] is True
            assert rig.coordinator.registry.at(0).state == "away"

    run(main())


def test_the_time_of_the_run_is_told() -> None:
    async def main() -> None:
        async with coordinating(small_config(rounds={"clock": "wall"})) as rig:
            await rig.register("h0")
            await rig.coordinator.fleet.look(5, 1234.0)
            assert 1234 <= (await rig.report("h0")).time_s < 1300

    run(main())


def test_after_the_run_devices_are_told_to_leave_and_none_is_taken() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            await rig.register("h0")
            rig.coordinator.finish("done")
            waiting = asyncio.create_task(rig.coordinator.everyone_dismissed())
            assert (await rig.report("h0")).leave is True
            await waiting
            assert_problem(await rig.register("h1"), 410, "done")

    run(main())


def test_clients_and_rounds() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            for name in ("h1", "h0"):
                await rig.register(name, num_samples=10, label_counts=[4, 6], version="1.2")
            await rig.report("h0")
            before = ClientHistory.model_validate_json((await rig.http.get("/clients/h0")).content)
            assert (before.opportunities, np.isnan(before.utility)) == (0, True)
            rig.coordinator.started(WEIGHTS, 0, 30)
            for number in (1, 2):
                rig.coordinator.round_closed(closed_round(number))
            clients = [ClientInfo.model_validate(c, strict=False) for c in (await rig.http.get("/clients")).json()]
            assert [c.device_id for c in clients] == ["h0", "h1"]
            h0 = clients[0]
            assert (h0.index, h0.state, h0.address) == (0, "available", "http://127.0.0.1:5000")
            assert (h0.num_samples, h0.label_counts, h0.version, h0.latency_s) == (10, [4, 6], "1.2", 0.01)
            assert (h0.opportunities, h0.selected, h0.participated) == (2, 2, 2)
            assert (h0.utility, h0.normalized_utility) == (1.0, 0.5)
            assert [c.staleness for c in clients] == [0, None]
            one = ClientHistory.model_validate_json((await rig.http.get("/clients/h0")).content)
            assert [t.after for t in one.transitions] == ["registered", "available"]
            assert dict(one).keys() - dict(h0).keys() == {"transitions"}, "the list has all but these"
            rounds = (await rig.http.get("/rounds")).json()
            assert [r["round"] for r in rounds] == [1, 2]
            info = RoundInfo.model_validate_json((await rig.http.get("/rounds/2")).content)
            assert info.outcomes == {"h0": "completed", "h1": "late"}
            assert info.reasons == {"h1": "no reply"}
            assert rounds[1]["figures"] == {
                "round": 2, "global_accuracy": 0.25, "utility_cv": None, "num_available": 3,
            }  # fmt: skip

    run(main())


@pytest.mark.parametrize("clock", ["wall", "virtual"])
def test_who_is_left_behind_is_said_everywhere(caplog: pytest.LogCaptureFixture, clock: str) -> None:
    """h3 (never available) is from round 5 on; h1 (selected, always late) and h2 (never selected) are from round 8 on,
    since two of three are selected, so that eight rounds are worth five selections; h0 is not.

    Real devices are warned of in the log as well.
    """
    reasons = [None, "never completed a round", "never selected", "never available"]

    async def main() -> None:
        async with coordinating(small_config(rounds={"clock": clock})) as rig:
            for name in rig.config.device_ids:
                await rig.register(name)
            for number in range(1, 11):
                rig.coordinator.round_closed(closed_round(number))
                expected = [
                    reason if number >= since else None for reason, since in zip(reasons, (0, 8, 8, 5), strict=True)
                ]
                found = [client["left_behind"] for client in (await rig.http.get("/clients")).json()]
                assert found == expected
                text = (await rig.http.get("/metrics")).text
                for reason in REASONS:
                    count = float(reason in expected)
                    assert f'parityfl_devices_left_behind{{reason="{reason}"}} {count}\n' in text

    run(main())
    said = [
        "h3 is left behind: never available (available in 0 rounds, selected in 0, completed 0)",
        "h1 is left behind: never completed a round (available in 8 rounds, selected in 8, completed 0)",
        "h2 is left behind: never selected (available in 8 rounds, selected in 0, completed 0)",
    ]
    told = [record.getMessage() for record in caplog.records if "left behind" in record.getMessage()]
    assert told == (said if clock == "wall" else [])


def test_many_that_are_left_behind_at_once_are_warned_of_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Twelve of fifteen have never been available by round 5."""

    async def main() -> None:
        async with coordinating(small_config(population={"clients": 15}, rounds={"clock": "wall"})) as rig:
            for name in rig.config.device_ids:
                await rig.register(name)
            rig.coordinator.round_closed(closed_round(5, 15))

    run(main())
    told = [record.getMessage() for record in caplog.records if "left behind" in record.getMessage()]
    shown = ", ".join(f"h{number}" for number in range(3, 13))
    assert told == [f"12 devices are left behind: never available ({shown} and 2 more)"]


def test_a_round_that_is_not_kept_is_told_from_one_that_has_not_closed() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            rig.coordinator.started(WEIGHTS, 2, 30)
            rig.coordinator.round_closed(closed_round(3))
            assert (await rig.http.get("/rounds/3")).status_code == 200
            assert_problem(await rig.http.get("/rounds/2"), 404, "round 2 is not kept here", "latest 1,000")
            for number in ("4", "0"):
                problem = await rig.http.get(f"/rounds/{number}")
                assert_problem(problem, 404, f"round {number} has not closed", "3 of 30")

    run(main())


def test_the_model_comes_with_a_complete_request() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            rig.coordinator.started(WEIGHTS, 0, 30)
            rig.coordinator.round_closed(closed_round(2))
            response = await rig.http.get("/model")
            assert response.headers["content-type"] == SAFETENSORS
            request, vectors = unpack(response.content, TrainRequest, LAYOUT)
            np.testing.assert_array_equal(vectors["model"], WEIGHTS + 2)
            assert (request.run_id, request.round, request.device_id) == (RUN, 3, None)
            assert request.time_s == 2 * rig.config.rounds.interval_s
            assert request.model_digest == model_digest(WEIGHTS + 2)
            assert request.training == rig.config.training

    run(main())


def test_start_and_stop() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            assert (await rig.http.post("/training/start")).json() == {"phase": "training", "round": 0}
            assert rig.coordinator.start.is_set()
            assert_problem(await rig.http.post("/training/start"), 409, "training")
            assert (await rig.http.post("/training/stop")).status_code == 200
            assert rig.coordinator.fleet.stop.is_set()

    run(main())


async def events(
    http: httpx.AsyncClient, headers: dict[str, str] | None = None, found: list[Any] | None = None
) -> list[tuple[str, str, Any]]:
    """Return all events until the stream ends; `found` has those that have come."""
    found, current = [] if found is None else found, {}
    async with http.stream("GET", "/events", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            current[name] = value
            if not line and "data" in current:
                found.append((current["id"], current["event"], json.loads(current["data"])))
                current = {}
    return found


def test_events_are_replayed_to_who_comes_late_and_followed_by_who_is_there() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            rig.coordinator.started(WEIGHTS, 0, 3)
            rig.coordinator.round_closed(closed_round(1))
            first = (await anext(rig.coordinator.events.follow())).number
            there: list[Any] = []
            follower = asyncio.create_task(events(rig.http, found=there))
            resumed = asyncio.create_task(events(rig.http, {"Last-Event-ID": str(first + 1)}))
            strangers = [asyncio.create_task(events(rig.http, {"Last-Event-ID": str(n)})) for n in (2, first + 9)]
            await until(lambda: len(there) == 2)
            rig.coordinator.round_closed(closed_round(2))
            await until(lambda: len(there) == 3)
            rig.coordinator.finish("done")
            rig.coordinator.events.close()
            seen = await follower
            assert [(int(number) - first, kind) for number, kind, _ in seen] == [
                (0, "started"), (1, "round"), (2, "round"), (3, "ended"),
            ]  # fmt: skip
            assert seen[0][2] == {"rounds_done": 0, "rounds_total": 3}
            assert seen[2][2]["figures"]["global_accuracy"] == 0.25
            assert seen[2][2]["figures"]["utility_cv"] is None
            assert seen[3][2]["phase"] == "done"
            assert [int(number) - first for number, *_ in await resumed] == [2, 3]
            assert await asyncio.gather(*strangers) == [seen, seen]

    run(main())


def test_metrics() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            await rig.register("h0")
            rig.coordinator.round_closed(closed_round(1))
            rig.coordinator.round_closed(closed_round(2))
            lines = (await rig.http.get("/metrics")).text.splitlines()
            for line in (
                "parityfl_rounds_done 2.0",
                "parityfl_global_accuracy 0.25",
                "parityfl_utility_cv NaN",
                "parityfl_num_available 3.0",
                'parityfl_devices{state="registered"} 1.0',
                'parityfl_outcomes_total{outcome="completed"} 2.0',
                'parityfl_outcomes_total{outcome="late"} 2.0',
                'parityfl_outcomes_total{outcome="failed"} 0.0',
            ):
                assert line in lines

    run(main())


def test_the_page_needs_nothing_from_elsewhere() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            page = (await rig.http.get("/")).text
            assert "EventSource" in page
            assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in page

    run(main())


def test_the_documentation_shows_every_endpoint() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            assert (await rig.http.get("/docs")).status_code == 200
            paths = (await rig.http.get("/openapi.json")).json()["paths"]
            assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == {
                ("POST", "/register"),
                ("POST", "/status_update"),
                ("GET", "/ready"),
                ("GET", "/health"),
                ("GET", "/clients"),
                ("GET", "/clients/{device_id}"),
                ("GET", "/rounds"),
                ("GET", "/rounds/{round}"),
                ("GET", "/model"),
                ("POST", "/training/start"),
                ("POST", "/training/stop"),
                ("GET", "/events"),
                ("GET", "/metrics"),
                ("POST", "/work"),
                ("POST", "/work/{work_id}/result"),
            }
            assert all(endpoint["summary"] for methods in paths.values() for endpoint in methods.values())

    run(main())


def test_a_device_whose_place_cannot_be_kept_is_not_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It comes back once there is room, and then has that place."""

    async def main() -> None:
        roster = tmp_path / "full" / "roster.jsonl"
        async with coordinating(small_config(rounds={"clock": "wall"}), roster=roster) as rig:
            assert_problem(await rig.register("phone"), 500, "roster.jsonl cannot be written (No such file")
            assert not rig.coordinator.registry.registered().any()
            assert [r.message for r in caplog.records if r.levelname == "ERROR" and "roster.jsonl" in r.message]
            roster.parent.mkdir()
            assert RegistrationReply.model_validate_json((await rig.register("phone")).content).index == 0
        assert read_roster(roster) == {0: "phone"}

    run(main())


def test_the_roster_is_kept_in_its_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinating(small_config(rounds={"clock": "wall"}), roster=tmp_path / "roster.jsonl") as rig:
            await rig.register("phone")
            await rig.register("h3")
            written = (tmp_path / "roster.jsonl").stat()
            await rig.register("phone")  # and is known already
            assert (tmp_path / "roster.jsonl").stat() == written
        assert read_roster(tmp_path / "roster.jsonl") == {0: "phone", 3: "h3"}

    run(main())
