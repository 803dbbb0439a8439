"""The web application of a process of devices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel

from parityfl.client.identity import Identity
from parityfl.client.service import AskerGone, DeviceHost
from parityfl.web import problems
from parityfl.web.access import Access, Guarded
from parityfl.web.bodies import Bodies, Body
from parityfl.web.documents import DOCUMENT, DocumentResponse, read_document, show_messages
from parityfl.web.limits import Paced
from parityfl.web.problems import ProblemError
from parityfl.web.version import VERSION
from parityfl.wire.digests import CONTENT_DIGEST, content_digest, digest_of
from parityfl.wire.paths import EVALUATE, INITIAL, TRAIN
from parityfl.wire.payload import Payload
from parityfl.wire.schemas import (
    DeviceStatus,
    EvaluateReply,
    EvaluateRequest,
    Health,
    InitialReply,
    TrainReply,
    TrainRequest,
)
from parityfl.wire.signing import Proof

T = TypeVar("T")

BUFFERED_BYTES = 2**28
"""For how many bytes of requests there are buffers: those for all devices of a process come at once."""


class DocumentRoute(APIRoute):
    """A route whose endpoint takes the request as it is: no argument is read from it, so none is looked for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint itself."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


def create_app(host: DeviceHost, identity: Identity | None = None) -> FastAPI:
    """Return the application that answers for the devices of `host`.

    Args:
        host: the devices.
        identity: who they are, and whose requests they answer; None: whoever asks, such as our own poller.
    """
    known, bodies = identity or Identity(), Bodies(buffered=BUFFERED_BYTES)
    documents = APIRouter(route_class=DocumentRoute)

    @documents.post(
        TRAIN,
        response_class=Response,
        responses={
            200: {"content": DOCUMENT, "description": _carries(TrainReply)},
            **problems.responses(400, 401, 404, 408, 409, 410, 413, 415, 422, 500, 503, 507),
        },
        openapi_extra=_body(TrainRequest),
    )
    async def train(request: Request) -> Response:
        """Train from the model in a safetensors document and return what was learned as another one.

        The body of a coordinator's GET /model can be posted as it is.
        """
        proof = known.identify(request)
        body = await _read(request, proof)
        learned = await _while_asked(request, lambda gone: host.train(body.content, gone, parts=body.parts))
        return _document(proof, learned)

    @documents.post(
        EVALUATE,
        response_model=EvaluateReply,
        responses=problems.responses(400, 401, 404, 408, 409, 413, 415, 422),
        openapi_extra=_body(EvaluateRequest),
    )
    async def evaluate(request: Request) -> Response:
        """Evaluate the model in a safetensors document on a device's held-out data."""
        proof = known.identify(request)
        body = await _read(request, proof)
        evaluation = await _while_asked(request, lambda _: host.evaluate(body.content, parts=body.parts))
        measured = evaluation.model_dump_json().encode()
        hashed = digest_of(measured)
        headers = {CONTENT_DIGEST: content_digest(hashed), **known.prove(proof, hashed)}
        return Response(measured, media_type="application/json", headers=headers)

    @documents.get(
        INITIAL,
        response_class=Response,
        responses={200: {"content": DOCUMENT, "description": _carries(InitialReply)}, **problems.responses(401)},
    )
    async def initial(request: Request) -> Response:
        """Return the model before the first round, for a coordinator that cannot build it."""
        return _document(known.identify(request), await host.initial())

    app = FastAPIOffline(
        title="parityfl client",
        version=VERSION,
        description="Trains and evaluates models on the data of the devices that this process hosts.",
        routes=documents.routes,  # before those of the documentation: routes are tried in turn
        telemetry={"tracing": False, "metrics": False, "logs": False},  # else each request looks for who wants it
    )
    problems.install(app, known.prove_problem)
    show_messages(app)
    app.add_middleware(Paced)
    app.add_middleware(Guarded, access=lambda: Access(private=known.asks))  # it may come to ask

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Health:
        """Answer as soon as the process listens."""
        return Health(phase="loaded" if host.is_loaded else "loading", version=VERSION)

    @app.get("/status")
    async def status() -> list[DeviceStatus]:
        """Describe the devices of this process."""
        return host.statuses()

    async def _read(request: Request, proof: Proof | None) -> Body:
        body = await read_document(request, bodies, await host.max_bytes())
        known.check_body(proof, body.digest)
        return body

    def _document(proof: Proof | None, payload: Payload) -> Response:
        about = {CONTENT_DIGEST: payload.content_digest}
        return DocumentResponse(payload, {**about, **known.prove(proof, payload.digest)})

    return app


async def _while_asked(request: Request, work: Callable[[AskerGone], Awaitable[T]]) -> T:
    """Return what `work` makes; cancel it when whoever asked hangs up.

    Raises:
        ProblemError: nobody is left to read this.
    """
    patience = asyncio.timeout(None)
    try:
        async with patience:
            listening = asyncio.create_task(_listen(request, patience))
            try:
                return await work(listening.done)
            finally:
                listening.cancel()
    except TimeoutError:
        if not patience.expired():
            raise
        raise ProblemError(503, "whoever asked has hung up") from None


async def _listen(request: Request, patience: asyncio.Timeout) -> None:
    """Let `patience` run out once the connection of a request whose body was read is closed."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    patience.reschedule(asyncio.get_running_loop().time())


def _body(schema: type[BaseModel]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "description": _carries(schema), "content": DOCUMENT}}


def _carries(schema: type[BaseModel]) -> str:
    name = schema.__name__
    return f"A safetensors document: named float32 tensors, and in its metadata the JSON of the schema `{name}`."
