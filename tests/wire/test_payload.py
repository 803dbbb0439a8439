import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ml_dtypes import bfloat16
from safetensors import numpy as safetensors
from safetensors.torch import load as load_torch
from zstandard import ZstdCompressor

from parityfl.core.arrays import Layout
from parityfl.core.errors import PayloadError
from parityfl.core.rounding import to_bfloat16
from parityfl.core.types import Vector
from parityfl.wire.digests import model_digest
from parityfl.wire.header import METADATA_KEY, locate, split
from parityfl.wire.payload import Form, assemble, max_bytes, pack, unpack
from parityfl.wire.schemas import EvaluateRequest

LAYOUT = Layout(("dense.weight", "dense.bias", "scale"), ((3, 2), (2,), ()))
WEIGHTS = np.arange(9, dtype=np.float32)
REQUEST = EvaluateRequest(run_id="r", round=1, model_digest=model_digest(WEIGHTS))

forms = st.builds(Form, st.sampled_from(["F32", "BF16"]), st.sampled_from([None, "zstd"]))
shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
layouts = st.lists(st.tuples(st.text(min_size=1, max_size=8), shapes), min_size=1, max_size=5, unique_by=lambda p: p[0])


def finite(size: int) -> st.SearchStrategy[Vector]:
    return hnp.arrays(np.float32, size, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def read(data: bytes) -> tuple[EvaluateRequest, dict[str, Vector]]:
    return unpack(data, EvaluateRequest, LAYOUT, ("model",), ("control",))


def alter_and_read(document: bytes, data: st.DataObject) -> None:
    """Change some bytes of a document; it must be refused, or read as finite numbers."""
    altered = bytearray(document)
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    try:
        _, vectors = read(bytes(altered))
    except PayloadError:
        return
    assert np.all(np.isfinite(vectors["model"]))


def forge(change: Any, body: bytes = WEIGHTS.tobytes()) -> bytes:
    """Return a document whose header `change` has altered: a function on the header, or the header itself as text."""
    packed = bytes(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT))
    header = json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])
    text = change if isinstance(change, bytes) else json.dumps(change(header) or header).encode()
    return len(text).to_bytes(8, "little") + text + body


@given(layouts, st.booleans(), st.data())
def test_what_was_packed_is_unpacked(named: Any, with_control: bool, data: st.DataObject) -> None:
    layout = Layout(tuple(name for name, _ in named), tuple(shape for _, shape in named))
    vectors = {"model": data.draw(finite(layout.size))}
    if with_control:
        vectors["control"] = data.draw(finite(layout.size))
    packed = bytes(assemble(REQUEST, vectors, layout))
    assert len(packed) <= max_bytes(layout, len(vectors))
    document, unpacked = unpack(packed, EvaluateRequest, layout, ("model",), ("control",))
    assert document == REQUEST
    assert unpacked.keys() == vectors.keys()
    for prefix, vector in vectors.items():
        np.testing.assert_array_equal(unpacked[prefix], vector)


@given(layouts, st.booleans(), st.data())
def test_a_header_that_says_the_same_otherwise_is_read_alike(named: Any, spaced: bool, data: st.DataObject) -> None:
    """What `assemble` writes is compared to the letter, all else is read entry by entry."""
    layout = Layout(tuple(name for name, _ in named), tuple(shape for _, shape in named))
    vector = data.draw(finite(layout.size))
    packed = bytes(assemble(REQUEST, {"model": vector}, layout))
    length = int.from_bytes(packed[:8], "little")
    fields = data.draw(st.permutations(list(json.loads(packed[8 : 8 + length]).items())))
    text = json.dumps(dict(fields), separators=(", ", ": ") if spaced else (",", ":")).encode()
    document, unpacked = unpack(
        len(text).to_bytes(8, "little") + text + packed[8 + length :], EvaluateRequest, layout, ("model",), ("control",)
    )
    assert document == REQUEST
    np.testing.assert_array_equal(unpacked["model"], vector)


def test_what_is_written_here_is_not_read_entry_by_entry() -> None:
    """Then a vector is one place, whatever the number of its parameters."""
    written = bytes(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT))
    header, body = split(written)
    _, places = locate(header, len(body), LAYOUT, ("model",), ("control",))
    assert len(LAYOUT.names) > len(places["model"]) == 1


@pytest.mark.parametrize("before", [b'{"__metadata__":{"parityfl":"{}', b"{", b'{"x":{"y":1', b'{"a":1', b""])
def test_entries_that_follow_something_else_are_no_header(before: bytes) -> None:
    """The entries are those of the model to the letter, but what precedes them makes them something else."""
    written = bytes(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT))
    entries = written[written.index(b',"model.') : 8 + int.from_bytes(written[:8], "little")]
    with pytest.raises(PayloadError):
        read(forge(before + entries))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PayloadError):
        read(data)


def test_the_pieces_share_the_bytes_of_the_model() -> None:
    first, second = (assemble(REQUEST, {"model": WEIGHTS}, LAYOUT) for _ in range(2))
    assert np.shares_memory(np.asarray(first.parts[1]), WEIGHTS)
    assert np.shares_memory(np.asarray(first.parts[1]), np.asarray(second.parts[1]))
    assert (
        bytes(first)
        == b"".join(bytes(chunk) for chunk in first.chunks(7))
        == bytes(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT))
    )
    assert len(first) == len(bytes(first))


