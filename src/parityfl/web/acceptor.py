"""Accepting connections, as many as there are descriptors for.

A process without a free descriptor can neither call a device nor write a file. So a connection that is given one of the
last is closed at once: where it is accepted, since with TLS the server's protocol hears of it after the handshake only.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any

try:
    import resource
except ImportError:  # on Windows, where there is no such limit
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
"""How long a connection may take to agree on TLS."""

RESERVE = 512
"""How many descriptors are kept for calls and files of the process's own; of a limit below twice that, half."""

_AGAIN_S = 1.0
"""After how long it is tried again to accept, where the system refused to."""

_SILENCE_S = 60.0
"""How long nothing is said of further connections that are turned away."""


def raise_open_files() -> None:
    """Have this process open as many files as it may allow itself."""
    if resource is None:
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):  # macOS names a limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Acceptor:
    """Accepts the connections of a listening socket.

    Args:
        listening: the socket.
        protocol: makes what speaks on a connection.
        tls: how to encrypt; None for not at all.
    """

    handshake_s = HANDSHAKE_S

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
    ) -> None:
        self._listening = listening
        self._protocol = protocol
        self._tls = tls
        self._entering: set[asyncio.Task[None]] = set()
        self._silent_until = -inf

    async def accept(self) -> None:
        """Accept connections until this is cancelled, and with it the handshakes that are under way."""
        most = _most_descriptors()
        try:
            while True:
                caller = await self._accepted()
                if caller.fileno() < most:  # the system gives out the lowest that is free
                    task = asyncio.create_task(self._enter(caller), name="enter")
                    self._entering.add(task)
                    task.add_done_callback(self._entering.discard)
                else:
                    caller.close()
                    self._complain("as many are open as the limit of open files has room for: raise it (ulimit -n)")
        finally:
            for task in self._entering:
                task.cancel()

    async def _accepted(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return (await loop.sock_accept(self._listening))[0]
            except ConnectionError:  # it has gone again
                continue
            except OSError as error:
                self._complain(error.strerror or str(error))
                await asyncio.sleep(_AGAIN_S)

    async def _enter(self, caller: socket.socket) -> None:
        options: dict[str, Any] = (
            {} if self._tls is None else {"ssl": self._tls, "ssl_handshake_timeout": self.handshake_s}
        )
        with suppress(OSError):  # it has gone, or speaks no TLS that is taken here, or not in time
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, caller, **options)

    def _complain(self, reason: str) -> None:
        if monotonic() >= self._silent_until:
            self._silent_until = monotonic() + _SILENCE_S
            log.warning("connections are turned away: %s", reason)


def _most_descriptors() -> float:
    """Return the first descriptor that no connection may have."""
    if resource is None:
        return inf
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return inf if limit == resource.RLIM_INFINITY else limit - min(RESERVE, limit // 2)
