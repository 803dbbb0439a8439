"""The safetensors documents that carry models: one JSON text in the metadata, named float32 tensors after it.

A document is a header (`parityfl.wire.header`) and the tensors' bytes. The text in the header is the message as JSON.
A vector of d parameters travels as the model's named parameters under a prefix such as ``model.``, in the model's
order: its bytes are those of the flat vector, so that packing and unpacking need no copy and many documents can share
them. The files open with any safetensors library; files that such a library wrote, with their tensors in another order,
are read as well.

Tensors are F32, or BF16 where both sides have agreed on it: they are read as float32 either way. A document may come
compressed, as zstd frames (RFC 8878), which begin with four bytes that no document begins with.

Everything is checked before anything is built: a document comes from somewhere else.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import zstandard
from pydantic import BaseModel, ValidationError

from parityfl.core.arrays import Layout, all_finite
from parityfl.core.errors import ParityflError, PayloadError, UnusableError
from parityfl.core.rounding import Carry, as_it_is
from parityfl.core.types import Vector
from parityfl.wire.digests import EMPTY, content_digest, digest_of, digest_of_parts
from parityfl.wire.header import MAX_HEADER_BYTES, NUMBERS, Buffer, gather, locate, split, tensors_in, write_header
from parityfl.wire.schemas import Compression, Dtype

CHUNK_BYTES = 2**20
ZSTD_LEVEL = 1
"""Higher levels take longer and find nothing more in a model's numbers."""

