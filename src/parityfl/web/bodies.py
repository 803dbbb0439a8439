"""Bodies of requests and answers: read, hashed and kept, so that many large ones need the memory of a few.

Small ones, and those that do not tell their size, lie in memory of their own. Large ones lie in buffers that are used
again once nobody refers to what lies in them: memory that the system has to hand out anew costs more than reading into
it. Where there is no more room for either, a body goes into a file without a name, and the system keeps of it in memory
what it likes. Small ones share files: each file that is in use takes a descriptor.
"""

from __future__ import annotations

import asyncio
import mmap
import weakref
from collections import deque
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, TypeVar

import numpy as np

from parityfl.core.buffers import Buffers
from parityfl.core.errors import UnfinishedError
from parityfl.core.types import Vector
from parityfl.files import writing
from parityfl.web.limits import because, declared_length
from parityfl.web.problems import TooLargeError
from parityfl.wire.digests import CONTENT_DIGEST, Hashed, Hasher, Parts, content_digest, hashed, is_as_told, lengths_in
from parityfl.wire.offload import SMALL_BYTES, offload

T = TypeVar("T")

Content = bytearray | memoryview

BUFFERED_BYTES = 2**26
"""For how many bytes there are buffers, though always for one body, and for how many small bodies lie in memory."""

_SHARED_FILE_BYTES = 2**26
_PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class Body:
    """A body, whole.

    Attributes:
        content: its bytes; where they are a view, its memory is used again when no view is left.
        digest: its BLAKE3, in hexadecimal, by the parts that its header tells.
        parts: these, with their own digests.
        told: what its header says of its digest.
        intact: whether it is that; None where the header says nothing that is known here.
    """

    content: Content
    digest: str
    parts: Parts
    told: str | None
    intact: bool | None

    @property
    def change(self) -> str:
        """How it differs from what its header says."""
        found = content_digest(self.digest, [length for length, _ in self.parts])
        return f"its {CONTENT_DIGEST} is {self.told!s:.120}, but that of what came is {found}"


def set_aside(content: Content | Vector) -> None:
    """Let the system take back the memory of what lies in a file; it reads that again when somebody looks at it.

    Args:
        content: a body, or a vector in one.
    """
    lies_in: object = content
    while isinstance(lies_in, np.ndarray):
        lies_in = lies_in.base
    if isinstance(lies_in, memoryview):
        lies_in = lies_in.obj
    if isinstance(lies_in, mmap.mmap):
        lies_in.madvise(mmap.MADV_DONTNEED)


class Bodies:
    """Reads bodies.

    Args:
        folder: where the files are; None: where the system has its temporary ones.
        buffered: for how many bytes there are buffers, and for how many small bodies lie in memory.
    """

    def __init__(self, folder: Path | None = None, buffered: int = BUFFERED_BYTES) -> None:
        self._folder = folder
        self._buffers = Buffers(buffered)
        self._room = _Room(buffered)
        self._shared = _SharedFiles(folder)

    async def read(
        self, stream: AsyncIterable[bytes], limit: int, headers: Mapping[str, str], setting: str = ""
    ) -> Body:
        """Return what a stream brings.

        Args:
            stream: the pieces.
            limit: how many bytes are taken.
            headers: say how long it is and how it is hashed, and need not tell the truth.
            setting: what the limit comes from, for the message.

        Raises:
            TooLargeError: there are more than `limit`; no more than that was kept.
            UnfinishedError: the disk is full.
        """
        size = min(declared_length(headers.get("Content-Length")), limit)
        told = headers.get(CONTENT_DIGEST)
        lengths = lengths_in(told)
        allowed = _Allowance(limit if size <= SMALL_BYTES else size, setting)
        if size <= SMALL_BYTES:
            content = await _into_memory(stream, allowed)
            found = await offload(len(content), hashed, content, lengths)
            if not self._room.take(len(content), content):
                content = await asyncio.to_thread(self._shared.lay, content)
        elif (buffer := self._buffers.lend(size)) is not None:
            content = await _into_buffer(stream, allowed, buffer)
            # only now: the thread that reads has enough to do, and the core of who sends is free by now
            found = await offload(len(content), hashed, content, lengths)
        else:
            content, found = await _into_file(stream, allowed, self._folder, Hasher(lengths))
        return Body(content, *found, told, is_as_told(told, found.digest, lengths))

    def lay_aside(self, vector: Vector, content: Content) -> Vector:
        """Return a vector that was read from `content` and waits for its turn; for a thread.

        A view waits where the body is; any other vector waits in a file if it is large, or if memory is full.

        Raises:
            UnfinishedError: the disk is full.
        """
        if np.may_share_memory(vector, np.frombuffer(content, dtype=np.uint8)):
            set_aside(content)
            return vector
        if vector.nbytes <= SMALL_BYTES and self._room.take(vector.nbytes, vector):
            return vector
        laid = self._shared.lay(vector.data)
        set_aside(laid)
        return np.frombuffer(laid, dtype=vector.dtype)


