"""BLAKE3 of bodies, with the header that carries it, and of models.

The header has the syntax of RFC 9530, whose registry does not list BLAKE3: it hashes a model several times faster than
SHA-256, and every model is hashed at both ends of every way that it goes.
"""

from base64 import b64encode
from collections.abc import Sequence

import numpy as np
from blake3 import blake3

from parityfl.core.types import Vector
from parityfl.wire.aside import aside

CONTENT_DIGEST = "Content-Digest"
"""Says what a body should be: whoever reads it notices a bit that was flipped on the way. It proves nothing."""

EMPTY = blake3().hexdigest()
"""The digest of no body."""

SHARED_BYTES = 2**22
"""What is worth being hashed on all cores at once."""


def digest_of(parts: Sequence[bytes | bytearray | memoryview]) -> str:
    """Return the digest of a body in pieces; the interpreter is free while large pieces are hashed."""
    state = blake3(max_threads=blake3.AUTO if sum(map(len, parts)) >= SHARED_BYTES else 1)
    for part in parts:
        state.update(part)
    return state.hexdigest()


async def digest(*parts: bytes | bytearray | memoryview) -> str:
    """Return the digest of a body in pieces, off the event loop where it takes a while."""
    return await aside(sum(map(len, parts)), digest_of, parts)


def model_digest(vector: Vector) -> str:
    """Return the digest of a model's parameters in order, as little-endian float32: what tells models apart here."""
    return digest_of((np.ascontiguousarray(vector, dtype="<f4").view(np.uint8).data,))


def content_digest(hexadecimal: str) -> str:
    """Return the value of `CONTENT_DIGEST` for a digest."""
    return f"blake3=:{b64encode(bytes.fromhex(hexadecimal)).decode('ascii')}:"


def is_known(header: str | None) -> bool:
    """Return whether a header says what a body should be, by the digest that is known here."""
    return header is not None and header.startswith("blake3=")


def agrees(header: str | None, hexadecimal: str) -> bool:
    """Return whether a body with this digest is what its header says, or it says nothing that is known here."""
    return not is_known(header) or header == content_digest(hexadecimal)


async def is_intact(header: str | None, body: bytes | bytearray) -> bool:
    """Return whether a body is what its header says; see `agrees`."""
    return agrees(header, await digest(body))