_MESSAGE_BYTES = 2**16
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Payload:
    """A document in parts, so that many can share the bytes of one model, and the hash of them.

    Attributes:
        parts: the parts in order.
        digests: each one's BLAKE3, in hexadecimal.
    """

    parts: tuple[memoryview, ...] = ()
    digests: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)

    @cached_property
    def digest(self) -> str:
        """The digest of the document, from those of its parts."""
        parts = zip(map(len, self.parts), self.digests, strict=True)
        return digest_of_parts(list(parts)) if self.parts else EMPTY

    @property
    def content_digest(self) -> str:
        """What `parityfl.wire.digests.CONTENT_DIGEST` says of it."""
        return content_digest(self.digest, list(map(len, self.parts)))

    def chunks(self, size: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield the document in pieces of at most `size` bytes, without copying it."""
        for part in self.parts:
            yield from (part[start : start + size] for start in range(0, len(part), size))


class Form(NamedTuple):
    """How vectors are written.

    Attributes:
        dtype: what their numbers are; those that it cannot hold are rounded to the nearest.
        compression: what is done to their bytes, and the rest of the document's; None for nothing.
    """

    dtype: Dtype = "F32"
    compression: Compression | None = None


PLAIN = Form()


@dataclass(frozen=True)
class Packed:
    """A vector as it is written, so that it is rounded, compressed and hashed once for all documents that carry it.

    Attributes:
        form: how.
        size: how many numbers.
        data: the bytes; where `form` is plain, the vector's own.
        digest: their BLAKE3, in hexadecimal; where `form` is plain, `parityfl.wire.digests.model_digest`.
    """

    form: Form
    size: int
    data: memoryview
    digest: str


def pack(vector: Vector, form: Form = PLAIN) -> Packed:
    """Return a vector of shape (d,) as it is written; where `form` is plain its bytes must not change until sent."""
    data = np.ascontiguousarray(vector, dtype=NUMBERS[form.dtype]).view(np.uint8).data
    written = _compressed(data, form)
    return Packed(form, len(vector), written, digest_of(written))


def assemble(document: BaseModel, vectors: Mapping[str, Vector | Packed], layout: Layout) -> Payload:
    """Return a document that refers to the bytes of `vectors`; see `pack`.

    Args:
        document: the message.
        vectors: flat vectors of shape (d,) by their prefix, such as ``model``, all in one form.
        layout: the model's named parameters.

    Raises:
        PayloadError: a vector is not of shape (d,).
    """
    packed = {prefix: v if isinstance(v, Packed) else pack(v) for prefix, v in vectors.items()}
    for prefix, vector in packed.items():
        if vector.size != layout.size:
            raise PayloadError(f"{prefix} has {vector.size} numbers, the model needs {layout.size}")
    (form,) = {vector.form for vector in packed.values()} or {PLAIN}
    header = write_header(document.model_dump_json(), tuple(packed), layout, form.dtype)
    head = _compressed(memoryview(header), form)
    parts, digests = zip((head, digest_of(head)), *((v.data, v.digest) for v in packed.values()), strict=True)
    return Payload(parts, digests)


def _compressed(data: memoryview, form: Form) -> memoryview:
    if form.compression is None:
        return data
    return memoryview(zstandard.ZstdCompressor(ZSTD_LEVEL).compress(data))


@lru_cache
def max_bytes(layout: Layout, vectors: int) -> int:
    """Return how large a document with that many vectors may be."""
    names = sum(len(json.dumps(name)) for name in layout.names) + 128 * len(layout.names)
    return min(MAX_HEADER_BYTES, _MESSAGE_BYTES + vectors * names) + vectors * layout.nbytes


def unpack(
    data: Buffer,
    schema: type[M],
    layout: Layout,
    required: Collection[str] = ("model",),
    optional: Collection[str] = (),
    *,
    finite: bool = True,
    carry: Carry = as_it_is,
) -> tuple[M, dict[str, Vector]]:
    """Return the message and the vectors of a document, by prefix.

    A vector of F32 tensors that lie in the model's order and arrive as they are is a view of `data` if that is not
    compressed, read-only if `data` is.

    Args:
        data: the whole document.
        schema: the message's type.
        layout: the model's named parameters; the document must hold these and nothing else.
        required: prefixes that must be there.
        optional: prefixes that may be there.
        finite: whether all numbers must be finite; where not, the caller looks.
        carry: how numbers arrive, given as they came; it may refuse them with a `PayloadError`.

    Raises:
        PayloadError: anything else than such a document, with the reason.
    """
    limit = max_bytes(layout, len(required) + len(optional))
    document = _expanded(data, limit)
    if len(document) > limit:
        raise PayloadError(f"the document has more than the {limit} bytes that are taken for this model.name")
    try:
        header, body = split(document)
        text, places = locate(header, len(body), layout, required, optional)
    except PayloadError:
        if _is_cut(data):
            reason = f"the document is compressed and breaks off after {len(data)} bytes: send all of it"
            raise PayloadError(reason) from None
        raise
    message = _message(text, schema)
    vectors = {prefix: gather(own, body, layout, carry) for prefix, own in places.items()}
    strange = next((prefix for prefix, vector in vectors.items() if finite and not all_finite(vector)), None)
    if strange is not None:
        raise UnusableError(f"the {strange} holds a number that is not finite")
    return message, vectors


def layout_in(data: Buffer, prefix: str = "model") -> Layout:
    """Return the layout that a document itself describes, for who has none to compare it with yet; then `unpack` it.

    Args:
        data: the whole document, its tensors in the model's order.
        prefix: of its tensors.

    Raises:
        PayloadError: the document names other tensors, or is none.
    """
    header, _ = split(data)
    tensors = tensors_in(header)
    names = [tensor.name for tensor in tensors]
    strange = next((name for name in names if not name.startswith(f"{prefix}.")), None)
    if strange is not None or not names:
        raise PayloadError(f"the document has the tensor {strange!r:.80}: it must hold {prefix}.* and nothing else")
    return Layout(tuple(name.removeprefix(f"{prefix}.") for name in names), tuple(tensor.shape for tensor in tensors))


def _expanded(data: Buffer, limit: int) -> Buffer:
    """Return a document that came compressed, never more of it than one byte beyond `limit`; any other as it is."""
    if not _is_compressed(data):
        return data
    expanded = bytearray()
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as frames:
            while len(expanded) <= limit and (piece := frames.read(min(CHUNK_BYTES, limit + 1 - len(expanded)))):
                expanded += piece
    except zstandard.ZstdError as error:
        raise PayloadError(f"the document is compressed and cannot be expanded: {str(error)[:100]}") from None
    return expanded


def _is_cut(data: Buffer) -> bool:
    """Return whether data that can be expanded are zstd frames of which the last breaks off.

    The reader of `_expanded` does not say so: it takes any end for theirs.
    """
    rest = bytes(data) if _is_compressed(data) else b""
    while rest:
        frame = zstandard.ZstdDecompressor().decompressobj()
        frame.decompress(rest)
        if not frame.eof:
            return True
        rest = frame.unused_data
    return False


def _is_compressed(data: Buffer) -> bool:
    return bytes(data[: len(zstandard.FRAME_HEADER)]) == zstandard.FRAME_HEADER


def _message(text: str, schema: type[M]) -> M:
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise PayloadError(f"the document holds no {schema.__name__}: {where or 'its text'}: {first['msg']}") from None
    except ParityflError as error:
        raise PayloadError(f"the document holds no {schema.__name__}: {error}") from None
