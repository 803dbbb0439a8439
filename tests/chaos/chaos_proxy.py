"""A TCP proxy on loopback that spoils what passes through it, one way of spoiling at a time."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

_CHUNK = 65536
_NEVER = 10**12


@dataclass(frozen=True)
class Spoil:
    """What happens to what the server behind the proxy answers, from the first POST of a connection on.

    What is asked before, such as for a device's health, passes as it is. Bytes are counted from the first answer to a
    POST on.

    Attributes:
        latency_s: every piece waits so long, both ways.
        cut_at: the connection is closed before this byte.
        reset: it is closed with a RST, as a crashed machine or a firewall does, rather than with a FIN.
        trickle_s: each byte waits so long.
        flip_every: one bit is flipped in each so many bytes; 0: in none.
        twice: every piece is sent twice.
        silent: nothing is ever answered, nor passed on.
    """

    latency_s: float = 0.0
    cut_at: int = _NEVER
    reset: bool = False
    trickle_s: float = 0.0
    flip_every: int = 0
    twice: bool = False
    silent: bool = False


@asynccontextmanager
async def proxy(target: int, spoil: Spoil) -> AsyncIterator[int]:
    """Listen on a free port of loopback, pass everything on to the port `target`, and yield the port."""
    server = await asyncio.start_server(lambda *ends: _serve(target, spoil, *ends), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _serve(target: int, spoil: Spoil, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        there, back = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.transport.abort()
        return
    posted = asyncio.Event()
    onward = asyncio.create_task(_forward(reader, back, spoil, posted))
    with suppress(OSError):
        await _answer(there, writer, spoil, posted)
    onward.cancel()
    back.close()
    _close(writer, spoil.reset)


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoil: Spoil, posted: asyncio.Event
) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            if data.startswith(b"POST "):
                posted.set()
            if posted.is_set():
                await asyncio.sleep(spoil.latency_s)
            if not (posted.is_set() and spoil.silent):
                writer.write(data)
                await writer.drain()
        writer.write_eof()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoil: Spoil, posted: asyncio.Event
) -> None:
    passed = 0
    while data := await reader.read(1 if spoil.trickle_s else _CHUNK):
        if not posted.is_set():
            writer.write(data)
            await writer.drain()
            continue
        await asyncio.sleep(spoil.latency_s + spoil.trickle_s)
        kept = _flipped(data, passed, spoil.flip_every)[: max(spoil.cut_at - passed, 0)]
        writer.write(kept * (2 if spoil.twice else 1))
        await writer.drain()
        passed += len(data)
        if passed > spoil.cut_at:
            return


def _flipped(data: bytes, passed: int, every: int) -> bytes:
    """Flip the lowest bit of the last byte of each `every` bytes of the stream, of which `passed` came before."""
    spoiled = bytearray(data)
    for place in range(every - 1 - passed % every, len(data), every) if every else ():
        spoiled[place] ^= 1
    return bytes(spoiled)


def _close(writer: asyncio.StreamWriter, reset: bool) -> None:
    if reset:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
