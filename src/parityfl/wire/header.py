"""The header of a safetensors document: one text in its metadata, and where each named tensor lies after it.

A document is 8 bytes (the header's length, little-endian), a JSON header, and the tensors' bytes. What the header says
of the tensors is the same in all documents that carry vectors of one model under the same prefixes, so it is written
once, and a document that says the same to the letter needs no further reading: at the 62 tensors of a ResNet-18 this
takes less than a tenth of the time. All others are read entry by entry.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple, get_args

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import DTypeLike

from parityfl.core.arrays import Layout
from parityfl.core.errors import PayloadError, first_line
from parityfl.core.rounding import Carry
from parityfl.core.types import Vector
from parityfl.wire.schemas import Dtype

METADATA_KEY = "parityfl"
MAX_HEADER_BYTES = 4 * 2**20
"""More than any model of a few thousand named parameters needs."""

NUMBERS: Mapping[Dtype, DTypeLike] = {"F32": np.dtype("<f4"), "BF16": np.dtype(bfloat16)}
"""What the bytes of a tensor are; bfloat16 lies as this machine has it, which is little-endian wherever torch runs."""

Buffer = bytes | bytearray | memoryview
Prefixes = tuple[str, ...]

_METADATA = f'{{"__metadata__":{{"{METADATA_KEY}":'.encode()
"""What the text follows in a header that is written here."""
_LENGTH_BYTES = 8
_ALIGNMENT = 8
_MAX_DIMENSIONS = 16
_MODELS = 16
"""Of how many models, each with its prefixes and type, the entries are kept."""


class Tensor(NamedTuple):
    """Where one tensor lies in the body: bytes `start` to `stop`."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @staticmethod
    def read(name: str, entry: Any) -> "Tensor":
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
        return Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])

    def read_from(self, body: memoryview, carry: Carry) -> Vector:
        """Return its numbers, flat, as `carry` makes them arrive."""
        return carry(np.frombuffer(body[self.start : self.stop], dtype=NUMBERS[self.dtype]))


Places = Mapping[str, Sequence[Tensor]]
"""By prefix, the tensors whose numbers make up a vector, in the model's order; one may hold several parameters."""


def write_header(text: str, prefixes: Prefixes, layout: Layout, dtype: Dtype) -> bytes:
    """Return a header, its length included, whose metadata holds `text`."""
    encoded = _METADATA + json.dumps(text).encode() + _entries(prefixes, layout, dtype)
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded


def split(data: Buffer) -> tuple[bytes, memoryview]:
    """Return the header of a document, without its length, and the tensors' bytes."""
    view = memoryview(data)
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    if not view:
        raise PayloadError("this is no safetensors document: it is empty, and must hold the model's tensors")
    if len(view) < _LENGTH_BYTES or length > min(len(view) - _LENGTH_BYTES, MAX_HEADER_BYTES):
        raise PayloadError(
            f"this is no safetensors document: it begins with {bytes(view[:_LENGTH_BYTES])!r}, which should be the "
            f"length of a header that lies in its {len(view)} bytes and has at most {MAX_HEADER_BYTES}"
        )
    return bytes(view[_LENGTH_BYTES : _LENGTH_BYTES + length]), view[_LENGTH_BYTES + length :]


def locate(
    header: bytes, size: int, layout: Layout, required: Collection[str], optional: Collection[str]
) -> tuple[str, Places]:
    """Return the text in a header, and where the vectors of a model lie in the body, once all of it is right.

    Args:
        header: the header; see `split`.
        size: bytes of the body.
        layout: the model's named parameters; there must be these and nothing else.
        required: prefixes that must be there.
        optional: prefixes that may be there.

    Raises:
        PayloadError: the header is not like that.
    """
    known = _locate_as_written_here(header, size, layout, [tuple(required), (*required, *optional)])
    if known is not None:
        return known
    fields = _fields(header)
    text = _take_text(fields)
    tensors = {name: Tensor.read(name, entry) for name, entry in fields.items()}
    prefixes = _prefixes(tensors, layout, required, optional)
    _check_spans(tensors.values(), size)
    return text, {prefix: [tensors[f"{prefix}.{name}"] for name in layout.names] for prefix in prefixes}


