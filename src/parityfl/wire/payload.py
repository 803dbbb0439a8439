"""The safetensors documents that carry models: one JSON text in the metadata, named float32 tensors after it.

A document is 8 bytes (the header's length, little-endian), a JSON header, and the tensors' bytes. The header's
``__metadata__`` has one key, `METADATA_KEY`, whose value is the message as JSON. A vector of d parameters travels as
the model's named parameters under a prefix such as ``model.``, in the model's order: its bytes are those of the flat
vector, so that packing and unpacking need no copy and many documents can share them. The files open with any
safetensors library; files that such a library wrote, with their tensors in another order, are read as well.

Tensors are F32, or BF16 where both sides have agreed on it: they are read as float32 either way. A document may come
compressed, as zstd frames (RFC 8878), which begin with four bytes that no document begins with.

Everything is checked before anything is built: a document comes from somewhere else.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, TypeVar, get_args

import numpy as np
import zstandard
from ml_dtypes import bfloat16
from numpy.typing import DTypeLike
from pydantic import BaseModel, ValidationError

from parityfl.core.arrays import Layout, all_finite
from parityfl.core.errors import ParityflError, PayloadError, UnusableError
from parityfl.core.types import Vector
from parityfl.wire.digests import EMPTY, content_digest, digest_of, digest_of_parts
from parityfl.wire.schemas import Compression, Dtype

METADATA_KEY = "parityfl"
MAX_HEADER_BYTES = 4 * 2**20
"""More than any model of a few thousand named parameters needs."""
CHUNK_BYTES = 2**20

NUMBERS: Mapping[Dtype, DTypeLike] = {"F32": np.dtype("<f4"), "BF16": np.dtype(bfloat16)}
"""What the bytes of a tensor are; bfloat16 lies as this machine has it, which is little-endian wherever torch runs."""
ZSTD_LEVEL = 1
"""Higher levels take longer and find nothing more in a model's numbers."""

_LENGTH_BYTES = 8
_ALIGNMENT = 8
_MESSAGE_BYTES = 2**16
_MAX_DIMENSIONS = 16

Buffer = bytes | bytearray | memoryview
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


@dataclass(frozen=True)
class Form:
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
    return Packed(form, len(vector), written, digest_of((written,)))


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
    header = _header(document.model_dump_json(), list(packed), layout, form.dtype)
    head = _compressed(memoryview(header), form)
    parts, digests = zip((head, digest_of((head,))), *((v.data, v.digest) for v in packed.values()), strict=True)
    return Payload(parts, digests)


def _compressed(data: memoryview, form: Form) -> memoryview:
    if form.compression is None:
        return data
    return memoryview(zstandard.ZstdCompressor(ZSTD_LEVEL).compress(data))


def max_bytes(layout: Layout, vectors: int) -> int:
    """Return how large a document with that many vectors may be."""
    names = sum(len(json.dumps(name)) for name in layout.names) + 128 * len(layout.names)
    return min(MAX_HEADER_BYTES, _MESSAGE_BYTES + vectors * names) + vectors * 4 * layout.size


def unpack(
    data: Buffer,
    schema: type[M],
    layout: Layout,
    required: Collection[str] = ("model",),
    optional: Collection[str] = (),
    *,
    finite: bool = True,
) -> tuple[M, dict[str, Vector]]:
    """Return the message and the vectors of a document, by prefix.

    A vector of F32 tensors that lie in the model's order is a view of `data` if that is not compressed, read-only if
    `data` is.

    Args:
        data: the whole document.
        schema: the message's type.
        layout: the model's named parameters; the document must hold these and nothing else.
        required: prefixes that must be there.
        optional: prefixes that may be there.
        finite: whether all numbers must be finite; where not, the caller looks.

    Raises:
        PayloadError: anything else than such a document, with the reason.
    """
    limit = max_bytes(layout, len(required) + len(optional))
    data = _expanded(data, limit)
    if len(data) > limit:
        raise PayloadError(f"the document has {len(data)} bytes, at most {limit} are taken for this model")
    header, body = _split(data)
    text = _metadata(header)
    tensors = {name: _Tensor.read(name, entry) for name, entry in header.items()}
    prefixes = _prefixes(tensors, layout, required, optional)
    _check_spans(tensors.values(), len(body))
    message = _message(text, schema)
    vectors = {prefix: _vector(prefix, tensors, body, layout) for prefix in prefixes}
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
    header, _ = _split(data)
    _metadata(header)
    tensors = sorted((_Tensor.read(name, entry) for name, entry in header.items()), key=lambda t: (t.start, t.stop))
    names = [tensor.name for tensor in tensors]
    strange = next((name for name in names if not name.startswith(f"{prefix}.")), None)
    if strange is not None or not names:
        raise PayloadError(f"the document has the tensor {strange!r:.80}: it must hold {prefix}.* and nothing else")
    return Layout(tuple(name.removeprefix(f"{prefix}.") for name in names), tuple(tensor.shape for tensor in tensors))


