"""Who is let in where descriptors are few, and where a handshake does not come."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from parityfl.web.acceptor import Acceptor, raise_open_files
from parityfl.web.certificates import Authority, host_names
from parityfl.web.server import bind, port_of, run, serving
from parityfl.web.tls import Tls

LIMIT = 400
"""Open files, of which half are for connections."""
CALLERS = 150
"""Connections that take two of them each, one at either end: more than there is room for, fewer than the limit."""


@contextmanager
def open_files(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("fleet")
    Authority.open(folder).certify(folder / "coordinator", "coordinator", host_names(["127.0.0.1"]), 1)
    return Tls(folder / "coordinator.pem", folder / "coordinator.key", folder / "authority.pem")


async def silent(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def heard(url: str, tls: Tls) -> int:
    """Ask until there is an answer; return its status."""
    while True:
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(verify=tls.calling()) as http:
                return (await http.get(url)).status_code


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_last_descriptors_are_for_the_process_itself(
    encrypted: bool, tls: Tls, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether callers owe a head or a handshake; when they have gone, others are taken in again."""

    async def main() -> None:
        listening = bind("127.0.0.1", 0)
        port = port_of(listening)
        with open_files(LIMIT):
            async with serving(FastAPI(), listening, tls if encrypted else None), asyncio.timeout(25):
                callers = [await silent(port) for _ in range(CALLERS)]
                reads = [asyncio.create_task(reader.read(1)) for reader, _ in callers]
                done, _ = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
                assert {read.result() for read in done} == {b""}
                (tmp_path / "file").write_text("as ever")
                for read, (_, writer) in zip(reads, callers, strict=True):
                    read.cancel()
                    writer.close()
                assert await heard(f"{'https' if encrypted else 'http'}://127.0.0.1:{port}/openapi.json", tls) == 200

    run(main())
    turned_away = [record.message for record in caplog.records if "turned away" in record.message]
    assert turned_away == [
        "connections are turned away: as many are open as the limit of open files has room for: raise it (ulimit -n)"
    ]


def test_a_handshake_that_does_not_come_is_cut_off(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acceptor, "handshake_s", 0.05)

    async def main() -> None:
        listening = bind("127.0.0.1", 0)
        async with serving(FastAPI(), listening, tls), asyncio.timeout(10):
            reader, writer = await silent(port_of(listening))
            assert await reader.read() == b""
            writer.close()
            assert await heard(f"https://127.0.0.1:{port_of(listening)}/openapi.json", tls) == 200

    run(main())


def test_handshakes_that_are_under_way_do_not_hold_up_the_end(tls: Tls) -> None:
    async def main() -> None:
        listening = bind("127.0.0.1", 0)
        async with asyncio.timeout(5):
            async with serving(FastAPI(), listening, tls):
                reader, writer = await silent(port_of(listening))
                assert await heard(f"https://127.0.0.1:{port_of(listening)}/openapi.json", tls) == 200
            assert await reader.read() == b""
            writer.close()

    run(main())


def test_a_server_may_open_what_the_system_grants() -> None:
    with open_files(LIMIT):
        raise_open_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard
