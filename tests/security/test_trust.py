"""Whole coordinators and devices with credentials, over real HTTP on loopback."""

import asyncio
import errno
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fakes import replies, task
from fastapi import FastAPI, Request
from fastapi.responses import Response

from network import (
    LAYOUT,
    RUN,
    WEIGHTS,
    NumpyWorkbench,
    assert_problem,
    run,
    served,
    small_config,
    train_document,
    until,
)
from parityfl.client.identity import Identity
from parityfl.client.serve import serve as serve_devices
from parityfl.client.settings import Settings
from parityfl.coordinator import enrolment
from parityfl.coordinator.enrolment import Enrolment, RefusedError
from parityfl.coordinator.evaluate import HttpEvaluator
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.gate import Nonces
from parityfl.coordinator.serve import Service, serve
from parityfl.coordinator.trust import Trust
from parityfl.core.errors import FleetError, FolderError
from parityfl.core.types import Outcome
from parityfl.engine.fleet import ClientEvaluation, Observer
from parityfl.web.problems import problem
from parityfl.web.server import bind, port_of
from parityfl.wire.digests import CONTENT_DIGEST
from parityfl.wire.schemas import WORK_ID, WORK_PATH, Registration, RegistrationReply, StatusReply
from parityfl.wire.signing import HEADER, NONCE_HEADER, KeyPair, Proof, Token, registration_text

TOKEN = Token("the token of this fleet")
OTHER = Token("the token of another fleet")
OPERATOR = Token("the token of its operators")


class Rig:
    """A coordinator whose rounds are what a test does with its fleet."""

    def __init__(
        self,
        folder: Path,
        token: Token | None = TOKEN,
        operator: Token | None = None,
        keep_serving: bool = False,
        **sections: Any,
    ) -> None:
        self.folder = folder
        self.listening = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port_of(self.listening)}"
        self.fleet: asyncio.Future[HttpFleet] = asyncio.get_running_loop().create_future()
        self.done = asyncio.Event()
        rounds = {"clock": "wall", "heartbeat_s": 0.5, "train_timeout_s": 20.0, **sections.pop("rounds", {})}
        self.config = small_config(rounds=rounds, **sections)
        trust = Trust(token, operator)
        service = Service(min_clients=1, run_id=RUN, trust=trust, folder=folder, keep_serving=keep_serving)
        self.serving = asyncio.create_task(serve(self.config, LAYOUT, self._drive, self.listening, service))
        self.http = httpx.AsyncClient(base_url=self.url)

    async def _drive(self, fleet: HttpFleet, observer: Observer) -> None:
        observer.started(WEIGHTS, 0, 30)
        self.fleet.set_result(fleet)
        await self.done.wait()

    def devices(self, *names: str, token: Token | None = TOKEN, **more: Any) -> "asyncio.Task[None]":
        settings = Settings(self.url, names, port=0, patience_s=more.pop("patience_s", 20), token=token, **more)
        return asyncio.create_task(serve_devices(settings, NumpyWorkbench))

    async def ready(self, *names: str) -> HttpFleet:
        """Return the fleet once these devices are available."""
        fleet = await self.fleet
        await until(lambda: all((m := fleet.registry.get(n)) is not None and m.state == "available" for n in names))
        return fleet

    async def state(self, name: str) -> str:
        """Return a device's state as an operator on this machine sees it."""
        response = await self.http.get(f"/clients/{name}")
        return str(response.json()["state"]) if response.status_code == 200 else ""

    async def finish(self, *devices: "asyncio.Task[None]") -> None:
        self.done.set()
        await asyncio.gather(self.serving, *devices)
        await self.http.aclose()


@asynccontextmanager
async def rig_in(folder: Path, **trust: Any) -> AsyncIterator[Rig]:
    rig = Rig(folder, **trust)
    try:
        yield rig
    finally:
        rig.serving.cancel()
        await asyncio.gather(rig.serving, return_exceptions=True)
        await rig.http.aclose()


