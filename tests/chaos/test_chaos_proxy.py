import asyncio

import pytest
from chaos_proxy import Spoil, proxy

TEXT = bytes(range(256)) * 4


async def talk(spoil: Spoil, asked: bytes = b"POST ") -> bytes:
    """Return what comes back through the proxy from a server that answers `TEXT` to anything and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.write(TEXT)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, proxy(server.sockets[0].getsockname()[1], spoil) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asked)
        got = await asyncio.wait_for(reader.read(-1), 10)
        writer.close()
        return got


def test_nothing_is_changed_without_a_fault() -> None:
    assert asyncio.run(talk(Spoil())) == TEXT


def test_a_cut_ends_the_answer() -> None:
    assert asyncio.run(talk(Spoil(cut_at=100))) == TEXT[:100]


def test_one_bit_in_so_many_bytes_is_flipped() -> None:
    """Of 1024 bytes the 400th and the 800th: positions 399 and 799."""
    got = asyncio.run(talk(Spoil(flip_every=400)))
    assert [place for place in range(1024) if got[place] != TEXT[place]] == [399, 799]


def test_twice_is_twice() -> None:
    assert asyncio.run(talk(Spoil(twice=True))) == TEXT * 2


def test_slow_is_whole() -> None:
    assert asyncio.run(talk(Spoil(latency_s=0.01))) == TEXT


def test_a_reset_is_one() -> None:
    with pytest.raises(ConnectionResetError):
        asyncio.run(talk(Spoil(cut_at=0, reset=True)))


def test_what_comes_before_a_post_passes_as_it_is() -> None:
    assert asyncio.run(talk(Spoil(cut_at=0, twice=True, silent=True), b"GET /")) == TEXT
