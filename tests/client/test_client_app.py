import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest

from network import (
    LAYOUT,
    RUN,
    SAMPLES,
    WEIGHTS,
    NumpyWorkbench,
    assert_problem,
    run,
    served,
    small_config,
    train_document,
    train_request,
    until,
)
from parityfl.client.app import create_app
from parityfl.client.service import DeviceHost
from parityfl.config import Config
from parityfl.wire.digests import CONTENT_DIGEST, content_digest, digest_of, is_intact, lengths_in, model_digest
from parityfl.wire.payload import Form, assemble, pack, unpack
from parityfl.wire.schemas import (
    SAFETENSORS,
    DeviceStatus,
    EvaluateReply,
    EvaluateRequest,
    RegistrationReply,
    TrainReply,
)


@dataclass
class Rig:
    """A served process of devices."""

    http: httpx.AsyncClient
    host: DeviceHost
    config: Config
    benches: list[NumpyWorkbench] = field(default_factory=list)

    async def train(self, **changes: Any) -> httpx.Response:
        return await self.http.post("/train", content=train_document(self.config, **changes))


@asynccontextmanager
async def hosting(
    *names: str, config: Config | None = None, gate: Event | None = None, load: bool = True, state: Path | None = None
) -> AsyncIterator[Rig]:
    """Serve devices that have registered as h0, h1 ... and loaded their data."""
    config = config or small_config()
    benches: list[NumpyWorkbench] = []

    def factory(config: Config, clients: Collection[int]) -> NumpyWorkbench:
        benches.append(NumpyWorkbench(config, clients, gate))
        return benches[-1]

    host = DeviceHost(names, factory, state)
    for index, name in enumerate(names):
        host.assign(name, RegistrationReply(index=index, run_id=RUN, config={}, heartbeat_s=1.0))
    if load:
        await host.load(config.document(), list(range(len(names))))
    async with served(create_app(host)) as http:
        try:
            yield Rig(http, host, config, benches)
        finally:
            if gate is not None:
                gate.set()
            host.close()


def opened(response: httpx.Response) -> tuple[TrainReply, dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == SAFETENSORS
    return unpack(response.content, TrainReply, LAYOUT, ("model",), ("control",))


def test_training_returns_what_was_learned() -> None:
    """Client 1 adds 2 to every parameter."""

    async def main() -> None:
        async with hosting("h0", "h1") as rig:
            reply, vectors = opened(await rig.train(device_id="h1"))
            assert (reply.device_id, reply.round, reply.num_samples, reply.train_loss) == ("h1", 1, 20, 0.5)
            assert (reply.loss_before, isnan(reply.loss_after)) == (1.5, True)
            assert reply.model_digest == model_digest(WEIGHTS)
            np.testing.assert_array_equal(vectors["model"], [2, 2, 2])
            assert set(vectors) == {"model"}

    run(main())


def test_a_process_of_one_device_needs_no_name() -> None:
    async def main() -> None:
        async with hosting("h0") as rig:
            reply, _ = opened(await rig.train())
            assert reply.device_id == "h0"

    run(main())


def test_a_control_variate_travels_both_ways() -> None:
    """The stand-in returns twice the control variate that it was sent."""

    async def main() -> None:
        config = small_config(objective={"name": "scaffold"})
        async with hosting("h0", config=config) as rig:
            body = bytes(assemble(train_request(config), {"model": WEIGHTS, "control": WEIGHTS}, LAYOUT))
            _, vectors = opened(await rig.http.post("/train", content=body))
            np.testing.assert_array_equal(vectors["control"], 2 * WEIGHTS)

    run(main())


def test_a_device_that_cannot_keep_what_its_objective_needs_says_so(tmp_path: Path) -> None:
    """A file stands where its folder should be."""

    async def main() -> None:
        (tmp_path / "0").write_text("")
        async with hosting("h0", config=small_config(objective={"name": "ditto"}), state=tmp_path) as rig:
            assert_problem(await rig.train(round=2), 507, "h0", "make room")

    run(main())


def test_memory_is_as_of_the_round_that_the_coordinator_names(tmp_path: Path) -> None:
    """Rounds 2 and 5 keep 2 and 5. Asked as of round 2, round 7 adds 1 + 2, although 5 came later."""

    async def main() -> None:
        config = small_config(objective={"name": "ditto"})
        async with hosting("h0", config=config, state=tmp_path) as rig:
            await rig.train(round=2)
            await rig.train(round=5, memory_round=2)
            _, vectors = opened(await rig.train(round=7, memory_round=2))
            np.testing.assert_array_equal(vectors["model"], [3, 3, 3])
        async with hosting("h0", config=config, state=tmp_path) as again:
            _, vectors = opened(await again.train(round=8, memory_round=7))
            np.testing.assert_array_equal(vectors["model"], [8, 8, 8])

    run(main())


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_lost_memory_stops_an_experiment_but_no_live_run(clock: str) -> None:
    async def main() -> None:
        config = small_config(objective={"name": "ditto"}, rounds={"clock": clock})
        async with hosting("h0", config=config) as rig:
            response = await rig.train(round=3, memory_round=2)
            if clock == "virtual":
                assert_problem(response, 410, "kept in round 2", "--state")
            else:
                opened(response)

    run(main())


def test_a_device_that_is_away_refuses() -> None:
    """With bernoulli availability of 0 the device is never there."""

    async def main() -> None:
        for clock in ("virtual", "wall"):
            config = small_config(availability={"name": "bernoulli", "pi": 0.0}, rounds={"clock": clock})
            async with hosting("h0", config=config) as rig:
                assert_problem(await rig.train(), 409, "h0 is away")
                assert rig.benches[0].trained == []

    run(main())


def test_the_virtual_clock_asks_the_model_for_the_time_that_the_request_names() -> None:
    async def main() -> None:
        config = small_config(availability={"name": "bernoulli", "pi": 0.5})
        async with hosting("h0", config=config) as rig:
            process = config.availability.build().bind(_world(config))
            for number in range(1, 9):
                time_s = number * config.rounds.interval_s
                response = await rig.train(round=number, time_s=time_s)
                assert response.status_code == (200 if process.available(time_s)[0] else 409)
            assert 0 < len(rig.benches[0].trained) < 8

    run(main())


def _world(config: Config) -> Any:
    from parityfl.core.types import World

    bench = NumpyWorkbench(config, ())
    return World(config.seed, 4, 4, config.rounds.interval_s, bench.num_samples, bench.label_counts)


def test_a_busy_device_takes_no_second_round_but_answers_the_same_request_twice() -> None:
    """Two requests for round 1 share one training; round 2 is refused meanwhile, and taken afterwards."""

    async def main() -> None:
        gate, config = Event(), small_config(rounds={"clock": "wall"})
        async with hosting("h0", "h1", config=config, gate=gate) as rig:
            twins = [asyncio.create_task(rig.train(device_id="h0")) for _ in range(2)]
            await until(lambda: rig.host.devices["h0"].training == 1)
            assert_problem(await rig.train(device_id="h0", round=2), 409, "still trains for round 1")
            statuses = (await rig.http.get("/status")).json()
            assert [status["training"] for status in statuses] == [1, None]
            gate.set()
            for response in await asyncio.gather(*twins):
                opened(response)
            assert rig.benches[0].trained == [(1, 0)]
            opened(await rig.train(device_id="h0", round=2))
            assert rig.benches[0].trained == [(1, 0), (2, 0)]

    run(main())


def test_on_the_virtual_clock_a_busy_device_takes_the_next_round_when_it_is_done() -> None:
    async def main() -> None:
        gate = Event()
        async with hosting("h0", gate=gate) as rig:
            first = asyncio.create_task(rig.train())
            await until(lambda: rig.host.devices["h0"].training == 1)
            second = asyncio.create_task(rig.train(round=2))
            gate.set()
            assert opened(await first)[0].round == 1
            assert opened(await second)[0].round == 2
            assert rig.benches[0].trained == [(1, 0), (2, 0)]

    run(main())


def test_an_answer_that_nobody_took_is_given_to_who_asks_again() -> None:
    async def main() -> None:
        gate = Event()
        async with hosting("h0", gate=gate) as rig:
            with pytest.raises(httpx.ReadTimeout):
                await rig.http.post("/train", content=train_document(rig.config), timeout=0.2)
            gate.set()
            await until(lambda: rig.host.devices["h0"].last_round == 1)
            opened(await rig.train())
            assert rig.benches[0].trained == [(1, 0)]

    run(main())


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_training_that_nobody_waits_for_stops_and_the_device_is_free(monkeypatch: Any, clock: str) -> None:
    """Round 1 is asked for and given up; round 2 is taken at once although the gate would hold round 1 for ever."""

    async def main() -> None:
        gate = Event()
        monkeypatch.setattr(NumpyWorkbench, "careful", True)
        async with hosting("h0", config=small_config(rounds={"clock": clock}), gate=gate) as rig:
            with pytest.raises(httpx.ReadTimeout):
                await rig.http.post("/train", content=train_document(rig.config), timeout=0.3)
            await until(lambda: rig.host.devices["h0"].training is None)
            assert rig.benches[0].trained == []
            gate.set()
            opened(await rig.train(round=2))
            opened(await rig.train())
            assert rig.benches[0].trained == [(2, 0), (1, 0)]

    run(main())


def test_training_goes_on_while_one_of_two_askers_is_left(monkeypatch: Any) -> None:
    async def main() -> None:
        gate = Event()
        monkeypatch.setattr(NumpyWorkbench, "careful", True)
        async with hosting("h0", gate=gate) as rig:
            staying = asyncio.create_task(rig.train())
            with pytest.raises(httpx.ReadTimeout):
                await rig.http.post("/train", content=train_document(rig.config), timeout=0.3)
            gate.set()
            opened(await staying)
            assert rig.benches[0].trained == [(1, 0)]

    run(main())


def test_a_process_that_leaves_refuses_what_it_has_not_begun() -> None:
    """h0 trains, h1 waits for its turn: when the process leaves, h0 ends, h1 and later ones are told."""

    async def main() -> None:
        gate = Event()
        async with hosting("h0", "h1", gate=gate) as rig:
            first = asyncio.create_task(rig.train(device_id="h0"))
            await until(lambda: rig.host.devices["h0"].training == 1)
            second = asyncio.create_task(rig.train(device_id="h1"))
            await until(lambda: rig.host.devices["h1"].training == 1)
            rig.host.close()
            assert_problem(await second, 503, "leaving")
            assert_problem(await rig.train(device_id="h1", round=2), 503, "leaving")
            gate.set()
            opened(await first)

    run(main())


def test_training_stops_when_its_lease_ends(monkeypatch: Any) -> None:
    async def main() -> None:
        monkeypatch.setattr(NumpyWorkbench, "careful", True)
        async with hosting("h0", config=small_config(rounds={"clock": "wall"}), gate=Event()) as rig:
            assert_problem(await rig.train(deadline_s=0.2), 503, "h0", "deadline")
            assert rig.host.devices["h0"].training is None

    run(main())


def test_training_that_cannot_begin_before_the_deadline_is_not_begun() -> None:
    """h0 holds the one thread; when it is h1's turn, nobody waits for its reply any more."""

    async def main() -> None:
        gate = Event()
        async with hosting("h0", "h1", gate=gate) as rig:
            first = asyncio.create_task(rig.train(device_id="h0"))
            await until(lambda: rig.host.devices["h0"].training == 1)
            second = asyncio.create_task(rig.train(device_id="h1", deadline_s=1e-6))
            await until(lambda: rig.host.devices["h1"].training == 1)
            gate.set()
            opened(await first)
            assert_problem(await second, 503, "h1", "deadline")
            assert rig.benches[0].trained == [(1, 0)]

    run(main())


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"device_id": "h7"}, 404, ["h7"]),
        ({}, 422, ["device_id", "2 devices"]),
        ({"device_id": "h0", "run_id": "another"}, 409, ["another", RUN]),
        ({"device_id": "h0", "seed": 9}, 409, ["seed", "9"]),
        ({"device_id": "h0", "model": "resnet18"}, 409, ["resnet18", "mlp"]),
        ({"device_id": "h0", "training": Config(training={"lr": 9}).training}, 409, ["training", "9"]),
        ({"device_id": "h0", "model_digest": "0" * 64}, 422, ["model_digest"]),
    ],
)
def test_a_request_that_is_not_for_this_device_is_a_problem(changes: Any, status: int, words: list[str]) -> None:
    async def main() -> None:
        async with hosting("h0", "h1") as rig:
            assert_problem(await rig.train(**changes), status, *words)

    run(main())


