"""What schemathesis is told: how documents look, right ones and wrong ones, and that every error is a problem."""

import sys
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "client"))

from network import LAYOUT, RUN, WEIGHTS, small_config, train_request
from parityfl.wire.digests import model_digest
from parityfl.wire.payload import assemble
from parityfl.wire.schemas import SAFETENSORS, EvaluateRequest

CONFIG = small_config(
    rounds={"clock": "wall", "heartbeat_s": 0.05, "train_timeout_s": 5.0}, security={"max_json_bytes": 2**16}
)
RIGHT = [
    bytes(assemble(train_request(CONFIG, device_id="h0"), {"model": WEIGHTS}, LAYOUT)),
    bytes(assemble(train_request(CONFIG, device_id="h1"), {"model": WEIGHTS, "control": WEIGHTS}, LAYOUT)),
    bytes(
        assemble(
            EvaluateRequest(run_id=RUN, round=1, device_id="h0", model_digest=model_digest(WEIGHTS)),
            {"model": WEIGHTS},
            LAYOUT,
        )
    ),
]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A right document in which up to four stretches of bytes are replaced, some by nothing, some by more."""
    data = bytearray(draw(st.sampled_from(RIGHT)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(start + 40, len(data))))
        data[start:stop] = draw(st.binary(max_size=40))
    return bytes(data)


@st.composite
def rewritten(draw: st.DrawFn) -> bytes:
    """A right document whose header says something else, as text that may still be JSON."""
    data = draw(st.sampled_from(RIGHT))
    stop = 8 + int.from_bytes(data[:8], "little")
    text = data[8:stop].decode()
    words = [
        "F32",
        "F64",
        "model",
        "control",
        "shape",
        "data_offsets",
        "0",
        "12",
        "[2]",
        "null",
        "1e999",
        "{}",
        "round",
    ]
    old, new = draw(st.sampled_from([word for word in words if word in text])), draw(st.sampled_from(words))
    header = text.replace(old, new, draw(st.integers(1, 3))).encode()
    return len(header).to_bytes(8, "little") + header + data[stop:]


documents = st.sampled_from(RIGHT) | changed() | rewritten() | st.binary(max_size=300)

schemathesis.openapi.media_type(SAFETENSORS, documents)


@schemathesis.check
def errors_are_problems(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Require of every error that it is a problem with its status and a reason; what uvicorn answers itself as well."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"], "an error is no problem+json"
        body = response.json()
        assert body["status"] == response.status_code, "a problem has another status than its answer"
        assert body["detail"], "a problem tells no reason"
