import asyncio
import json
import random
from contextlib import suppress
from hashlib import sha256

import pytest
from fastapi import FastAPI, Request

from parityfl.core.errors import FleetError
from parityfl.web import problems
from parityfl.web.protocol import AHEAD_BYTES, HEAD_BYTES, PIECE_BYTES, ImpatientProtocol
from parityfl.web.server import bind, is_loopback, port_of, serving


async def said(*pieces: bytes, app: FastAPI | None = None) -> bytes:
    """Serve an application, send the pieces, and return all that comes until the server hangs up."""
    listening = bind("127.0.0.1", 0)
    async with serving(app or FastAPI(), listening), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listening))
        with suppress(ConnectionError):  # it may hang up before all is sent
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer


def problem_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    return json.loads(body)["status"], json.loads(body)["detail"]


@pytest.mark.parametrize("pieces", [(), (b"POST /train HTTP/1.1\r\nHost: x\r\nX-Slow: ",)])
def test_a_head_that_does_not_come_is_cut_off(pieces: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImpatientProtocol, "head_s", 0.05)
    status, detail = problem_of(asyncio.run(said(*pieces)))
    assert status == 408
    assert "0.05 s" in detail


def test_a_second_head_on_the_same_connection_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImpatientProtocol, "head_s", 0.2)
    answer = asyncio.run(said(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in answer


def test_a_head_without_end_is_cut_off() -> None:
    """Whoever sends it has proved nothing yet, and every header takes more memory than it has bytes."""
    start, line = b"GET / HTTP/1.1\r\nHost: x\r\n", b"ab: cd\r\n"
    half = line * ((HEAD_BYTES - len(start)) // len(line) // 2)
    status, detail = problem_of(asyncio.run(said(start, half, half, line * 3)))
    assert status == 431
    assert "65536 bytes" in detail


@pytest.mark.parametrize("size", [HEAD_BYTES + 500, 80_000])
def test_a_head_that_comes_at_once_is_as_long_as_any_other_at_most(size: int) -> None:
    """The piece that completes it is counted as well: here there may be no other."""
    head = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * size + b"\r\n\r\n"
    assert problem_of(asyncio.run(said(head)))[0] == 431


def test_a_head_just_below_the_limit_is_taken() -> None:
    head = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "
    end = b"\r\n\r\n"
    assert asyncio.run(said(head + b"x" * (HEAD_BYTES - len(head + end)) + end)).startswith(b"HTTP/1.1 200")


def test_a_body_is_no_head() -> None:
    app, size = FastAPI(), 10**6

    @app.post("/")
    async def take(request: Request) -> int:
        return len(await request.body())

    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    assert asyncio.run(said(head.encode(), bytes(size), app=app)).endswith(b"1000000")


@pytest.mark.parametrize(
    "sizes", [(2 * AHEAD_BYTES + 3,), (PIECE_BYTES, 3, 70_000), (3, 3, PIECE_BYTES), (1, PIECE_BYTES, 9_000) * 200]
)
def test_a_body_arrives_as_it_was_sent_in_chunks_large_and_small(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what has come before the application asks for it: all that is read ahead."""
    app, rng, here = FastAPI(), random.Random(0), 0
    chunks = [rng.randbytes(size) for size in sizes]
    take = ImpatientProtocol.on_body

    def counted(protocol: ImpatientProtocol, body: bytes) -> None:
        nonlocal here
        here += len(body)
        take(protocol, body)

    monkeypatch.setattr(ImpatientProtocol, "on_body", counted)

    @app.post("/digest")
    async def digest(request: Request) -> str:
        while here < min(sum(sizes), AHEAD_BYTES):
            await asyncio.sleep(0)
        return sha256(await request.body()).hexdigest()

    head = b"POST /digest HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    assert sha256(b"".join(chunks)).hexdigest().encode() in asyncio.run(said(head, body, app=app))


def test_nobody_can_say_that_it_is_someone_else() -> None:
    app = FastAPI()

    @app.get("/")
    async def who(request: Request) -> str:
        assert request.client is not None
        return request.client.host

    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.1.2.3\r\nConnection: close\r\n\r\n"
    assert asyncio.run(said(request, app=app)).endswith(b'"127.0.0.1"')


def test_a_sender_that_hangs_up_in_mid_body_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    app, read = FastAPI(), asyncio.Event()
    problems.install(app)

    @app.post("/")
    async def take(request: Request) -> int:
        try:
            return len(await request.body())
        finally:
            read.set()

    async def main() -> None:
        listening = bind("127.0.0.1", 0)
        async with serving(app, listening), asyncio.timeout(10):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(listening))
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf of it")
            await writer.drain()
            writer.close()
            await read.wait()

    asyncio.run(main())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_host_that_is_no_name_is_one_line() -> None:
    with pytest.raises(FleetError, match="use an address of this machine"):
        bind("x" * 70, 0)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"what?\r\n\r\n", b"\0" * 100])
def test_what_is_no_http_is_a_problem(garbage: bytes) -> None:
    assert problem_of(asyncio.run(said(garbage)))[0] == 400


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("10.0.0.1", False),
        ("127.evil.example", False),
        ("", False),
    ],
)
def test_loopback_is_an_address_and_no_spelling(host: str, own: bool) -> None:
    assert is_loopback(host) == own