@pytest.mark.parametrize("changes", [{"round": 2**64}, {"memory_round": 2**63}, {"time_s": 1e300}])
def test_numbers_that_no_run_reaches_are_problems_that_name_the_field(changes: dict[str, Any]) -> None:
    async def main() -> None:
        async with hosting("h0") as rig:
            request = train_request(rig.config).model_copy(update=changes)
            document = bytes(assemble(request, {"model": WEIGHTS}, LAYOUT))
            assert_problem(await rig.http.post("/train", content=document), 422, *changes)

    run(main())


def test_bodies_that_are_no_documents_are_problems() -> None:
    async def main() -> None:
        async with hosting("h0") as rig:
            for path in ("/train", "/evaluate"):
                assert_problem(await rig.http.post(path, content=b"garbage"), 422, "no safetensors document", "garbage")
                assert_problem(await rig.http.post(path, content=b""), 422, "empty")
                coded = await rig.http.post(path, content=b"garbage", headers={"Content-Encoding": "gzip"})
                assert_problem(coded, 415, "Content-Encoding", "gzip", "zstd")
                assert coded.headers["Accept-Encoding"] == "identity"
                plain = await rig.http.post(path, content=b"garbage", headers={"Content-Encoding": "identity"})
                assert_problem(plain, 422, "garbage")
                assert_problem(await rig.http.post(path, content=bytes(10**6)), 413, "bytes", "model.name")
                assert_problem(await rig.http.get(path), 405)
            assert_problem(await rig.http.get("/nothing"), 404, "/nothing")

    run(main())


