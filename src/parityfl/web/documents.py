"""Requests and answers that carry a document: a large one lies where it was read to, and is sent from where it lies."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from parityfl.web.bodies import Bodies, Body
from parityfl.web.limits import UNCODED, coding_fault
from parityfl.web.problems import ProblemError
from parityfl.wire.offload import SMALL_BYTES
from parityfl.wire.payload import Payload
from parityfl.wire.schemas import (
    SAFETENSORS,
    EvaluateReply,
    EvaluateRequest,
    InitialReply,
    TrainReply,
    TrainRequest,
)

DOCUMENT: Mapping[str, Any] = {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}}
"""What OpenAPI is told of a document: FastAPI itself would only know a form or JSON."""

_MESSAGES = (TrainRequest, TrainReply, EvaluateRequest, EvaluateReply, InitialReply)
"""What the two applications say to each other in and about documents."""


async def read_document(request: Request, bodies: Bodies, limit: int) -> Body:
    """Return the document in a request, as it was sent.

    Raises:
        ProblemError: it has a content coding, or was changed on the way.
        TooLargeError: it has more than `limit` bytes.
        UnfinishedError: the disk is full.
    """
    if fault := coding_fault(request.headers):
        raise ProblemError(415, fault, UNCODED)
    body = await bodies.read(request.stream(), limit, request.headers, "what this model needs: model.name")
    if body.intact is False:
        raise ProblemError(400, f"the document was changed on the way: {body.change}; send it again")
    return body


class DocumentResponse(Response):
    """A safetensors document.

    Args:
        payload: the document.
        headers: more headers.
    """

    media_type = SAFETENSORS

    def __init__(self, payload: Payload, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "Content-Length": str(len(payload))})
        self._payload = payload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        last = b""
        if len(self._payload) <= SMALL_BYTES:
            last = bytes(self._payload)  # to copy it is quicker than to send its parts one by one
        else:
            for chunk in self._payload.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": last})


def show_messages(app: FastAPI) -> None:
    """Show the messages that are in the metadata of documents, where FastAPI does not see them, among the schemas."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas |= models_json_schema(
            [(message, "validation") for message in _MESSAGES], ref_template="#/components/schemas/{model}"
        )[1]["$defs"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
