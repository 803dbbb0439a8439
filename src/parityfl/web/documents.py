"""Answers that carry a document: a large one sent in pieces from where they lie, so that no copy of a model is made."""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from parityfl.wire.aside import SMALL_BYTES
from parityfl.wire.payload import Payload
from parityfl.wire.schemas import SAFETENSORS


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
