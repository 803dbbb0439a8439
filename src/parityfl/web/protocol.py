"""HTTP connections that cannot be held open by sending little.

The head of a request comes in time, or the line is cut. A body that was answered before it had come (it is too large,
too slow, from a stranger) is read on for a moment, so that the sender sees the answer, and then it is cut as well.
"""

import asyncio
from http import HTTPStatus
from typing import Self, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from parityfl.web.problems import problem

HEAD_S = 10.0
"""How long a connection may take to send the head of its first request, or of one that it has begun."""

HEAD_BYTES = 2**16
"""How long a head may be; what comes at once is read before it is looked at."""

LINGER_S = 5.0
"""How long a body is read on that was answered already."""

AHEAD_BYTES = 2**20
"""How much of a body is read before the application asks for it."""

PIECE_BYTES = 2**12
"""What is worth being kept as a piece of its own: many small ones would take far more memory than they have bytes."""

FAREWELL_S = 0.5
"""How long closing a connection may take when the server ends."""


class _Pieces:
    """What has come of a body and was not asked for yet: put together once, where a bytearray is copied twice."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def __iadd__(self, piece: bytes) -> Self:
        self._pieces.append(piece)
        self._size += len(piece)
        return self

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with these limits, and problem details for what is no HTTP."""

    head_s = HEAD_S
    linger_s = LINGER_S
    _cut: asyncio.TimerHandle | None = None
    _head_bytes: int | None = None
    """How much of a head has come; None while none is expected."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take what comes, but of a head no more than `HEAD_BYTES`."""
        expected = self._head_bytes is not None
        super().data_received(data)
        if expected and self._head_bytes is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse_head()

    def on_message_begin(self) -> None:
        """Expect the rest of the head, if not since the connection was made."""
        super().on_message_begin()
        if self._cut is None:
            self._expect()

    def on_headers_complete(self) -> None:
        """The head is complete: stop its timer, and look at its length, of which the last piece was not counted.

        Raises:
            ValueError: it is too long; the parser then reads no further.
        """
        self._relax()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            self._refuse_head()
            raise ValueError("the head is too long")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Read on for a while, where uvicorn would stop at each piece, and keep large ones as they are."""
        held, large = self.cycle.body, len(body) >= PIECE_BYTES
        if large and not held and isinstance(held, bytearray):
            self.cycle.body = cast(bytearray, _Pieces())
        elif not large and isinstance(held, _Pieces):
            self.cycle.body = bytearray(bytes(held))
        super().on_body(body)
        if len(self.cycle.body) < AHEAD_BYTES and not self.pipeline:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """Read the rest of the body for a moment only."""
        super().on_response_complete()
        if self.cycle.more_body and not self.transport.is_closing():
            self._cut = self.loop.call_later(self.linger_s, self.transport.close)

    def on_message_complete(self) -> None:
        """The request is complete: stop the timer, the next one may come."""
        self._relax()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: stop the timer."""
        self._relax()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close, but wait no longer than a moment for the other side of TLS to agree: an idle caller never does."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(FAREWELL_S, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has been answered already."""
        if not self.transport.is_closing():
            self._refuse(400, "this is no HTTP request that can be understood here")

    def _expect(self) -> None:
        self._head_bytes = 0
        self._cut = self.loop.call_later(self.head_s, self._too_late)

    def _relax(self) -> None:
        self._head_bytes = None
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(408, f"the head of the request did not come within {self.head_s:g} s")

    def _refuse_head(self) -> None:
        self._refuse(431, f"the head of the request has more than {HEAD_BYTES} bytes")

    def _refuse(self, status: int, detail: str) -> None:
        response = problem(status, detail, {"Connection": "close"})
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        lines += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.close()