async def register(http: httpx.AsyncClient, name: str, identity: Identity, port: int = 9) -> httpx.Response:
    """Register as a device does."""
    message = Registration(device_id=name, port=port, num_samples=1, process_key=identity.key)
    return await http.post("/register", json=message.model_dump(mode="json"), auth=identity)


def report(*names: str) -> dict[str, Any]:
    return {"devices": [{"device_id": name, "available": True} for name in names]}


def test_a_full_disk_of_the_coordinators_is_no_fault_of_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back until it is let in, and is not here before."""
    append, failures = enrolment.append_line, [2, 1]

    def full_at_first(path: Path, line: bytes, mode: int, *, durable: bool) -> None:
        if path.name == "devices.jsonl" and failures:
            failures.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, line, mode, durable=durable)

    async def main() -> None:
        rig = Rig(tmp_path)
        monkeypatch.setattr(enrolment, "append_line", full_at_first)
        assert_problem(await register(rig.http, "h1", Identity(TOKEN)), 500, "devices.jsonl", "No space left")
        device = rig.devices("h0")
        fleet = await rig.ready("h0")
        assert (failures, [member.device_id for member in fleet.registry.members]) == ([], ["h0"])
        await rig.finish(device)

    run(main())


def test_devices_that_know_the_token_train_and_evaluate(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        devices = rig.devices("h0", "h1", state=tmp_path / "state"), rig.devices("h2", pull=True)
        fleet = await rig.ready("h0", "h1", "h2")
        assert [reply.outcome for reply in await replies(fleet, task(0, 1, 2))] == [Outcome.COMPLETED] * 3
        await rig.ready("h0", "h1", "h2")
        measured: ClientEvaluation = (await HttpEvaluator(fleet)(1, WEIGHTS, WEIGHTS)).clients
        np.testing.assert_array_equal(measured.loss[:3], [6, 6, 6])
        await rig.finish(*devices)
        kept = Enrolment(tmp_path).devices()
        assert {name: device.status for name, device in kept.items()} == dict.fromkeys(["h0", "h1", "h2"], "allowed")
        for secret in (tmp_path / "security" / "coordinator.key", tmp_path / "state" / "credentials" / "h0.json"):
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600

    run(main())


def test_nothing_secret_is_kept_by_the_coordinator_or_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    async def main() -> None:
        rig = Rig(tmp_path, operator=OPERATOR)
        devices = rig.devices("h0", state=tmp_path / "state")
        await rig.ready("h0")
        await rig.finish(devices)

    run(main())
    credential = json.loads((tmp_path / "state" / "credentials" / "h0.json").read_text())["key"]
    kept = "".join(path.read_text() for path in (tmp_path / "security").iterdir() if path.name != "lock")
    for secret in ("the token of", credential):
        assert secret not in caplog.text
        assert secret not in kept


@pytest.mark.parametrize(("token", "patience_s"), [(None, 20), (OTHER, 0.3)])
def test_a_device_that_does_not_know_the_token_is_refused(
    token: Token | None, patience_s: float, tmp_path: Path
) -> None:
    """One with another token cannot know that this is the coordinator: it asks again for as long as it may."""

    async def main() -> None:
        async with rig_in(tmp_path) as rig:
            with pytest.raises(FleetError, match="does not prove that it knows the join token"):
                await rig.devices("h0", token=token, patience_s=patience_s)
            assert await rig.state("h0") == ""

    run(main())


def test_a_device_with_a_token_does_not_join_a_coordinator_that_proves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig_in(tmp_path, token=None) as rig:
            with pytest.raises(FleetError, match="serves without credentials"):
                await rig.devices("h0", patience_s=0)

    run(main())


def test_a_device_without_a_token_joins_a_coordinator_without_one(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path, token=None)
        devices = rig.devices("h0", token=None)
        fleet = await rig.ready("h0")
        assert [reply.outcome for reply in await replies(fleet, task(0))] == [Outcome.COMPLETED]
        await rig.finish(devices)
        assert not (tmp_path / "security").exists()

    run(main())


def test_a_stranger_gets_a_device_to_do_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        devices = rig.devices("h0")
        fleet = await rig.ready("h0")
        async with httpx.AsyncClient(base_url=fleet.registry.at(0).url) as http:
            document = train_document(rig.config)
            for path in ("/train", "/evaluate"):
                assert_problem(await http.post(path, content=document), 401, HEADER)
                assert_problem(await http.post(path, content=document, headers={HEADER: "{}"}), 401, "no proof")
            assert_problem(await http.get("/initial"), 401)
            assert (await http.get("/health")).status_code == 200
            with pytest.raises(httpx.LocalProtocolError, match="no coordinator has taken these devices yet"):
                await http.post("/train", content=document, auth=Identity(TOKEN))
        await rig.finish(devices)

    run(main())


def test_requests_are_good_for_once(tmp_path: Path) -> None:
    """What a bystander has recorded of either direction is of no use to it."""

    async def main() -> None:
        async with rig_in(tmp_path) as rig:
            recorded: list[httpx.Request] = []

            async def record(request: httpx.Request) -> None:
                await request.aread()
                recorded.append(request)

            identity = Identity(TOKEN)
            async with httpx.AsyncClient(base_url=rig.url, event_hooks={"request": [record]}) as http:
                assert (await register(http, "h0", identity)).status_code == 200
                assert (await http.post("/status_update", json=report("h0"), auth=identity)).json()["known"]
            for request in recorded[-2:]:
                again = await rig.http.request(
                    request.method, request.url.path, content=request.content, headers=dict(request.headers)
                )
                assert again.status_code == 401, request.url.path

    run(main())


def test_a_request_to_a_device_is_good_for_once_and_for_its_own_body(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        devices = rig.devices("h0")
        fleet = await rig.ready("h0")
        asked = fleet.devices.gate.sign("h0", "POST", "/train", "0" * 64)
        assert asked is not None
        async with httpx.AsyncClient(base_url=fleet.registry.at(0).url) as http:
            headers = {HEADER: asked.proof.written()}
            assert_problem(await http.post("/train", content=b"another body", headers=headers), 401, "body")
            assert_problem(await http.post("/train", content=b"another body", headers=headers), 401, "once")
        assert [reply.outcome for reply in await replies(fleet, task(0))] == [Outcome.COMPLETED]
        await rig.finish(devices)

    run(main())


def test_a_device_comes_back_with_its_credential_from_another_process(tmp_path: Path) -> None:
    """The second process has another port and key; the first one may not speak for the device any more."""

    async def main() -> None:
        rig = Rig(tmp_path)
        first = rig.devices("h0", state=tmp_path / "state")
        fleet = await rig.ready("h0")
        port = fleet.registry.at(0).port
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = rig.devices("h0", state=tmp_path / "state", token=None)
        await until(lambda: fleet.registry.at(0).port != port)
        await rig.ready("h0")
        assert [reply.outcome for reply in await replies(fleet, task(0))] == [Outcome.COMPLETED]
        await rig.finish(second)

    run(main())


def test_a_name_belongs_to_the_first_that_took_it(tmp_path: Path) -> None:
    """Another device that knows the token cannot take it over: it learns what to do, and the first one stays."""

    async def main() -> None:
        rig = Rig(tmp_path)
        devices = rig.devices("h0")
        fleet = await rig.ready("h0")
        port = fleet.registry.at(0).port
        with pytest.raises(FleetError, match=r"another credential.*devices allow .* h0"):
            await rig.devices("h0")
        assert fleet.registry.at(0).port == port
        await rig.finish(devices)

    run(main())


def test_no_process_speaks_for_the_devices_of_another(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        devices = rig.devices("h0")
        fleet = await rig.ready("h0")
        intruder = Identity(TOKEN)
        assert (await register(rig.http, "h1", intruder)).status_code == 200
        away = {"devices": [{"device_id": "h0", "available": False}, {"device_id": "h1", "available": True}]}
        answer = StatusReply.model_validate_json(
            (await rig.http.post("/status_update", json=away, auth=intruder)).content
        )
        assert not answer.known
        assert fleet.registry.at(0).state == "available"
        assert_problem(await rig.http.post("/work", json={"devices": ["h0"]}, auth=intruder), 409, "h0")
        await rig.finish(devices)

    run(main())


def test_a_revoked_device_is_not_asked_and_may_be_allowed_again(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        bad, good = rig.devices("h0"), rig.devices("h1")
        fleet = await rig.ready("h0", "h1")
        Enrolment(tmp_path).revoke("h0")
        with pytest.raises(FleetError, match="revoked"):
            await bad
        assert await rig.state("h0") == "revoked"
        presence = await fleet.look(1, 0.0)
        assert presence.available.tolist()[0] is False
        with pytest.raises(FleetError, match="revoked"):
            await rig.devices("h0")
        Enrolment(tmp_path).allow("h0")
        again = rig.devices("h0")
        await rig.ready("h0", "h1")
        await rig.finish(again, good)

    run(main())


def test_a_device_that_heard_of_neither_is_back_once_it_is_allowed_again(tmp_path: Path) -> None:
    """It sends no report between the two, which the coordinator learns of one by one."""

    async def main() -> None:
        rig = Rig(tmp_path, rounds={"heartbeat_s": 3.0})
        devices = rig.devices("h0")
        fleet = await rig.ready("h0")
        fleet.registry.bar(["h0"])
        assert await rig.state("h0") == "revoked"
        await rig.ready("h0")
        await rig.finish(devices)

    run(main())


def test_an_update_of_a_device_that_was_revoked_meanwhile_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig_in(tmp_path) as rig:
            devices = rig.devices("h0")
            fleet = await rig.ready("h0")
            asked = fleet.devices.gate.sign("h0", "GET", "/initial", "0" * 64)
            Enrolment(tmp_path).revoke("h0")
            with pytest.raises(RefusedError, match="h0 is revoked"):
                fleet.devices.gate.check_answer(asked, None, 200, "")
            devices.cancel()
            await asyncio.gather(devices, return_exceptions=True)

    run(main())


def test_who_listens_at_a_devices_address_is_not_the_device(tmp_path: Path) -> None:
    """The device has gone and somebody else answers there, with a document that would be right: no answer."""

    async def main() -> None:
        async with rig_in(tmp_path) as rig, rig_in(tmp_path / "other", token=None) as other:
            impostor = other.devices("h0", token=None)
            elsewhere = (await other.ready("h0")).registry.at(0)
            identity = Identity(TOKEN)
            assert (await register(rig.http, "h0", identity, port=elsewhere.port or 0)).status_code == 200
            await rig.http.post("/status_update", json=report("h0"), auth=identity)
            fleet = await rig.ready("h0")
            [reply] = await replies(fleet, task(0))
            assert (reply.outcome, reply.update) == (Outcome.UNREACHABLE, None)
            assert "is not that of h0" in reply.reason
            impostor.cancel()
            await asyncio.gather(impostor, return_exceptions=True)

    run(main())


@asynccontextmanager
async def forging(fleet: HttpFleet, status: int, times: int) -> AsyncIterator[list[int]]:
    """Stand between the coordinator and h0, answer so many calls with an error of one's own, and pass on the others.

    Yields the statuses that were answered.
    """
    member, answered = fleet.registry.at(0), list[int]()
    real = member.url
    app = FastAPI()

    @app.post("/train")
    async def train(request: Request) -> Response:
        if len(answered) < times:
            answered.append(status)
            return problem(status, "what h0 kept is lost")
        headers = {name: request.headers[name] for name in (HEADER, CONTENT_DIGEST, "Content-Type")}
        body = await request.body()
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{real}/train", content=body, headers=headers)
        answered.append(answer.status_code)
        told = {name: answer.headers[name] for name in (HEADER, CONTENT_DIGEST) if name in answer.headers}
        return Response(answer.content, answer.status_code, told)

    async with served(app) as http:
        member.port = http.base_url.port
        yield answered


@pytest.mark.parametrize("status", [410, 507, 500, 404])
def test_a_forged_error_ends_no_experiment_and_changes_no_outcome(tmp_path: Path, status: int) -> None:
    """The device is asked again, and its own answer counts."""

    async def main() -> None:
        rig = Rig(tmp_path, rounds={"clock": "virtual"})
        devices = rig.devices("h0")
        fleet = await rig.ready("h0")
        async with forging(fleet, status, times=2) as answered:
            [reply] = await replies(fleet, task(0))
            assert (reply.outcome, reply.reproducible) == (Outcome.COMPLETED, True)
            assert answered == [status, status, 200]
        await rig.finish(devices)

    run(main())


def test_a_forged_error_is_no_answer_of_a_live_device(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        devices = rig.devices("h0")
        fleet = await rig.ready("h0")
        async with forging(fleet, 409, times=1):
            [reply] = await replies(fleet, task(0))
            assert reply.outcome is Outcome.UNREACHABLE
            assert "the answer 409 is not that of h0" in reply.reason
        await rig.finish(devices)

    run(main())


Alter = Callable[[httpx.Response], Mapping[str, str] | Response]
"""Returns headers to add to an answer or to change in it, or another answer."""


@asynccontextmanager
async def between(url: str, alter: Alter) -> AsyncIterator[str]:
    """Stand between devices and their coordinator at `url`, pass all on, and alter what is answered."""
    app = FastAPI()

    @app.post("/{path:path}")
    async def passed_on(path: str, request: Request) -> Response:
        headers = {k: v for k, v in request.headers.items() if k not in {"host", "content-length"}}
        body, query = await request.body(), request.url.query
        answer = await onward.post(f"{url}/{path}{'?' if query else ''}{query}", content=body, headers=headers)
        altered = alter(answer)
        if isinstance(altered, Response):
            return altered
        kept = {k: v for k, v in answer.headers.items() if k not in {"content-length", "date"}}
        return Response(answer.content, answer.status_code, {**kept, **altered})

    async with httpx.AsyncClient() as onward, served(app) as http:
        yield str(http.base_url).rstrip("/")


@pytest.mark.parametrize("forged", [{WORK_PATH: "/evaluate"}, {WORK_ID: "another"}])
def test_a_device_that_polls_does_only_what_the_coordinator_has_named(tmp_path: Path, forged: dict[str, str]) -> None:
    """The path, or the name, of its first work is altered on the way: it takes that for no answer and asks again."""
    altered: list[str] = []

    def alter(answer: httpx.Response) -> Mapping[str, str]:
        if WORK_PATH not in answer.headers or altered:
            return {}
        altered.append(answer.headers[WORK_PATH])
        return {name.lower(): value for name, value in forged.items()}

    async def main() -> None:
        rig = Rig(tmp_path)
        async with between(rig.url, alter) as rig.url:
            devices = rig.devices("h0", pull=True)
            fleet = await rig.ready("h0")
            [reply] = await replies(fleet, task(0))
            assert reply.outcome is Outcome.COMPLETED
            assert altered == ["/train"]
            await rig.finish(devices)

    run(main())


FORGED = (401, 404, 409, 410, 413)
"""Errors upon which a device would do something else than ask again."""


@pytest.mark.parametrize("path", ["/register", "/status_update", "/work", "/result"])
def test_a_forged_error_of_the_coordinator_moves_no_device(tmp_path: Path, path: str) -> None:
    """It asks again, though the coordinator has heard it."""
    due, passed = list(FORGED), list[int]()

    def alter(answer: httpx.Response) -> Mapping[str, str] | Response:
        if answer.request.url.path.endswith(path):
            if due:
                return problem(due.pop(0), "the run is over", {NONCE_HEADER: "a nonce of nobody"})
            passed.append(answer.status_code)
        return {}

    async def main() -> None:
        rig = Rig(tmp_path)
        async with between(rig.url, alter) as rig.url:
            devices = rig.devices("h0", pull=True, state=tmp_path / "state")
            fleet = await rig.ready("h0")
            [reply] = await replies(fleet, task(0))
            assert reply.outcome is Outcome.COMPLETED
            if path == "/result":  # it was taken, and what says so at the next /work is signed
                assert len(due) < len(FORGED)
            else:
                await until(lambda: passed)
            assert not devices.done()
            await rig.finish(devices)

    run(main())


def test_an_error_that_was_altered_is_no_error_of_the_coordinator(tmp_path: Path) -> None:
    """Its status is signed too: a refusal cannot be made the news that the run is over, nor repeated to another."""
    kept: dict[str, str] = {}

    def alter(answer: httpx.Response) -> Mapping[str, str] | Response:
        if answer.status_code != 409:
            return {}
        kept.update({HEADER: answer.headers[HEADER]})
        return Response(answer.content, 410, kept)

    async def main() -> None:
        async with rig_in(tmp_path, rounds={"clock": "virtual"}) as rig, between(rig.url, alter) as rig.url:
            with pytest.raises(
                FleetError, match=r"no use of the coordinator.*does not fit; it answers 410: .*no client of"
            ):
                await rig.devices("stranger", patience_s=0)
            assert kept

    run(main())


def test_what_the_coordinator_itself_refuses_counts_at_once(tmp_path: Path) -> None:
    """It signs that there is no place for a device, or that the run is over: the one is an error, the other is not."""

    async def main() -> None:
        async with rig_in(tmp_path, rounds={"clock": "virtual"}, keep_serving=True) as rig:
            with pytest.raises(FleetError, match=r"refuses: .*no client of this experiment"):
                await rig.devices("stranger")
            devices = rig.devices("h0", state=tmp_path / "state")
            await rig.ready("h0")
            rig.done.set()
            await devices
            await rig.devices("h1")
            await rig.devices("h0", state=tmp_path / "state", token=None)

    run(main())


def test_a_device_that_was_a_member_wants_proof_also_without_the_token(tmp_path: Path) -> None:
    """It is started again with its credential only, and told that the run is over: it knows the coordinator's key."""

    async def main() -> None:
        rig = Rig(tmp_path)
        assert (await register(rig.http, "h0", Identity(TOKEN, tmp_path / "state"))).status_code == 200
        due = [410, 410]

        def alter(answer: httpx.Response) -> Mapping[str, str] | Response:
            return problem(due.pop(), "the run is over") if due else {}

        async with between(rig.url, alter) as rig.url:
            devices = rig.devices("h0", token=None, state=tmp_path / "state")
            fleet = await rig.ready("h0")
            assert not due
            async with httpx.AsyncClient(base_url=fleet.registry.at(0).url) as http:
                assert_problem(await http.get("/status", headers={"Host": "device.example:5000"}), 403, "/status")
                assert (await http.get("/status")).status_code == 200
            await rig.finish(devices)

    run(main())


