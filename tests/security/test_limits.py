import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel

from parityfl.core.screening import update_fault
from parityfl.core.types import Update
from parityfl.web import problems
from parityfl.web.bodies import Bodies
from parityfl.web.limits import BodyLimit, Paced
from parityfl.web.protocol import ImpatientProtocol
from parityfl.web.server import bind, port_of, serving


class Anything(BaseModel):
    text: str


def application(stall_s: float = 5.0, pace: float = 1000) -> FastAPI:
    """One endpoint that FastAPI reads, one that streams."""
    app = FastAPI()
    problems.install(app)
    app.add_middleware(BodyLimit, limit=100, setting="section.key = 100", but="/streamed")
    app.add_middleware(Paced, stall_s=stall_s, pace=pace)

    @app.post("/parsed")
    async def parsed(body: Anything) -> int:
        return len(body.text)

    @app.post("/streamed")
    async def streamed(request: Request) -> int:
        return len((await Bodies().read(request.stream(), 100, {}, "model.name")).content)

    return app


async def answers(path: str, *pieces: bytes, pause_s: float = 0.0, **pacing: float) -> httpx.Response:
    """Post the pieces with pauses between them, of a length that nobody announces."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(pause_s)

    listening = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{port_of(listening)}{path}"
    async with serving(application(**pacing), listening), httpx.AsyncClient(timeout=10) as http:
        return await http.post(url, content=body(), headers={"Content-Type": "application/json"})


def test_what_is_no_request_goes_through() -> None:
    """Such as the beginning and the end of the application, which have no headers."""
    seen: list[str] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    limited: Any = BodyLimit(behind, limit=100, setting="section.key = 100", but="/streamed")
    asyncio.run(limited({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


@pytest.mark.parametrize(("path", "setting"), [("/parsed", "section.key = 100"), ("/streamed", "model.name")])
def test_a_body_that_turns_out_too_large_is_a_413_that_names_the_setting(path: str, setting: str) -> None:
    response = asyncio.run(answers(path, b'{"text": "', b"x" * 60, b"x" * 60))
    assert response.status_code == response.json()["status"] == 413
    assert setting in response.json()["detail"]


async def stalls(path: str, piece: bytes, **pacing: float) -> str:
    """Post a piece of a longer body and no more; return all that is answered before the server hangs up."""
    listening = bind("127.0.0.1", 0)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n"
    async with serving(application(**pacing), listening), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listening))
        writer.write(head.encode() + piece)
        answer = await reader.read()
        writer.close()
        return answer.decode()


@pytest.mark.parametrize("path", ["/parsed", "/streamed"])
def test_a_sender_that_keeps_us_waiting_is_cut_off(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImpatientProtocol, "linger_s", 0.05)
    answer = asyncio.run(stalls(path, b'{"', stall_s=0.05))
    assert answer.startswith("HTTP/1.1 408")
    assert "application/problem+json" in answer
    assert "1000 bytes/s for 0.05 s" in answer


def test_what_came_before_buys_no_more_time_than_there_was() -> None:
    """60 bytes at a pace of 1 a second would be worth a minute."""
    assert asyncio.run(stalls("/streamed", b"x" * 60, stall_s=0.05, pace=1)).startswith("HTTP/1.1 408")


@pytest.mark.parametrize("path", ["/parsed", "/streamed"])
@pytest.mark.parametrize(("pace", "status"), [(25, 200), (1e9, 408)])
def test_a_sender_that_is_slow_but_keeps_the_pace_is_heard(path: str, pace: float, status: int) -> None:
    """It keeps us waiting 1.5 s in all where it may 1 s, and with each 5 bytes wins back .2 s of that, or nothing."""
    pieces = [b'{"tex', b't": "', *[b"abcde"] * 12, b'"}']
    assert asyncio.run(answers(path, *pieces, pause_s=0.1, stall_s=1.0, pace=pace)).status_code == status


def update(delta: list[float], control: list[float] | None = None) -> Update:
    vectors = [None if values is None else np.array(values, dtype=np.float32) for values in (delta, control)]
    return Update(0, vectors[0], 1, 0.5, control=vectors[1])  # type: ignore[arg-type]


def test_an_update_of_3_and_4_has_norm_5() -> None:
    assert update_fault(update([3, 4]), 5.0) == ""
    assert "norm 5, at most security.max_update_norm = 4.9" in update_fault(update([3, 4]), 4.9)
    assert "control variate" in update_fault(update([0, 0], [3, 4]), 4.9)
    assert update_fault(update([3e38, 3e38]), None) == ""


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_limit_lets_through_what_is_not_finite(bad: float) -> None:
    for limit in (None, 1.0):
        assert "not finite" in update_fault(update([0, bad]), limit)
        assert "not finite" in update_fault(update([0, 0], [bad, 0]), limit)


def test_a_norm_too_large_for_float32_is_too_large() -> None:
    assert "norm" in update_fault(update([3e38, 3e38]), 1e4)


def test_a_model_that_is_empty_is_harmless() -> None:
    assert update_fault(update([]), 1.0) == ""
