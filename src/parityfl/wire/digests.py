"""BLAKE3 of bodies, with the header that carries it, and of models.

BLAKE3 hashes a model several times faster than SHA-256, and every model is hashed at both ends of every way that it
goes. A document is hashed in parts, its head and each of its vectors by itself, and its digest is that of the parts'
lengths and digests: so a model that many documents carry is hashed once for all of them.

The header has the syntax of RFC 9530, whose registry lists neither `blake3` nor `blake3-parts`.
"""

import re
import sys
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from parityfl.core.machine import available_cores
from parityfl.core.types import Vector
from parityfl.wire.offload import offload

CONTENT_DIGEST = "Content-Digest"
"""Says what a body should be: whoever reads it notices a bit that was flipped on the way. It proves nothing."""

EMPTY = blake3().hexdigest()
"""The digest of no body."""

SHARED_BYTES = 2**22
"""What is worth being hashed on all cores at once."""

MOST_THREADS = 8
"""More would not be begun before the others are done."""

Piece = bytes | bytearray | memoryview

Parts = tuple[tuple[int, str], ...]
"""The lengths and digests of the parts of a body, in order."""


class Hashed(NamedTuple):
    """The digest of a body, and its parts; there are none where it was hashed as a whole."""

    digest: str
    parts: Parts = ()


_PARTS = "parityfl 2026-11-24 parts of a body"
"""Sets apart, as BLAKE3 has it, a digest of parts from that of a body which is written like them."""
_KNOWN = re.compile(r"(?:^|,)[ \t]*(blake3(?:-parts)?=[^,]*)")
_LENGTHS = re.compile(r'blake3-parts=:[^:]*:;lengths="(\d{1,15}(?: \d{1,15}){0,7})"')


class Hasher:
    """Hashes a body while it comes.

    Args:
        lengths: of its parts, in bytes; empty where it is hashed as a whole. The last part takes what comes, so that
            what is longer or shorter than it should be has another digest.
    """

    def __init__(self, lengths: Sequence[int] = ()) -> None:
        self._in_parts = bool(lengths)
        self._rooms = [*lengths[:-1], sys.maxsize]
        self._states = [(room, blake3()) for room in self._rooms]

    def update(self, piece: Piece) -> None:
        """Take the next piece, of any size; the interpreter is free while a large one is hashed."""
        view = memoryview(piece)
        for number, (_, state) in enumerate(self._states):
            taken = view[: self._rooms[number]]
            self._rooms[number] -= len(taken)
            state.update(taken)
            view = view[len(taken) :]
            if not view:
                return

    def hashed(self) -> Hashed:
        """Return the digest of what has come."""
        if not self._in_parts:
            return Hashed(self._states[0][1].hexdigest())
        rooms = zip(self._states, self._rooms, strict=True)
        return _of_parts([(room - left, state.hexdigest()) for (room, state), left in rooms])


def hashed(body: Piece, lengths: Sequence[int] = ()) -> Hashed:
    """Return the digest of a body, of which `lengths` says what its parts are; see `Hasher`."""
    if not lengths:
        return Hashed(_hexdigest(body))
    parts, rest = [], memoryview(body)
    for length in (*lengths[:-1], len(rest)):
        part, rest = rest[:length], rest[length:]
        parts.append((len(part), _hexdigest(part)))
    return _of_parts(parts)


def digest_of(body: Piece, lengths: Sequence[int] = ()) -> str:
    """Return the digest of a body; see `hashed`."""
    return hashed(body, lengths).digest


def _of_parts(parts: Sequence[tuple[int, str]]) -> Hashed:
    return Hashed(digest_of_parts(parts), tuple(parts))


def _hexdigest(body: Piece) -> str:
    return blake3(body, max_threads=1 if len(body) < SHARED_BYTES else _threads()).hexdigest()


@cache
def _threads() -> int:
    """Return how many threads hash a large body.

    They are begun for it: the system puts new ones on idle cores, while those of a pool that were asleep
    (`blake3.AUTO`) often share one.
    """
    return min(available_cores(), MOST_THREADS)


def digest_of_parts(parts: Sequence[tuple[int, str]]) -> str:
    """Return the digest of a body whose parts have these lengths and digests."""
    written = b"".join([length.to_bytes(8, "little") + bytes.fromhex(digest) for length, digest in parts])
    return blake3(written, derive_key_context=_PARTS).hexdigest()


async def digest(body: Piece, header: str | None = None) -> str:
    """Return the digest of a body in the parts that `CONTENT_DIGEST` names, off the event loop if it takes a while."""
    return await offload(len(body), digest_of, body, lengths_in(header))


def model_digest(vector: Vector) -> str:
    """Return the digest of a model's parameters in order, as little-endian float32: what tells models apart here."""
    return digest_of(np.ascontiguousarray(vector, dtype="<f4").view(np.uint8).data)


def known_digest(vector: Vector, body: Piece, parts: Parts) -> str | None:
    """Return the `model_digest` of a vector that is a part of a body, as a view; None where it is none."""
    begins = vector.ctypes.data - np.frombuffer(body, dtype=np.uint8).ctypes.data
    starts = accumulate((length for length, _ in parts), initial=0)
    places = zip(starts, parts, strict=False)
    return next((found for start, (size, found) in places if (start, size) == (begins, vector.nbytes)), None)


def content_digest(hexadecimal: str, lengths: Sequence[int] = ()) -> str:
    """Return the value of `CONTENT_DIGEST` for a digest, of parts with these lengths if there are any."""
    encoded = b64encode(bytes.fromhex(hexadecimal)).decode("ascii")
    if not lengths:
        return f"blake3=:{encoded}:"
    return f'blake3-parts=:{encoded}:;lengths="{" ".join(map(str, lengths))}"'


def _known_in(header: str | None) -> str:
    """Return the first digest in a header, which may list several, that is one of those here; empty if none is."""
    found = None if header is None else _KNOWN.search(header)
    return "" if found is None else found[1].rstrip()


def lengths_in(header: str | None) -> tuple[int, ...]:
    """Return the lengths of a body's parts that its header tells; none where it is hashed as a whole."""
    found = _LENGTHS.fullmatch(_known_in(header))
    return () if found is None else tuple(map(int, found[1].split()))


def is_as_told(header: str | None, hexadecimal: str, lengths: Sequence[int]) -> bool | None:
    """Return whether a body with this digest, of parts with these lengths if there are any, is what its header says.

    None where that says nothing, or names digests only that are not known here.
    """
    told = _known_in(header)
    return told == content_digest(hexadecimal, lengths) if told else None


async def is_intact(header: str | None, body: Piece) -> bool:
    """Return whether a body is what its header says, or that says nothing that is known here."""
    lengths = lengths_in(header)
    return is_as_told(header, await offload(len(body), digest_of, body, lengths), lengths) is not False