@pytest.mark.parametrize("pull", [False, True])
def test_what_a_device_itself_has_lost_ends_an_experiment(tmp_path: Path, pull: bool) -> None:
    """Its 410 is signed, also when it comes through others."""

    async def main() -> None:
        async with rig_in(tmp_path, rounds={"clock": "virtual"}, objective={"name": "ditto"}) as rig:
            devices = rig.devices("h0", pull=pull)
            fleet = await rig.ready("h0")
            kept = replace(task(0, round=4), memory_round=np.array([3, 0, 0, 0]))
            with pytest.raises(FolderError, match=r"h0: .*round 3"):
                await replies(fleet, kept)
            if not pull:
                async with forging(fleet, 507, times=1) as answered:
                    with pytest.raises(FolderError, match=r"h0: .*round 3"):
                        await replies(fleet, kept)
                    assert answered == [507, 410]
            devices.cancel()
            await asyncio.gather(devices, return_exceptions=True)

    run(main())


def test_devices_find_a_coordinator_that_was_restarted_also_with_another_token(tmp_path: Path) -> None:
    """The coordinator's key and the enrolment are in the run folder: who has joined needs no new token."""

    async def main() -> None:
        rig = Rig(tmp_path)
        devices = rig.devices("h0")
        await rig.ready("h0")
        rig.serving.cancel()
        await asyncio.gather(rig.serving, return_exceptions=True)
        again = Rig.__new__(Rig)
        again.folder, again.url, again.done = tmp_path, rig.url, asyncio.Event()
        again.fleet, again.http = asyncio.get_running_loop().create_future(), rig.http
        again.listening = bind("127.0.0.1", int(rig.url.rpartition(":")[2]))
        service = Service(min_clients=1, run_id=RUN, trust=Trust(OTHER), folder=tmp_path)
        again.serving = asyncio.create_task(serve(rig.config, LAYOUT, again._drive, again.listening, service))
        fleet = await again.ready("h0")
        assert [reply.outcome for reply in await replies(fleet, task(0))] == [Outcome.COMPLETED]
        await again.finish(devices)

    run(main())