class _Allowance:
    """How many bytes of a body are taken, and what that comes from."""

    def __init__(self, limit: int, setting: str) -> None:
        self._limit = self._left = limit
        self._setting = setting

    def use(self, piece: bytes) -> None:
        """Count a piece; raise `TooLargeError` if that is too much."""
        self._left -= len(piece)
        if self._left < 0:
            reason = because(self._setting)
            raise TooLargeError(f"the body has more than the {self._limit} bytes that are taken here{reason}")


class _Bytes(bytearray):
    """Bytes that tell when nobody refers to them any more."""


async def _into_memory(stream: AsyncIterable[bytes], allowed: _Allowance) -> Content:
    content = _Bytes()
    async for piece in stream:
        allowed.use(piece)
        content += piece
    return content


async def _into_buffer(stream: AsyncIterable[bytes], allowed: _Allowance, buffer: memoryview) -> Content:
    size = 0
    async for piece in stream:
        allowed.use(piece)
        buffer[size : size + len(piece)] = piece
        size += len(piece)
    return buffer[:size]


async def _into_file(
    stream: AsyncIterable[bytes], allowed: _Allowance, folder: Path | None, hasher: Hasher
) -> tuple[Content, Hashed]:
    """Hash what comes before it goes: to hash it later would bring all of it back into memory."""
    with await asyncio.to_thread(_on_disk, folder, lambda: TemporaryFile(dir=folder)) as file:

        def take(piece: bytes) -> None:
            hasher.update(piece)
            file.write(piece)

        async for piece in stream:
            allowed.use(piece)
            await asyncio.to_thread(_on_disk, folder, partial(take, piece))
        return await asyncio.to_thread(_on_disk, folder, partial(_mapped, file)), hasher.hashed()


def _mapped(file: IO[bytes]) -> Content:
    file.flush()
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if file.tell() else bytearray()


def _on_disk(folder: Path | None, work: Callable[[], T]) -> T:
    """Return what `work` makes; raise `UnfinishedError` where the disk does not do it."""
    where = folder or "the folder for temporary files (TMPDIR)"
    with writing(where, UnfinishedError, remedy="make room for the bodies that wait there for their turn"):
        return work()


class _Room:
    """Room in memory, which comes back by itself, from whichever thread, when nobody refers to what took it."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._returned: deque[int] = deque()
        self._lock = Lock()

    def take(self, size: int, owner: object) -> bool:
        """Return whether there is room for the bytes that somebody has in memory already, and count them if so."""
        with self._lock:
            while self._returned:
                self._left += self._returned.popleft()
            if size > self._left:
                return False
            self._left -= size
        weakref.finalize(owner, self._returned.append, size)
        return True


class _SharedFiles:
    """Files without names, one after the other, each for as many bodies as it has room for; gone when they are."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = Lock()
        self._content = memoryview(b"")
        self._used = 0

    def lay(self, content: Content) -> Content:
        """Return a copy that lies in a file; for a thread.

        Raises:
            UnfinishedError: the disk is full.
        """
        data = memoryview(content).cast("B")
        with self._lock:
            return _on_disk(self._folder, partial(self._written, data))

    def _written(self, data: memoryview) -> Content:
        begins = -(-self._used // _PAGE) * _PAGE
        if begins + len(data) > len(self._content):
            begins = 0
            self._begin(max(_SHARED_FILE_BYTES, len(data)))
        self._file.seek(begins)
        self._file.write(data)
        self._file.flush()
        self._used = begins + len(data)
        return self._content[begins : self._used]

    def _begin(self, size: int) -> None:
        file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - the next one takes its place
        file.truncate(size)
        content = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
        self._file, self._content = file, content  # both or neither, or a later body is read from the earlier file
