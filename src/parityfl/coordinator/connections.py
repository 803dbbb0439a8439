"""Connections to devices: httpx over the pool and the parser of aiohttp.

httpx's own pool looks at every connection whenever a request begins or ends: at a hundred devices that is most of what
a round costs the coordinator.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream, map_aiohttp_exceptions

from parityfl.web.server import IDLE_S

AHEAD_BYTES = 2**14
"""How much of an answer may lie there before no more is read: one look at the socket brings more, and then suffices."""


class _Pieces(AiohttpResponseStream):
    """An answer as it comes, in pieces that are neither cut nor put together: that would copy them."""

    def __init__(self, stream: AiohttpResponseStream) -> None:
        super().__init__(stream._aiohttp_response)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with map_aiohttp_exceptions():
            async for piece in self._aiohttp_response.content.iter_any():
                yield piece


class Connections(AiohttpTransport):
    """A transport of httpx that keeps no cookies; what is no HTTP raises `httpx.RemoteProtocolError`.

    Args:
        tls: how to call what listens with TLS.
        limit: how many connections are open at a time.
    """

    def __init__(self, tls: ssl.SSLContext, limit: int) -> None:
        super().__init__(verify=tls, client=self._session)
        self._tls = tls
        self._limit = limit

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=IDLE_S, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=AHEAD_BYTES,
        )

    @property
    def is_closed(self) -> bool:
        """Whether it was used and is closed."""
        return isinstance(self.client, aiohttp.ClientSession) and self.client.closed

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the answer, its body still to come."""
        try:
            response = await super().handle_async_request(request)
        except httpx.ConnectTimeout as error:
            if isinstance(error.__cause__, TimeoutError):
                raise
            raise httpx.ReadError(str(error)) from error  # the library takes a lost connection for a slow one
        except (aiohttp.ClientError, UnicodeError) as error:  # the latter for a status line that is no text
            raise httpx.RemoteProtocolError(str(error) or type(error).__name__) from error
        assert isinstance(response.stream, AiohttpResponseStream), "it is what the library makes"
        response.stream = _Pieces(response.stream)
        return response