def test_a_coordinator_with_another_key_and_token_is_not_believed(tmp_path: Path) -> None:
    """It stands at the old address and admits the device, but knows neither the token nor the key of the run."""

    async def main() -> None:
        rig = Rig(tmp_path / "run")
        identity = Identity(TOKEN)
        assert (await register(rig.http, "h0", identity)).status_code == 200
        rig.serving.cancel()
        await asyncio.gather(rig.serving, return_exceptions=True)
        async with rig_in(tmp_path / "false", token=OTHER) as false:
            # Such a coordinator would admit anybody: it enrols the device as if it had proved its token.
            Enrolment(tmp_path / "false").enrol("h0", identity._credential("h0").pair.public)
            with pytest.raises(httpx.RemoteProtocolError, match="does not prove that it knows the join token"):
                await register(false.http, "h0", identity)
        await rig.http.aclose()

    run(main())


def test_an_answer_that_was_altered_is_no_answer() -> None:
    async def main() -> None:
        identity = Identity(TOKEN)
        session = "00" * 32

        def answer(request: httpx.Request) -> httpx.Response:
            if HEADER not in request.headers:
                return httpx.Response(401, headers={NONCE_HEADER: "n"})
            reply = RegistrationReply(index=0, run_id=RUN, config={}, heartbeat_s=1.0, session_key=session)
            return httpx.Response(200, json=reply.model_dump(mode="json"))

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://boss") as http:
            with pytest.raises(httpx.RemoteProtocolError, match="missing"):
                await register(http, "h0", identity)

    run(main())


