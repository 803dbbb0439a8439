"""Connections to devices: httpx over the pool and the parser of aiohttp.

httpx's own pool looks at every connection whenever a request begins or ends: at a hundred devices that is most of what
a round costs the coordinator.
"""

from __future__ import annotations

import socket
import ssl
from functools import lru_cache
from typing import Self

import aiohttp
import httpx
from yarl import URL

from parityfl.core.errors import first_line
from parityfl.web.keepalive import keep_alive
from parityfl.web.server import IDLE_S

AHEAD_BYTES = 2**14
"""How much of an answer may lie there before no more is read: one look at the socket brings more, and then suffices."""


class Connections(httpx.AsyncBaseTransport):
    """A transport of httpx that keeps no cookies, follows no redirects and takes answers as they are.

    Of a request's time-outs the one for connecting counts, as it is said here; for the others its caller has a clock.

    Args:
        tls: how to call what listens with TLS.
        limit: how many connections are open at a time.
        connect_timeout_s: how long a device may take to accept one.
    """

    def __init__(self, tls: ssl.SSLContext, limit: int, connect_timeout_s: float) -> None:
        self._tls = tls
        self._limit = limit
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._limit, keepalive_timeout=IDLE_S, ssl=self._tls, socket_factory=_probing_socket
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            read_bufsize=AHEAD_BYTES,
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the answer, its body still to come.

        Raises:
            httpx.TransportError: there is none, or it is no HTTP. So does reading the body, where that breaks off.
        """
        self._session = self._session or self._opened()
        try:
            answer = await self._session.request(
                request.method,
                _parsed(str(request.url)),
                headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw],
                data=_content(request),
                allow_redirects=False,
            )
        except aiohttp.ClientError as error:
            raise _as_httpx(error) from error
        response = httpx.Response(answer.status, headers=answer.raw_headers, stream=_Pieces(answer))
        response.headers.encoding = "iso-8859-1"  # reads any; left open, it is found out anew at each look
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class _Pieces(httpx.AsyncByteStream):
    """An answer as it comes, in pieces that are neither cut nor put together: that would copy them."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._answer.content.readany()
        except aiohttp.ClientError as error:
            raise _as_httpx(error) from error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Give the connection back; one that has more to send or to bring is closed."""
        self._answer.release()


def _probing_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    return keep_alive(socket.socket(family, kind, protocol))


@lru_cache(maxsize=2**14)
def _parsed(url: str) -> URL:
    return URL(url)


def _content(request: httpx.Request) -> bytes | httpx.AsyncByteStream | None:
    """Return what to send, whole where it lies in one piece: then it goes with its head."""
    if isinstance(request.stream, httpx.SyncByteStream):
        return b"".join(request.stream) or None
    return request.stream


def _as_httpx(error: aiohttp.ClientError) -> httpx.TransportError:
    return httpx.TransportError(first_line(error))
