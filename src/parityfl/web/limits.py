"""Bounds on what is read from others: how much, how slowly, and in which coding."""

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parityfl.web.problems import problem

STALL_S = 20.0
"""How long the sender of a body may keep its reader waiting; every `LEAST_BYTES_PER_S` bytes win back a second."""
LEAST_BYTES_PER_S = 1024.0
"""About the rate of a modem."""

UNCODED = {"Accept-Encoding": "identity"}
"""The header of an answer to a body that came with a content coding."""


class BodyLimit:
    """Answers 413 to a request whose body declares, or turns out to have, more than `limit` bytes.

    What is coded has another size than it seems, and is not read here: it is answered with 415.

    Args:
        app: the application behind it.
        limit: how many bytes are taken.
        setting: the name of the limit, for the message.
        but: the beginning of paths that have a limit of their own.
    """

    def __init__(self, app: ASGIApp, limit: int, setting: str, but: str) -> None:
        self.app = app
        self.limit = limit
        self.but = but
        self._detail = f"at most {limit} are taken here{because(setting)}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting."""
        if scope["type"] != "http" or scope["path"].startswith(self.but):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if fault := coding_fault(headers):
            await problem(415, fault, UNCODED)(scope, receive, send)
        elif (declared := declared_length(headers.get("Content-Length"))) > self.limit:
            response = problem(413, f"the body has {declared} bytes, {self._detail}")
            await response(scope, receive, send)
        else:
            await self.app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        left = self.limit

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"the body is too large, {self._detail}")
            return message

        return counted


class Paced:
    """Answers 408 to a request whose body comes too slowly, and cuts it off.

    Args:
        app: the application behind it.
        stall_s: for how long the sender may keep its reader waiting.
        pace: how many bytes win back a second of that.
    """

    def __init__(self, app: ASGIApp, stall_s: float = STALL_S, pace: float = LEAST_BYTES_PER_S) -> None:
        self.app = app
        self.stall_s = stall_s
        self.pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with an eye on the clock."""
        await self.app(scope, self._paced(receive) if scope["type"] == "http" else receive, send)

    def _paced(self, receive: Receive) -> Receive:
        clock = asyncio.get_running_loop().time
        left_s, more = self.stall_s, True

        async def paced() -> Message:
            nonlocal left_s, more
            if not more:
                return await receive()
            asked = clock()
            try:
                async with asyncio.timeout(left_s):
                    message = await receive()
            except TimeoutError:
                detail = f"the body came slower than {self.pace:g} bytes/s for {self.stall_s:g} s"
                raise HTTPException(408, detail) from None
            more = bool(message.get("more_body"))
            left_s += asked - clock() + len(message.get("body", b"")) / self.pace
            left_s = min(left_s, self.stall_s)
            return message

        return paced


def because(setting: str) -> str:
    """Return the name of the setting that a limit comes from, as the end of a message."""
    return f" ({setting})" if setting else ""


def coding_fault(headers: Mapping[str, str]) -> str:
    """Return why a body with these headers is not taken for its content coding, '' where it has none."""
    coding = headers.get("Content-Encoding", "identity")
    if coding.lower() == "identity":
        return ""
    return (
        f"Content-Encoding is {coding!r:.80}: send the body as it is, or a document as zstd frames, without this header"
    )


def declared_length(header: str | None) -> int:
    """Return what the header Content-Length says, which need not be true; 0 where it says nothing."""
    return int(header) if header is not None and header.isdecimal() else 0