def tensors_in(header: bytes) -> list[Tensor]:
    """Return the tensors that a header names, whatever they are, as they follow one another in the body."""
    fields = _fields(header)
    _take_text(fields)
    found = (Tensor.read(name, entry) for name, entry in fields.items())
    return sorted(found, key=lambda tensor: (tensor.start, tensor.stop))


def gather(places: Sequence[Tensor], body: memoryview, layout: Layout, carry: Carry) -> Vector:
    """Return the vector that lies in these places; where they follow one another, all of it is carried at once."""
    if not places:
        return np.empty(0, dtype=np.float32)
    if len(places) == 1:
        return places[0].read_from(body, carry)
    if all(before.stop == after.start and before.dtype == after.dtype for before, after in pairwise(places)):
        return places[0]._replace(stop=places[-1].stop).read_from(body, carry)
    arrays = (tensor.read_from(body, carry).reshape(tensor.shape) for tensor in places)
    return layout.flatten(dict(zip(layout.names, arrays, strict=True)))


def _width(dtype: Dtype) -> int:
    """Return how many bytes a number has."""
    return np.dtype(NUMBERS[dtype]).itemsize


@lru_cache(maxsize=_MODELS)
def _entries(prefixes: Prefixes, layout: Layout, dtype: Dtype) -> bytes:
    """Return what follows the text in a header, to the closing brace."""
    entries: dict[str, Any] = {}
    width = _width(dtype)
    for number, prefix in enumerate(prefixes):
        base = width * layout.size * number
        for name, shape, (start, stop) in zip(layout.names, layout.shapes, pairwise(layout.offsets), strict=True):
            offsets = [base + width * start, base + width * stop]
            entries[f"{prefix}.{name}"] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
    return ("}" + "," * bool(entries) + json.dumps(entries, separators=(",", ":"))[1:]).encode()


def _locate_as_written_here(
    header: bytes, size: int, layout: Layout, choices: Sequence[Prefixes]
) -> tuple[str, Places] | None:
    """Return what `locate` does for a header that `write_header` could have written; None for any other."""
    stripped = header.rstrip(b" ")
    if not stripped.startswith(_METADATA):
        return None
    for prefixes in choices:
        for dtype in NUMBERS:
            each = _width(dtype) * layout.size
            if size != each * len(prefixes) or not stripped.endswith(entries := _entries(prefixes, layout, dtype)):
                continue
            text = _text(stripped[len(_METADATA) : -len(entries)])
            if text is not None:
                return text, {p: [Tensor(p, dtype, (), each * n, each * (n + 1))] for n, p in enumerate(prefixes)}
    return None


def _text(encoded: bytes) -> str | None:
    """Return the text that a JSON string holds; None if this is anything else, or more."""
    try:
        text = json.loads(str(encoded, "utf-8"))
    except (ValueError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def _fields(header: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(str(header, "utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"this is no safetensors document: its header is no JSON ({first_line(error)})") from None
    if not isinstance(fields, dict):
        raise PayloadError("this is no safetensors document: its header is no JSON object")
    return fields


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _take_text(fields: dict[str, Any]) -> str:
    """Take the metadata out of the header's fields and return its one text."""
    metadata = fields.pop("__metadata__", None)
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str) or len(metadata) != 1:
        raise PayloadError(f"the document's __metadata__ must hold one text under the key {METADATA_KEY!r}")
    return text


def _are_sizes(value: Any) -> bool:
    short = isinstance(value, list) and len(value) <= _MAX_DIMENSIONS
    return short and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _prefixes(
    tensors: Mapping[str, Tensor], layout: Layout, required: Collection[str], optional: Collection[str]
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


def _check_spans(tensors: Collection[Tensor], size: int) -> None:
    """Require that the tensors cover the body from its beginning to its end, each byte once."""
    spans = sorted((tensor.start, tensor.stop) for tensor in tensors)
    edges = [0, *(edge for span in spans for edge in span), size]
    if edges[0::2] != edges[1::2]:
        raise PayloadError(f"the tensors do not cover the document's {size} bytes exactly once: it is cut or altered")
