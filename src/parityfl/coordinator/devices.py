"""Asking devices: those that listen are called, the others find what they are asked in a mailbox.

One pool for all, nothing read beyond its limit. How long an answer may take is for who asks to bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import httpx

from parityfl.config import Rounds
from parityfl.coordinator.answer import Answer
from parityfl.coordinator.connections import Connections
from parityfl.coordinator.device_registry import Member
from parityfl.coordinator.gate import Asked, Gate
from parityfl.coordinator.mailbox import Mailbox
from parityfl.web.bodies import Bodies
from parityfl.web.tls import Tls
from parityfl.wire.digests import CONTENT_DIGEST, EMPTY
from parityfl.wire.offload import SMALL_BYTES
from parityfl.wire.payload import Payload
from parityfl.wire.schemas import SAFETENSORS
from parityfl.wire.signing import HEADER, ProofError

MAX_CONNECTIONS = 256


class Devices:
    """Asks devices, calling at most `MAX_CONNECTIONS` at a time; the others wait for their turn outside the pool.

    Args:
        rounds: tells how long a device may take to accept a connection, or to ask for its work.
        gate: signs what they are asked and checks that the answers are theirs; None: nobody proves anything.
        tls: how to encrypt. What a device's certificate names does not matter: its signature says who it is.
        folder: for answers that wait there for their turn; None: where the system has its temporary files.

    Attributes:
        mailbox: where those that are not called find what they are asked.
        bodies: reads what they answer.
    """

    def __init__(
        self, rounds: Rounds, gate: Gate | None = None, tls: Tls | None = None, folder: Path | None = None
    ) -> None:
        self.mailbox = Mailbox(rounds.connect_timeout_s)
        self.gate = gate or Gate()
        self.bodies = Bodies(folder)
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        encrypted = (tls or Tls()).calling(check_name=False)
        self._connections = Connections(encrypted, MAX_CONNECTIONS, rounds.connect_timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.aclose()

    def slot(self, member: Member) -> AbstractAsyncContextManager[None]:
        """Return what to hold while asking a device; one that polls takes no connection of ours."""
        return nullcontext() if member.polls else self._slots

    async def ask(self, member: Member, path: str, payload: Payload | None, limit: int) -> Answer:
        """Ask a device, by whichever way it can be reached, and return the answer.

        Args:
            member: the device.
            path: of the endpoint, such as ``/train``.
            payload: the document to post; None for a GET.
            limit: how many bytes the answer may have.

        Raises:
            httpx.TransportError: the device could not be reached, the connection broke or spoiled the answer, or who
                answered is not the device.
            PayloadError: the answer has more than `limit` bytes.
            RefusedError: the device is revoked.
        """
        if member.polls:
            return await self.mailbox.ask(member.device_id, path, payload, limit)
        url, method = f"{member.url}{path}", "GET" if payload is None else "POST"
        asked = self.gate.sign(member.device_id, method, path, EMPTY if payload is None else payload.digest)
        proof = {} if asked is None else {HEADER: asked.proof.written()}
        request = httpx.Request(
            method,
            _parsed(url),
            headers={"Accept-Encoding": "identity", **_describing(payload), **proof},
            stream=None if payload is None else _sent(payload),  # as content it would be looked through first
        )
        response = await self._connections.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream), "an asynchronous transport answers with one"
        async with aclosing(response.stream) as pieces:
            read = await self.bodies.read(pieces, limit, response.headers)
        answer, found = Answer(response.status_code, read.content), read.digest
        if read.intact is False:
            raise httpx.RemoteProtocolError(f"the answer was changed on the way: {read.change}")
        if asked is not None:
            self._check(asked, response.headers.get(HEADER), answer.status, found)
        return answer

    async def probe(self, member: Member) -> int:
        """Return the status with which a device that listens answers `GET /health`, which nobody signs.

        Raises:
            httpx.TransportError: it does not answer.
        """
        response = await self._connections.handle_async_request(httpx.Request("GET", _parsed(f"{member.url}/health")))
        await response.aclose()
        return response.status_code

    def _check(self, asked: Asked, header: str | None, status: int, body: str) -> None:
        """Require that an answer is the device's."""
        try:
            self.gate.check_answer(asked, header, status, body)
        except ProofError as error:
            reason = f"the answer {status} is not that of {asked.device_id}: {error}"
            raise httpx.RemoteProtocolError(reason) from None


def _describing(payload: Payload | None) -> dict[str, str]:
    """Return the headers that describe a document."""
    if payload is None:
        return {}
    return {"Content-Type": SAFETENSORS, "Content-Length": str(len(payload)), CONTENT_DIGEST: payload.content_digest}


@lru_cache(maxsize=2**14)
def _parsed(url: str) -> httpx.URL:
    """Return an address as httpx reads it, read once for all requests that go there."""
    return httpx.URL(url)


def _sent(payload: Payload) -> httpx.ByteStream | _Chunks:
    """Return what is sent: of a small document a copy, of a large one its pieces as they lie."""
    return httpx.ByteStream(bytes(payload)) if len(payload) <= SMALL_BYTES else _Chunks(payload)


class _Chunks(httpx.AsyncByteStream):
    def __init__(self, payload: Payload) -> None:
        self._payload = payload

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._payload.chunks():
            yield cast(bytes, chunk)  # httpx passes it on as it is, and aiohttp takes any buffer