def test_unpacking_copies_nothing() -> None:
    packed = bytearray(bytes(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT)))
    _, vectors = unpack(packed, EvaluateRequest, LAYOUT)
    assert np.shares_memory(vectors["model"], np.frombuffer(packed, dtype=np.uint8))


def test_the_safetensors_library_reads_ours() -> None:
    tensors = safetensors.load(bytes(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT)))
    np.testing.assert_array_equal(tensors["model.dense.weight"], [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(tensors["model.dense.bias"], [6, 7])
    assert tensors["model.scale"] == 8


def test_ours_reads_the_safetensors_library_which_sorts_by_name() -> None:
    named = {f"model.{name}": view for name, view in LAYOUT.views(WEIGHTS).items()}
    data = safetensors.save(named, {METADATA_KEY: REQUEST.model_dump_json()})
    assert data.index(b"dense.bias") < data.index(b"dense.weight")
    document, vectors = read(data)
    assert document == REQUEST
    np.testing.assert_array_equal(vectors["model"], WEIGHTS)


def set_in(name: str, **values: Any) -> Any:
    return lambda header: header[f"model.{name}"].update(values)


def add(name: str, entry: Any) -> Any:
    return lambda header: header.update({name: entry})


SCALE = {"dtype": "F32", "shape": [], "data_offsets": [32, 36]}

FORGERIES = {
    "no JSON": (b"{", "no JSON"),
    "no object": (b"[]", "no JSON object"),
    "no UTF-8": (b'{"\xff": 1}', "no JSON"),
    "nested too deep": (b"[" * 50_000, "no JSON"),
    "a name twice": (b'{"a": 1, "a": 1}', "twice"),
    "a number too long": (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
    "no metadata": (lambda h: h.pop("__metadata__") and None, "__metadata__"),
    "metadata is a text": (add("__metadata__", "x"), "__metadata__"),
    "two metadata keys": (add("__metadata__", {METADATA_KEY: "{}", "other": ""}), "__metadata__"),
    "metadata is no text": (add("__metadata__", {METADATA_KEY: {}}), "__metadata__"),
    "message is no JSON": (add("__metadata__", {METADATA_KEY: "{"}), "no EvaluateRequest"),
    "message has a lone surrogate": (add("__metadata__", {METADATA_KEY: "\ud800"}), "no EvaluateRequest"),
    "message lacks fields": (add("__metadata__", {METADATA_KEY: "{}"}), "run_id"),
    "message has more fields": (
        add("__metadata__", {METADATA_KEY: json.dumps({**REQUEST.model_dump(), "x": 1})}),
        "x",
    ),
    "an unknown tensor": (add("model.other", SCALE), "unknown"),
    "a tensor of another prefix": (add("other.scale", SCALE), "unknown"),
    "a tensor without prefix": (add("scale", SCALE), "unknown"),
    "a control that is incomplete": (add("control.scale", SCALE), "lacks"),
    "a name with a lone surrogate": (add("\ud800", SCALE), "unknown"),
    "a missing tensor": (lambda h: h.pop("model.scale") and None, "lacks"),
    "another dtype": (set_in("scale", dtype="F64"), "F64"),
    "a dtype that is a list": (set_in("scale", dtype=[1] * 99), "dtype"),
    "another shape": (set_in("dense.weight", shape=[2, 3]), "shape"),
    "a shape with a truth value": (set_in("scale", shape=[True]), "numbers from 0"),
    "a shape with a float": (set_in("scale", shape=[1.0]), "numbers from 0"),
    "a shape below 0": (set_in("dense.bias", shape=[-2]), "numbers from 0"),
    "a shape of many dimensions": (set_in("scale", shape=[2**47] * 1000), "numbers from 0"),
    "an enormous shape": (set_in("scale", shape=[2**47] * 8), "bytes"),
    "an entry that is no object": (add("model.scale", []), "nothing else"),
    "an entry with more keys": (set_in("scale", stride=[1]), "nothing else"),
    "offsets that overlap": (set_in("scale", data_offsets=[28, 32]), "exactly once"),
    "offsets with a hole": (set_in("scale", data_offsets=[36, 40]), "exactly once"),
    "offsets backwards": (set_in("scale", data_offsets=[36, 32]), "bytes"),
    "three offsets": (set_in("scale", data_offsets=[32, 34, 36]), "numbers from 0"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_header_is_refused_with_the_reason(name: str) -> None:
    change, reason = FORGERIES[name]
    with pytest.raises(PayloadError, match=reason):
        read(forge(change))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    weights = WEIGHTS.copy()
    weights[4] = value
    with pytest.raises(PayloadError, match="not finite"):
        read(bytes(assemble(REQUEST, {"model": weights}, LAYOUT)))


def test_bytes_after_the_tensors_are_refused() -> None:
    with pytest.raises(PayloadError, match="exactly once"):
        read(bytes(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT)) + b"\0\0\0\0")


def test_a_document_beyond_the_limit_is_refused_unread() -> None:
    limit = max_bytes(LAYOUT, 2)
    with pytest.raises(PayloadError, match=f"more than the {limit} bytes"):
        read(bytes(limit + 1))


def test_a_header_longer_than_the_document_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"x00@', .* header .* lies in its 10 bytes"):
        read((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(PayloadError, match="empty"):
        read(b"")


def test_a_vector_of_another_size_is_not_packed() -> None:
    with pytest.raises(PayloadError, match="8 numbers, the model needs 9"):
        bytes(assemble(REQUEST, {"model": WEIGHTS[:8]}, LAYOUT))


def test_control_is_read_only_where_it_may_be_there() -> None:
    packed = bytes(assemble(REQUEST, {"model": WEIGHTS, "control": WEIGHTS}, LAYOUT))
    assert set(read(packed)[1]) == {"model", "control"}
    with pytest.raises(PayloadError):
        unpack(packed, EvaluateRequest, LAYOUT)
    with pytest.raises(PayloadError, match="lacks"):
        unpack(bytes(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT)), EvaluateRequest, LAYOUT, ("model", "control"))


@given(layouts, st.sampled_from([Form("BF16"), Form("F32", "zstd"), Form("BF16", "zstd")]), st.data())
def test_what_was_packed_in_another_form_is_unpacked(named: Any, form: Form, data: st.DataObject) -> None:
    layout = Layout(tuple(name for name, _ in named), tuple(shape for _, shape in named))
    small = st.floats(-(2.0**100), 2.0**100, width=32)
    vector = data.draw(hnp.arrays(np.float32, layout.size, elements=small))
    packed = bytes(assemble(REQUEST, {"model": pack(vector, form), "control": pack(-vector, form)}, layout))
    assert len(packed) <= max_bytes(layout, 2)
    document, unpacked = unpack(packed, EvaluateRequest, layout, ("model",), ("control",))
    assert document == REQUEST
    arrives = to_bfloat16(vector) if form.dtype == "BF16" else vector
    np.testing.assert_array_equal(unpacked["model"], arrives)
    np.testing.assert_array_equal(unpacked["control"], -arrives)


@given(forms, st.data())
def test_altered_bytes_of_any_form_are_refused_or_read(form: Form, data: st.DataObject) -> None:
    alter_and_read(bytes(assemble(REQUEST, {"model": pack(WEIGHTS, form)}, LAYOUT)), data)


@given(forms, st.integers(0, 600))
def test_a_cut_document_of_any_form_is_refused(form: Form, length: int) -> None:
    packed = bytes(assemble(REQUEST, {"model": pack(WEIGHTS, form)}, LAYOUT))
    with pytest.raises(PayloadError):
        read(packed[: min(length, len(packed) - 1)])


def test_a_compressed_document_that_breaks_off_is_told_so() -> None:
    """In its first frame, or in the second."""
    document = bytes(assemble(REQUEST, {"model": np.random.default_rng(0).random(9, dtype=np.float32)}, LAYOUT))
    head, rest = (ZstdCompressor(write_content_size=False).compress(part) for part in (document[:100], document[100:]))
    whole = head + rest
    assert read(whole)[0] == REQUEST
    for length in {*range(20, len(whole))} - {len(head)}:
        with pytest.raises(PayloadError, match=f"breaks off after {length} bytes|cannot be expanded"):
            read(whole[:length])


def test_bfloat16_opens_with_the_library() -> None:
    packed = bytes(assemble(REQUEST, {"model": pack(WEIGHTS, Form("BF16"))}, LAYOUT))
    assert len(packed) < len(assemble(REQUEST, {"model": WEIGHTS}, LAYOUT))
    weight = load_torch(packed)["model.dense.weight"]
    assert weight.dtype == torch.bfloat16
    np.testing.assert_array_equal(weight.float().numpy(), WEIGHTS[:6].reshape(3, 2))


def test_tensors_of_different_types_are_read_together() -> None:
    written = safetensors.save(
        {
            "model.dense.weight": WEIGHTS[:6].reshape(3, 2).astype(bfloat16),
            "model.dense.bias": WEIGHTS[6:8],
            "model.scale": WEIGHTS[8:].reshape(()),
        },
        {METADATA_KEY: REQUEST.model_dump_json()},
    )
    np.testing.assert_array_equal(read(written)[1]["model"], WEIGHTS)


def test_a_number_that_bfloat16_cannot_hold_is_not_finite() -> None:
    huge = np.full(9, 3.4e38, dtype=np.float32)
    with pytest.raises(PayloadError, match="not finite"):
        read(bytes(assemble(REQUEST, {"model": pack(huge, Form("BF16"))}, LAYOUT)))


def test_what_expands_beyond_the_limit_is_refused_without_being_expanded() -> None:
    limit = max_bytes(LAYOUT, 2)
    bomb = ZstdCompressor().compress(bytes(1000 * limit))
    assert len(bomb) < limit
    with pytest.raises(PayloadError, match=f"more than the {limit} bytes"):
        read(bomb)