def _header(text: str, prefixes: list[str], layout: Layout, dtype: Dtype) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {METADATA_KEY: text}}
    width = _width(dtype)
    for number, prefix in enumerate(prefixes):
        base = width * layout.size * number
        for name, shape, (start, stop) in zip(layout.names, layout.shapes, pairwise(layout.offsets), strict=True):
            offsets = [base + width * start, base + width * stop]
            entries[f"{prefix}.{name}"] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
    encoded = json.dumps(entries, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded


def _width(dtype: Dtype) -> int:
    """Return how many bytes a number has."""
    return np.dtype(NUMBERS[dtype]).itemsize


def _expanded(data: Buffer, limit: int) -> Buffer:
    """Return a document that came compressed, never more of it than one byte beyond `limit`; any other as it is."""
    if bytes(data[: len(zstandard.FRAME_HEADER)]) != zstandard.FRAME_HEADER:
        return data
    expanded = bytearray()
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as frames:
            while len(expanded) <= limit and (piece := frames.read(min(CHUNK_BYTES, limit + 1 - len(expanded)))):
                expanded += piece
    except zstandard.ZstdError as error:
        raise PayloadError(f"the document is compressed and cannot be expanded: {_line(error)}") from None
    return expanded


def _split(data: Buffer) -> tuple[dict[str, Any], memoryview]:
    """Return the header and the tensors' bytes."""
    view = memoryview(data)
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    if len(view) < _LENGTH_BYTES or length > min(len(view) - _LENGTH_BYTES, MAX_HEADER_BYTES):
        raise PayloadError("this is no safetensors document: its header is longer than it, or than any model needs")
    try:
        text = str(view[_LENGTH_BYTES : _LENGTH_BYTES + length], "utf-8")
        header = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"this is no safetensors document: its header is no JSON ({_line(error)})") from None
    if not isinstance(header, dict):
        raise PayloadError("this is no safetensors document: its header is no JSON object")
    return header, view[_LENGTH_BYTES + length :]


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _metadata(header: dict[str, Any]) -> str:
    """Take the metadata out of the header and return its one text."""
    metadata = header.pop("__metadata__", None)
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str) or len(metadata) != 1:
        raise PayloadError(f"the document's __metadata__ must hold one text under the key {METADATA_KEY!r}")
    return text


def _message(text: str, schema: type[M]) -> M:
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise PayloadError(f"the document holds no {schema.__name__}: {where or 'its text'}: {first['msg']}") from None
    except ParityflError as error:
        raise PayloadError(f"the document holds no {schema.__name__}: {error}") from None


@dataclass(frozen=True)
class _Tensor:
    """Where one tensor lies in the body: bytes `start` to `stop`."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @staticmethod
    def read(name: str, entry: Any) -> "_Tensor":
        """Check an entry of the header by itself."""
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise PayloadError(f"tensor {name!r:.80} needs dtype, shape and data_offsets, and nothing else")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in get_args(Dtype):
            raise PayloadError(f"tensor {name!r:.80} has dtype {dtype!r:.20}: only F32 and BF16 are taken")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise PayloadError(f"tensor {name!r:.80} has a shape or offsets that are no numbers from 0")
        if offsets[1] - offsets[0] != _width(dtype) * prod(shape):
            raise PayloadError(f"tensor {name!r:.80} does not have as many bytes as its shape needs")
        return _Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])

    def read_from(self, body: memoryview) -> Vector:
        """Return its numbers as float32, flat; a view where they are that already."""
        return np.frombuffer(body[self.start : self.stop], dtype=NUMBERS[self.dtype]).astype(np.float32, copy=False)


def _are_sizes(value: Any) -> bool:
    short = isinstance(value, list) and len(value) <= _MAX_DIMENSIONS
    return short and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _prefixes(
    tensors: Mapping[str, _Tensor], layout: Layout, required: Collection[str], optional: Collection[str]
) -> list[str]:
    """Return the prefixes that are there, once all names and shapes are found to be right."""
    present = {name.partition(".")[0] for name in tensors}
    prefixes = [prefix for prefix in (*required, *optional) if prefix in required or prefix in present]
    expected = {f"{p}.{name}": shape for p in prefixes for name, shape in zip(layout.names, layout.shapes, strict=True)}
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        kind, name = ("lacks", missing[0]) if missing else ("has an unknown", unknown[0])
        raise PayloadError(f"the document {kind} tensor {name!r:.80}: both sides must use the same model")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise PayloadError(f"tensor {name!r} has shape {tensors[name].shape}, the model needs {shape}")
    return prefixes


def _check_spans(tensors: Collection[_Tensor], size: int) -> None:
    """Require that the tensors cover the body from its beginning to its end, each byte once."""
    spans = sorted((tensor.start, tensor.stop) for tensor in tensors)
    edges = [0, *(edge for span in spans for edge in span), size]
    if edges[0::2] != edges[1::2]:
        raise PayloadError(f"the tensors do not cover the document's {size} bytes exactly once: it is cut or altered")


def _vector(prefix: str, tensors: Mapping[str, _Tensor], body: memoryview, layout: Layout) -> Vector:
    own = [tensors[f"{prefix}.{name}"] for name in layout.names]
    return _contiguous(own, body) if _in_order(own) else _gathered(own, body, layout)


def _in_order(tensors: list[_Tensor]) -> bool:
    return all(before.stop == after.start and before.dtype == after.dtype for before, after in pairwise(tensors))


def _contiguous(tensors: list[_Tensor], body: memoryview) -> Vector:
    if not tensors:
        return np.empty(0, dtype=np.float32)
    return replace(tensors[0], stop=tensors[-1].stop).read_from(body)


def _gathered(tensors: list[_Tensor], body: memoryview, layout: Layout) -> Vector:
    arrays = (tensor.read_from(body).reshape(tensor.shape) for tensor in tensors)
    return layout.flatten(dict(zip(layout.names, arrays, strict=True)))


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:100]
