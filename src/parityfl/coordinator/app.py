"""The coordinator's web application: every endpoint, and nothing behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Path, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from sse_starlette import EventSourceResponse, ServerSentEvent

from parityfl.coordinator.answer import Answer
from parityfl.coordinator.gate import Gate
from parityfl.coordinator.metrics import exposition
from parityfl.coordinator.service import Coordinator
from parityfl.web import problems
from parityfl.web.access import Access, Guarded, target_of
from parityfl.web.documents import DOCUMENT, DocumentResponse, read_document, show_messages
from parityfl.web.limits import BodyLimit, Paced
from parityfl.web.problems import ProblemError, TooLargeError
from parityfl.web.version import VERSION
from parityfl.wire.digests import CONTENT_DIGEST, EMPTY, digest, digest_of
from parityfl.wire.paths import REGISTER, RESULT, STATUS_UPDATE, WORK
from parityfl.wire.payload import Payload
from parityfl.wire.schemas import (
    WORK_ID,
    WORK_PATH,
    WORK_UNWANTED,
    AnyUpdate,
    ClientHistory,
    ClientInfo,
    Health,
    Registration,
    RegistrationReply,
    RoundInfo,
    StatusReply,
    StatusUpdate,
    TrainingState,
    WorkRequest,
)
from parityfl.wire.signing import HEADER, Proof

_MODEL = "A safetensors document whose metadata holds the JSON of the schema `TrainRequest`."
_GIVEN = "A safetensors document whose metadata holds the JSON of the schema `TrainRequest` or `EvaluateRequest`."
_TAKEN = (
    "What a call would have been answered with: a safetensors document whose metadata holds the JSON of the schema "
    "`TrainReply` or `InitialReply`, the JSON of the schema `EvaluateReply`, or a problem."
)
_STATUS = Query(ge=200, le=599, description="The HTTP status of the answer.")
_ROUND = Path(description="The round, from 1.")
_ProofHeader = Annotated[
    str | None, Header(alias=HEADER, description="Who sends this, where the coordinator serves with credentials.")
]


def _identify(request: Request, header: str | None) -> Proof | None:
    """Return the proof of a request of admitted devices, whose body need not have come; prove what is answered."""
    gate: Gate = request.app.state.gate
    found = gate.identify(header, request.method, target_of(request))
    request.state.prove = partial(gate.sign_answer, found)
    return found


async def _identified(request: Request, proof: _ProofHeader = None) -> Proof | None:
    """Return the proof of a request of admitted devices, its body included."""
    gate: Gate = request.app.state.gate
    found = _identify(request, proof)
    gate.check_body(found, await digest(await request.body()))
    return found


def _prove_problem(request: Request, answer: Response) -> Mapping[str, str]:
    """Return the headers that prove the answer to a request which went wrong after it was known whose it is."""
    prove: Callable[[int, str], Mapping[str, str]] | None = getattr(request.state, "prove", None)
    return {} if prove is None else prove(answer.status_code, digest_of(answer.body))


_Identified = Annotated[Proof | None, Depends(_identified)]


def create_app(coordinator: Coordinator, access: Access | None = None) -> FastAPI:
    """Return the application that serves one coordinator.

    Args:
        coordinator: what it serves.
        access: who may watch and command; None: everyone may watch, this machine command.
    """
    app = FastAPIOffline(
        title="parityfl coordinator",
        version=VERSION,
        description="Admits devices, runs the rounds, and shows who takes part and who benefits.",
    )
    problems.install(app, _prove_problem)
    show_messages(app)
    limit = coordinator.config.security.max_json_bytes
    app.add_middleware(BodyLimit, limit=limit, setting=f"security.max_json_bytes = {limit}", but=f"{WORK}/")
    app.add_middleware(Paced)
    rule = access or Access()
    app.add_middleware(Guarded, access=lambda: rule)
    _add_devices(app, coordinator)
    _add_run(app, coordinator)
    _add_watching(app, coordinator)
    return app


def _add_devices(app: FastAPI, coordinator: Coordinator) -> None:
    gate = app.state.gate = coordinator.gate
    bodies = coordinator.fleet.devices.bodies

    @app.post(
        REGISTER,
        response_model=RegistrationReply,
        responses=problems.responses(400, 401, 403, 408, 409, 410, 413, 415, 422),
    )
    async def register(registration: Registration, request: Request, proof: _ProofHeader = None) -> Response:
        """Take a device in. It may register again from a new address, or once it has loaded its data.

        A coordinator with credentials answers 401 to one that does not prove who it is, with the header
        `Replay-Nonce` to prove it with.
        """
        admitted = await gate.introduce(proof, await request.body())
        request.state.prove = partial(gate.sign_refusal, admitted)
        gate.admit(registration, admitted)
        host = await coordinator.addresses.target(registration.host, _peer(request))
        return await gate.confirm(admitted, coordinator.register(registration, host, admitted))

    @app.post(STATUS_UPDATE, response_model=StatusReply, responses=problems.responses(400, 401, 408, 413, 415, 422))
    async def status_update(update: AnyUpdate, proof: _Identified) -> Response:
        """Note how devices are: those of one process, or a single one."""
        several = update if isinstance(update, StatusUpdate) else StatusUpdate(devices=[update])
        return await gate.reply(proof, coordinator.status_update(several, proof))

    @app.post(
        WORK,
        response_class=Response,
        responses={
            200: {"content": DOCUMENT, "description": _GIVEN},
            204: {"description": "Nothing to do for now"},
            **problems.responses(400, 401, 408, 409, 413, 415, 422),
        },
    )
    async def work(asked: WorkRequest, proof: _Identified) -> Response:
        """Hand out what a device that cannot be called is to do; within a heartbeat, also if there is nothing.

        The body is what would be posted to the endpoint of the client that the header `Parityfl-Path` names; where it
        is empty, the request is a GET. `Parityfl-Work` names it in the path that its answer goes to.
        `Parityfl-Unwanted` names those that the process holds and nobody waits for any more.
        """
        found = await coordinator.work(asked, proof)
        unwanted = coordinator.unwanted(asked)
        about = {WORK_UNWANTED: " ".join(unwanted)} if unwanted else {}
        if found is None:
            return Response(status_code=204, headers={**about, **gate.sign_answer(proof, 204, EMPTY, about)})
        payload = found.payload or Payload()
        about |= {WORK_ID: found.work_id, WORK_PATH: found.path, CONTENT_DIGEST: payload.content_digest}
        return DocumentResponse(payload, {**about, **gate.sign_answer(proof, 200, payload.digest, about)})

    @app.post(
        RESULT,
        status_code=204,
        responses=problems.responses(400, 401, 404, 408, 413, 415, 422),
        openapi_extra={"requestBody": {"description": _TAKEN, "content": {**DOCUMENT, "application/json": {}}}},
    )
    async def result(
        work_id: str, status: Annotated[int, _STATUS], request: Request, proof: _ProofHeader = None
    ) -> Response:
        """Take the answer of a device to what it found at /work, as it would have given it to a call."""
        signed = _identify(request, proof)
        found = coordinator.unanswered(work_id, signed)
        try:
            body = await read_document(request, bodies, found.limit)
        except TooLargeError as error:
            found.fail(error)
            raise
        gate.check_body(signed, body.digest)
        coordinator.unanswered(work_id, signed)  # once more: it may have been revoked while it sent this
        found.settle(Answer(status, body.content))
        return Response(status_code=204, headers=gate.sign_answer(signed, 204, EMPTY))

    @app.get("/clients")
    async def clients() -> list[ClientInfo]:
        """List all devices that have registered, in index order."""
        return coordinator.clients()

    @app.get("/clients/{device_id}", responses=problems.responses(404))
    async def client(device_id: str) -> ClientHistory:
        """Describe one device, with its latest changes of state."""
        return coordinator.client(device_id)


def _add_run(app: FastAPI, coordinator: Coordinator) -> None:
    @app.head("/ready", response_class=PlainTextResponse, include_in_schema=False)
    @app.get("/ready", response_class=PlainTextResponse, responses=problems.responses(503))
    async def ready() -> str:
        """Answer `ready` once enough devices have registered."""
        if not coordinator.ready:
            have, need = len(coordinator.registry), coordinator.min_clients
            raise ProblemError(503, f"{have} of {need} devices have registered")
        return "ready"

    @app.get("/rounds")
    async def rounds() -> list[RoundInfo]:
        """List the rounds that have closed since this process started, the latest 1,000 of them."""
        return coordinator.rounds

    @app.get("/rounds/{round}", responses=problems.responses(404, 422))
    async def round_info(round: Annotated[int, _ROUND]) -> RoundInfo:
        """Describe one closed round."""
        return coordinator.round(round)

    @app.get(
        "/model",
        response_class=Response,
        responses={200: {"content": DOCUMENT, "description": _MODEL}, **problems.responses(503)},
    )
    async def model() -> Response:
        """Return the current model as a safetensors document that can be posted to a client's /train as it is."""
        headers = {"Content-Disposition": 'attachment; filename="model.safetensors"'}
        return DocumentResponse(await coordinator.model(), headers)

    @app.post("/training/start", responses=problems.responses(409))
    async def start() -> TrainingState:
        """Begin the rounds with the devices that are here, without waiting for the minimum."""
        return coordinator.begin()

    @app.post("/training/stop", responses=problems.responses(409))
    async def stop() -> TrainingState:
        """Finish the current round, then end the run."""
        return coordinator.halt()


def _add_watching(app: FastAPI, coordinator: Coordinator) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Health:
        """Answer as soon as registrations are taken."""
        return coordinator.health

    @app.get("/events", response_class=EventSourceResponse)
    async def events(last_event_id: Annotated[int, Header()] = 0) -> EventSourceResponse:
        """Send an event for the run's beginning, one per closed round, and one for its end.

        Those so far come first: the beginning, and the latest 1,000.
        """
        return EventSourceResponse(_events(coordinator, last_event_id))

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return the figures for Prometheus."""
        return Response(exposition(coordinator), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        """Return the page."""
        return _PAGE


async def _events(coordinator: Coordinator, after: int) -> AsyncIterator[ServerSentEvent]:
    async for event in coordinator.events.follow(after):
        yield ServerSentEvent(event.data, event=event.kind, id=str(event.number))


def _peer(request: Request) -> str:
    assert request.client is not None, "requests come over TCP"
    return request.client.host


_PAGE = (files("parityfl.coordinator") / "page.html").read_text(encoding="utf-8")
