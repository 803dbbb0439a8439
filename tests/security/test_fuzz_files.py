"""Hypothesis over what comes from elsewhere as bytes: documents that carry models, traces, configurations, logs.

Whatever the bytes are, they are read or refused with one line; nothing else comes of them. More cases than the suite
has time for: PARITYFL_FUZZ=100000 python -m pytest tests/security/test_fuzz_files.py
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import documents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from network import LAYOUT
from parityfl.config import Config
from parityfl.core.availability.trace import read_recording
from parityfl.core.availability.trace_statistics import trace_statistics
from parityfl.core.errors import DataError, ParityflError, PayloadError
from parityfl.reporting.audit import figures, read_log
from parityfl.wire.header import METADATA_KEY
from parityfl.wire.payload import layout_in, unpack
from parityfl.wire.schemas import EvaluateRequest, TrainReply, TrainRequest

EXAMPLES = int(os.environ.get("PARITYFL_FUZZ", "100"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

numbers = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, 4, 8, 12, 2**48, 1e308])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "U8"]) | values,
        "shape": st.lists(numbers, max_size=3) | st.sampled_from([[2], []]) | values,
        "data_offsets": st.lists(numbers, max_size=3) | st.sampled_from([[0, 8], [8, 12]]) | values,
    }
)
names = st.sampled_from(["model.w", "model.b", "control.w", "control.b", "model", "."]) | st.text(max_size=8)
texts = st.text(max_size=40) | st.sampled_from(["{}", "null"]) | values
metadata = st.fixed_dictionaries({METADATA_KEY: texts}) | values


def attempt(refusal: type[ParityflError], read: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return what was read, or None and the one line with which it was refused."""
    try:
        return read(*arguments), ""
    except refusal as error:
        return None, str(error)


@st.composite
def forged(draw: st.DrawFn) -> bytes:
    """A document with a JSON header that looks right here and there, and any body."""
    header = draw(st.dictionaries(names, entries | values, max_size=5)) | {"__metadata__": draw(metadata)}
    text = json.dumps(header).encode()
    length = draw(st.just(len(text)) | st.integers(0, 2**64 - 1))
    return length.to_bytes(8, "little") + text + draw(st.sampled_from([bytes(12), bytes(24)]) | st.binary(max_size=40))


@fuzz
@given(documents | forged(), st.sampled_from([TrainRequest, TrainReply, EvaluateRequest]))
def test_a_document_is_read_or_refused(data: bytes, schema: Any) -> None:
    found, reason = attempt(PayloadError, unpack, data, schema, LAYOUT, ("model",), ("control",))
    if found is None:
        assert 0 < len(reason) < 500
        assert "\n" not in reason
        return
    message, vectors = found
    assert isinstance(message, schema)
    for vector in vectors.values():
        assert vector.shape == (3,)
        assert vector.dtype == np.float32
        assert np.isfinite(vector).all()


@fuzz
@given(documents | forged())
def test_a_layout_is_found_or_refused(data: bytes) -> None:
    layout, reason = attempt(PayloadError, layout_in, data)
    assert "\n" not in reason
    assert layout is None or len(layout.names) == len(set(layout.names)) > 0


stamps = st.sampled_from(
    ["2020-01-25 10:00:00", "2020-01-25 10:00:01", "2020-01-26 09:00:00", "2020-13-01 00:00:00", "0001-01-01 00:00:00",
     "9999-12-31 23:59:59", "2020-01-25", ""]
)  # fmt: skip
words = st.sampled_from(
    ["battery_charged_on", "battery_charged_off", "wifi", "4G", "screen_on", "screen_off", "87.5%", "2G", "?", ""]
)
lines = st.builds(lambda stamp, gap, word: f"{stamp}{gap}{word}", stamps, st.sampled_from([" \t", "\t", " "]), words)
messages = st.lists(lines | st.text(max_size=20), max_size=8).map("\n".join)
devices = st.fixed_dictionaries({"messages": messages | values}, optional={"guid": values, "model": values})
flash = st.dictionaries(st.sampled_from(["0", "1", "x"]) | st.text(max_size=4), devices | values, max_size=4)
cells = st.sampled_from(["h0", "0", "1.5", "600", "-1", "nan", "inf", "1e400", '"', "", "1,2"]) | st.text(max_size=6)
tables = st.builds(
    lambda head, rows: "\n".join([head, *(",".join(row) for row in rows)]),
    st.sampled_from(["client_id,start_s,end_s", "client_id,start_s", "", "start_s,end_s,client_id"]),
    st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6),
)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    return path


def read_or_refused(path: Path) -> None:
    recording, reason = attempt(DataError, read_recording, str(path))
    if recording is not None:
        trace_statistics(recording)
    else:
        assert path.name in reason
        assert "\n" not in reason


@fuzz
@given(flash.map(json.dumps) | st.binary(max_size=60) | values.map(json.dumps))
def test_a_flash_trace_is_read_or_refused(tmp_path: Path, content: str | bytes) -> None:
    read_or_refused(written(tmp_path, "trace.json", content))


@fuzz
@given(tables | st.binary(max_size=60))
def test_a_table_of_intervals_is_read_or_refused(tmp_path: Path, content: str | bytes) -> None:
    read_or_refused(written(tmp_path, "trace.csv", content))


headers = st.sampled_from(
    ["round,client_id,available,participated", "round,client_id,available,participated,selected,utility_increment",
     "round,client_id", ""]
)  # fmt: skip
logs = st.builds(
    lambda head, rows: "\n".join([head, *(",".join(row) for row in rows)]),
    headers,
    st.lists(st.lists(cells, min_size=2, max_size=6), max_size=6),
)


@fuzz
@given(logs | st.binary(max_size=60))
def test_a_log_is_audited_or_refused(tmp_path: Path, content: str | bytes) -> None:
    path = written(tmp_path, "log.csv", content)
    audited, reason = attempt(ParityflError, lambda log: figures(read_log(log)), path)
    assert path.name in reason if audited is None else audited["num_clients"] >= 0


@fuzz
@given(st.sampled_from(["run.toml", "config.json"]), st.binary(max_size=60) | values.map(json.dumps))
def test_a_configuration_is_read_or_refused(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = written(tmp_path, name, content)
    _, reason = attempt(ParityflError, Config.load, path)
    assert "\n" not in reason


def test_a_header_nested_too_deeply_is_refused() -> None:
    text = b"[" * 30_000 + b"]" * 30_000
    with pytest.raises(PayloadError, match="no JSON"):
        unpack(len(text).to_bytes(8, "little") + text, EvaluateRequest, LAYOUT)
