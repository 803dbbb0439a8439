"""The connection to a Ray cluster. Only here is Ray imported, and only where it is used."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from parityfl.core.errors import ConfigError, FleetError, first_line
from parityfl.workers.cores import cores

CONNECT_S = 10.0
"""How long a cluster may take to accept a connection."""


def import_ray() -> Any:
    """Return the package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module("ray")
    except ImportError:
        raise ConfigError(
            "engine.name = 'ray' (suite: --ray) needs the package ray, which is not installed: pip install '.[ray]' in "
            "the checkout, or do without"
        ) from None


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected to a cluster; one of this machine alone, which ends with the context, for None.

    A connection that is there already is used and left as it is.

    Raises:
        ConfigError: Ray is not installed.
        FleetError: there is no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        require_listener(address)
    here: dict[str, Any] = {"num_cpus": cores(), "include_dashboard": False} if address is None else {}
    with _own_signals():
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **here)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise FleetError(
                f"engine.address (suite: --ray) = {address!r}: no Ray cluster answers there ({first_line(error)}); "
                "give HOST:PORT, ray://HOST:PORT or auto, start a cluster with `ray start --head`, or leave it out"
            ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def require_listener(address: str) -> None:
    """Require that somebody listens at an address: Ray itself would try for minutes.

    Raises:
        FleetError: nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():  # a word such as auto
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise FleetError(
            f"engine.address (suite: --ray) = {address!r}: nobody answers there ({error}); start a cluster with "
            "`ray start --head`, or leave the address out"
        ) from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our handling of SIGTERM, which Ray would replace by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ours)