async def _registered(rig: Rig, change: Callable[[httpx.Request], Awaitable[None]]) -> httpx.Response:
    """Register with a request that is changed after it was signed."""
    async with httpx.AsyncClient(base_url=rig.url, event_hooks={"request": [change]}) as http:
        return await register(http, "h0", Identity(TOKEN))


def test_a_registration_is_refused_without_a_nonce_of_this_coordinator(tmp_path: Path) -> None:
    async def forge(request: httpx.Request) -> None:
        if HEADER in request.headers:
            proof = json.loads(request.headers[HEADER])
            request.headers[HEADER] = json.dumps(proof | {"nonce": "1.0000.\u00e9\u00e9"})

    async def main() -> None:
        async with rig_in(tmp_path) as rig:
            with pytest.raises(httpx.RemoteProtocolError, match=f"it answers 401: .*{NONCE_HEADER}"):
                await _registered(rig, forge)
            assert await rig.state("h0") == ""

    run(main())


def test_strangers_may_read_and_command_nothing_but_this_machine_may(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig_in(tmp_path) as rig:
            elsewhere = {"Host": "coordinator.example:8080"}
            for path in ("/clients", "/rounds", "/model", "/metrics", "/", "/docs"):
                assert_problem(await rig.http.get(path, headers=elsewhere), 403, path)
            assert_problem(await rig.http.post("/training/start", headers=elsewhere), 403, "operators")
            assert (await rig.http.get("/health", headers=elsewhere)).status_code == 200
            assert (await rig.http.get("/ready", headers=elsewhere)).status_code == 503
            assert (await rig.http.get("/clients")).json() == []

    run(main())


@pytest.mark.parametrize(("token", "anyone", "reads", "commands"), [
    (None, False, True, False), (None, True, True, True), (TOKEN, False, False, False), (TOKEN, True, False, False),
])  # fmt: skip
def test_a_join_token_overrides_that_anyone_is_let_in(
    token: Token | None, anyone: bool, reads: bool, commands: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Containers say --allow-anyone, and may be given a token: then strangers neither read nor command."""
    trust = Trust(token, anyone=anyone)
    for method, may in (("GET", reads), ("POST", commands)):
        scope = {"method": method, "path": "/model", "headers": [(b"host", b"a.example")], "client": ("10.0.0.9", 1)}
        assert (trust.access().refusal(scope) is None) == may
    if token is not None or anyone:
        with bind("0.0.0.0", 0) as listening:
            trust.check(listening)
        assert ("whoever reaches this port can join" in caplog.text) == (token is None)


def test_a_nonce_is_good_for_a_minute_and_for_once() -> None:
    now = 100.0
    nonces = Nonces(lambda: now)
    first, second, last = nonces.issue(), nonces.issue(), nonces.issue()
    now = 160.0
    assert all(map(nonces.is_fresh, (first, second, last)))
    nonces.use_up(first)
    assert [nonces.is_fresh(nonce) for nonce in (first, second)] == [False, True]
    now = 160.1
    assert not nonces.is_fresh(second)
    now = 220.1
    nonces.use_up(last)
    assert first not in nonces._used  # what is too old anyway is forgotten


def test_operators_show_their_token_also_on_this_machine(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig_in(tmp_path, operator=OPERATOR) as rig:
            shown = {"Authorization": "Bearer the token of its operators"}
            for headers in (
                {},
                {"Authorization": "Bearer another"},
                {"Authorization": "Basic !"},
                {"Authorization": ""},
            ):
                response = await rig.http.get("/clients", headers=headers)
                assert_problem(response, 401, "PARITYFL_OPERATOR_TOKEN")
                assert "Basic" in response.headers["www-authenticate"]
            assert (await rig.http.get("/clients", headers=shown)).status_code == 200
            assert (await rig.http.get("/clients", auth=("me", "the token of its operators"))).status_code == 200
            assert (await rig.http.post("/training/start", headers=shown)).status_code == 200

    run(main())


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_page_from_elsewhere_commands_nothing(token: Token | None, tmp_path: Path) -> None:
    async def main() -> None:
        async with rig_in(tmp_path, token=token) as rig:
            foreign = {"Origin": "https://evil.example"}
            for path in ("/training/start", "/register", "/status_update"):
                assert_problem(await rig.http.post(path, headers=foreign), 403, "evil.example")
            rebound = {"Origin": "http://evil.example", "Host": "evil.example"}
            assert_problem(await rig.http.post("/training/start", headers=rebound), 403, "operators")
            own = {"Origin": rig.url}
            assert (await rig.http.post("/training/start", headers=own)).status_code == 200

    run(main())


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_device_that_listens_to_all_without_a_token_says_so(
    token: Token | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        rig = Rig(tmp_path, token=token)
        devices = rig.devices("h0", token=token, host="0.0.0.0")
        await rig.ready("h0")
        await rig.finish(devices)

    run(main())
    assert ("without a join token" in caplog.text) == (token is None)


class Between(Identity):
    """Puts a key of its own into what a device that knows the token has proved."""

    def _sign(self, request: httpx.Request, device_id: str, nonce: str, body: str) -> Proof:
        proof, pair = super()._sign(request, device_id, nonce, body), KeyPair.new()
        swapped = proof.model_copy(update={"key": pair.public})
        swapped = swapped.model_copy(update={"signature": pair.sign(registration_text(swapped))})
        request.headers[HEADER] = swapped.written()
        return swapped


def test_nobody_in_between_joins_with_what_another_has_proved(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig_in(tmp_path) as rig:
            with pytest.raises(httpx.RemoteProtocolError, match="does not prove that it knows the join token"):
                await register(rig.http, "h0", Between(TOKEN))
            assert not (tmp_path / "security" / "devices.jsonl").exists()

    run(main())


def test_nobody_registers_with_the_key_of_another_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig_in(tmp_path) as rig:
            message = Registration(device_id="h0", port=9, num_samples=1, process_key=Identity(TOKEN).key)
            response = await rig.http.post("/register", json=message.model_dump(mode="json"), auth=Identity(TOKEN))
            assert_problem(response, 422, "process_key", "has not signed the registration")

    run(main())