def digested(document: bytes, told: str) -> str:
    """Return the digest of a document, by the parts that a header tells."""
    lengths = lengths_in(told)
    return content_digest(digest_of(document, lengths), () if not lengths else (lengths[0], len(document) - lengths[0]))


def test_a_document_that_was_changed_on_the_way_is_not_trained_from() -> None:
    """A digest of other bytes; the answer's own digest holds; a digest of an unknown kind says nothing."""

    async def main() -> None:
        async with hosting("h0") as rig:
            document, other = train_document(rig.config), digest_of(b"other")
            for wrong in (content_digest(other), content_digest(other, (8, 9)), "blake3-parts=:AAAA:", "blake3=:AAAA:"):
                spoiled = await rig.http.post("/train", content=document, headers={CONTENT_DIGEST: wrong})
                assert_problem(spoiled, 400, "changed on the way", wrong, digested(document, wrong), "send it again")
            response = await rig.http.post("/train", content=document, headers={CONTENT_DIGEST: "md5=:AAAA:"})
            opened(response)
            assert await is_intact(response.headers[CONTENT_DIGEST], response.content)
            assert not await is_intact(response.headers[CONTENT_DIGEST], response.content + b"?")
            assert rig.benches[0].trained == [(1, 0)]

    run(main())


@pytest.mark.parametrize("form", [Form(), Form("BF16"), Form("F32", "zstd")])
@pytest.mark.parametrize("path", ["/train", "/evaluate"])
def test_a_model_other_than_the_request_names_is_refused_although_the_document_is_whole(form: Form, path: str) -> None:
    async def main() -> None:
        async with hosting("h0") as rig:
            for digest, status in (("0" * 64, 422), (model_digest(WEIGHTS), 200)):
                asked = EvaluateRequest(run_id=RUN, round=1, model_digest=digest)
                request = train_request(rig.config, model_digest=digest) if path == "/train" else asked
                document = assemble(request, {"model": pack(WEIGHTS, form)}, LAYOUT)
                for told in (document.content_digest, content_digest(digest_of(bytes(document))), "md5=:AAAA:"):
                    response = await rig.http.post(path, content=bytes(document), headers={CONTENT_DIGEST: told})
                    assert response.status_code == status
                    if status == 422:
                        assert_problem(response, 422, "model_digest", digest, model_digest(WEIGHTS))

    run(main())


