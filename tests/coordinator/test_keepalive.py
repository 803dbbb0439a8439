"""Connections on which nothing is said are probed: those that are accepted, and those to devices."""

import os
import socket
import ssl

import httpx
import psutil
import pytest
from fastapi import FastAPI

from network import run, served
from parityfl.coordinator.connections import Connections
from parityfl.web.keepalive import PROBE_S, PROBES

WANTED = {"TCP_KEEPIDLE": PROBE_S, "TCP_KEEPINTVL": PROBE_S, "TCP_KEEPCNT": PROBES}


def probing(descriptor: int) -> dict[str, int]:
    """Return how a socket of this process is probed; empty where it is not."""
    with socket.socket(fileno=os.dup(descriptor)) as found:
        if not found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            return {}
        return {name: found.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in WANTED}


@pytest.mark.skipif(not all(hasattr(socket, name) for name in WANTED), reason="the platform has no such options")
def test_both_ends_of_a_connection_to_a_device_are_probed() -> None:
    """Both are sockets of this process, and stay open for a while after the answer."""

    async def main() -> None:
        connections = Connections(ssl.create_default_context(), 1, 5.0)
        async with served(FastAPI()) as http:
            await (await connections.handle_async_request(httpx.Request("GET", f"{http.base_url}/"))).aread()
            port, all_of_ours = http.base_url.port, psutil.Process().net_connections("tcp")
            open_now = [found for found in all_of_ours if found.status == psutil.CONN_ESTABLISHED]
            (accepted,) = (found for found in open_now if found.laddr.port == port)
            (outgoing,) = (found for found in open_now if found.raddr.port == port)
            assert probing(accepted.fd) == probing(outgoing.fd) == WANTED
            await connections.aclose()

    run(main())
