"""Serving an application from a socket that is bound beforehand, within the caller's own event loop."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp

from parityfl.allocator import keep_freed_memory
from parityfl.core.errors import ConfigError, FleetError
from parityfl.web.acceptor import Acceptor, raise_open_files
from parityfl.web.keepalive import keep_alive
from parityfl.web.protocol import ImpatientProtocol
from parityfl.web.tls import Tls
from parityfl.wire.schemas import MAX_PORT

T = TypeVar("T")

KEEP_ALIVE_S = 30
"""How long an idle connection stays open; callers close theirs earlier (`IDLE_S`), so that none meets a closed one."""
IDLE_S = 15.0
_GRACE_S = 5


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        ConfigError: there is no such port.
        FleetError: the port is taken, or the host is none of this machine's addresses.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"--port {port}: choose one from 1 to {MAX_PORT}, or 0 for any free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "this is no name of a host"
        raise FleetError(f"cannot listen on {host}: {reason}; use an address of this machine") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise FleetError(_explain(error, host, port)) from None
    listening.setblocking(False)
    return listening


def adopt(descriptor: int) -> socket.socket:
    """Return the listening socket that a parent process has handed over.

    Raises:
        FleetError: the descriptor is no socket.
    """
    try:
        listening = socket.socket(fileno=descriptor)
    except OSError as error:
        raise FleetError(f"file descriptor {descriptor} is no socket to listen on: {error.strerror or error}") from None
    listening.setblocking(False)
    return listening


def port_of(listening: socket.socket) -> int:
    """Return the port that a socket listens on."""
    port: int = listening.getsockname()[1]
    return port


def authority(host: str, port: int) -> str:
    """Return a host, which may be an IPv6 address, and a port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own loopback."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that serves to its end, on uvloop where it is installed."""
    keep_freed_memory()
    raise_open_files()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


@asynccontextmanager
async def serving(app: ASGIApp, listening: socket.socket, tls: Tls | None = None) -> AsyncIterator[None]:
    """Serve `app`, its lifespan included, while the context is open; the caller handles signals.

    Args:
        app: the application.
        listening: where.
        tls: how to encrypt; None for not at all.

    Raises:
        FleetError: the application did not start.
    """
    keep_alive(listening)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            http=ImpatientProtocol,
            ws="none",
            server_header=False,
            proxy_headers=False,  # or whoever calls from this machine could say that it is another
            **(tls or Tls()).listening(),
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]), name="uvicorn")
    try:
        while not server.started:
            if task.done():
                raise FleetError("the web application did not start; its log has the reason")
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({task})


@contextlib.contextmanager
def on_signals(handle: Callable[[signal.Signals], None]) -> Generator[None, None, None]:
    """Call `handle` for the first SIGINT or SIGTERM within the context; the second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        restore()
        handle(number)

    def restore() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, first, number)
    except (RuntimeError, ValueError):  # not the main thread: someone else handles signals
        yield
        return
    try:
        yield
    finally:
        restore()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - it is not there on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Server(uvicorn.Server):
    """uvicorn with our acceptors, and without its signal handlers, which end the process before clients are told."""

    _acceptors: Sequence[asyncio.Task[None]] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept connections."""
        await super().startup(sockets=[])
        protocol = partial(
            ImpatientProtocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        acceptors = [Acceptor(listening, protocol, self.config.ssl) for listening in sockets or ()]
        self._acceptors = [asyncio.create_task(acceptor.accept(), name="acceptor") for acceptor in acceptors]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, then end those that are open."""
        for acceptor in self._acceptors:
            acceptor.cancel()
        await asyncio.gather(*self._acceptors, return_exceptions=True)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the caller."""
        yield


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: choose another with --port, or 0 for any free one"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is reserved: choose one from 1024 up with --port"
    return f"cannot listen on {host}:{port}: {error.strerror or error}; use an address of this machine"