def test_a_failure_in_training_is_a_problem_and_not_remembered() -> None:
    async def main() -> None:
        async with hosting("h0") as rig:
            bench = rig.benches[0]
            bench.train = lambda *_, **__: 1 / 0  # type: ignore[method-assign]
            assert_problem(await rig.train(), 500, "ZeroDivisionError")
            del bench.train
            opened(await rig.train())

    run(main())


def test_evaluation() -> None:
    """The stand-in's loss is the sum of the parameters, 1 + 2 + 3, and client 1's accuracy 0.2."""

    async def main() -> None:
        async with hosting("h0", "h1") as rig:
            request = EvaluateRequest(run_id=RUN, round=4, device_id="h1", model_digest=model_digest(WEIGHTS))
            response = await rig.http.post("/evaluate", content=bytes(assemble(request, {"model": WEIGHTS}, LAYOUT)))
            assert EvaluateReply.model_validate_json(response.content) == EvaluateReply(
                device_id="h1", round=4, loss=6.0, accuracy=0.2, num_samples=5
            )

    run(main())


def test_requests_wait_for_the_data() -> None:
    async def main() -> None:
        async with hosting("h0", load=False) as rig:
            assert (await rig.http.get("/health")).json()["phase"] == "loading"
            early = asyncio.create_task(rig.train())
            status = (await rig.http.get("/status")).json()[0]
            assert (status["available"], status["num_samples"]) == (False, None)
            await rig.host.load(rig.config.document(), [0])
            opened(await early)
            assert (await rig.http.get("/health")).json()["phase"] == "loaded"
            assert (await rig.http.head("/health")).status_code == 200

    run(main())


def test_status() -> None:
    async def main() -> None:
        async with hosting("h0", "h1") as rig:
            await rig.train(device_id="h1")
            statuses = [DeviceStatus.model_validate(status) for status in (await rig.http.get("/status")).json()]
            assert [(s.device_id, s.index, s.available, s.last_round) for s in statuses] == [
                ("h0", 0, True, 0),
                ("h1", 1, True, 1),
            ]
            assert tuple(s.num_samples for s in statuses) == SAMPLES[:2]

    run(main())


def test_the_documentation_takes_a_file() -> None:
    async def main() -> None:
        async with hosting("h0") as rig:
            assert (await rig.http.get("/docs")).status_code == 200
            paths = (await rig.http.get("/openapi.json")).json()["paths"]
            assert set(paths) == {"/train", "/evaluate", "/initial", "/health", "/status"}
            for path in ("/train", "/evaluate"):
                content = paths[path]["post"]["requestBody"]["content"]
                assert content == {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}}
            assert "application/problem+json" in paths["/train"]["post"]["responses"]["409"]["content"]
            assert SAFETENSORS in paths["/train"]["post"]["responses"]["200"]["content"]

    run(main())
