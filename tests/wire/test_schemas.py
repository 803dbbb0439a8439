import json
from math import isnan, nan
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from parityfl.config import Config
from parityfl.wire import schemas
from parityfl.wire.schemas import DeviceReport, EvaluateReply, Message, Registration, TrainReply, TrainRequest

HASH = "0" * 64
REPLY = {
    "device_id": "h0",
    "round": 1,
    "num_samples": 3,
    "train_loss": 0.5,
    "loss_before": None,
    "loss_after": None,
    "model_digest": HASH,
    "train_s": 0.1,
}


def messages() -> list[type[Message]]:
    named = vars(schemas).values()
    return [m for m in named if isinstance(m, type) and issubclass(m, Message) and m is not Message]


def train_request(config: Config) -> TrainRequest:
    return TrainRequest(
        run_id="r",
        round=1,
        time_s=0,
        seed=config.seed,
        model=config.model.name,
        model_digest=HASH,
        training=config.training,
        objective=config.objective,
    )


def test_nan_is_null_on_the_wire_and_back() -> None:
    reply = TrainReply.model_validate_json(json.dumps(REPLY))
    assert isnan(reply.loss_before)
    assert isnan(reply.personal_accuracy)
    for sent in (reply.model_dump(mode="json"), json.loads(reply.model_dump_json())):
        assert sent["loss_before"] is None
        assert sent["train_loss"] == 0.5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train_loss", "Infinity"),
        ("train_loss", '"0.5"'),
        ("round", "-1"),
        ("round", "1.5"),
        ("num_samples", "true"),
        ("num_samples", "1" + "0" * 400),
        ("personal_accuracy", "1.5"),
        ("personal_accuracy", "-0.1"),
        ("model_digest", '"abc"'),
        ("device_id", '"a b"'),
        ("device_id", '"h0\\n"'),
        ("train_s", "null"),
        ("unheard_of", "1"),
    ],
)
def test_what_is_not_right_is_refused(field: str, value: str) -> None:
    text = json.dumps({**REPLY, field: "@"}).replace('"@"', value)
    with pytest.raises(ValidationError):
        TrainReply.model_validate_json(text)


EVALUATION = {"device_id": "h0", "round": 1, "loss": 0.5, "accuracy": 0.5, "num_samples": 5}
LOSSES = [
    (TrainReply, REPLY, "train_loss"),
    (TrainReply, REPLY, "loss_before"),
    (TrainReply, REPLY, "loss_after"),
    (EvaluateReply, EVALUATION, "loss"),
]


@pytest.mark.parametrize(("message", "usual", "field"), LOSSES, ids=[f"{m.__name__}.{f}" for m, _, f in LOSSES])
def test_a_loss_is_unknown_or_one_that_can_be_added_up(message: Any, usual: dict[str, Any], field: str) -> None:
    """A mean cross-entropy is never below 0, and that of 1e12 nats is of a model that has diverged."""
    for value in (0, 0.0, -0.0, 1e12, 1e-300):
        assert getattr(message.model_validate_json(json.dumps({**usual, field: value})), field) == value
    assert isnan(getattr(message.model_validate_json(json.dumps({**usual, field: None})), field))
    for value in (-1e-9, 1.01e12, 1.7e308, float("inf")):
        with pytest.raises(ValidationError):
            message.model_validate_json(json.dumps({**usual, field: value}))


@pytest.mark.parametrize("accuracy", [-0.1, 1.1])
def test_an_accuracy_is_a_share(accuracy: float) -> None:
    with pytest.raises(ValidationError):
        EvaluateReply(device_id="h0", round=1, loss=0.5, accuracy=accuracy, num_samples=5)


@pytest.mark.parametrize("latency", [-1.0, float("inf")])
def test_a_latency_is_unknown_or_a_duration(latency: float) -> None:
    with pytest.raises(ValidationError):
        DeviceReport(device_id="h0", available=True, latency_s=latency)
    assert isnan(DeviceReport(device_id="h0", available=True, latency_s=nan).latency_s)


@pytest.mark.parametrize("port", [0, 65536, "5000"])
def test_a_port_is_a_port(port: Any) -> None:
    with pytest.raises(ValidationError):
        Registration(device_id="h0", port=port)


@pytest.mark.parametrize(
    "config",
    [Config(), Config(objective={"name": "fedprox", "mu": 0.25}, training={"clip_norm": 1, "momentum": 0.9})],
)
def test_a_train_request_carries_its_settings(config: Config) -> None:
    request = TrainRequest.model_validate_json(train_request(config).model_dump_json())
    assert request.training == config.training
    assert request.objective == config.objective


@pytest.mark.parametrize("message", messages(), ids=lambda m: m.__name__)
def test_every_message_and_field_is_documented(message: type[BaseModel]) -> None:
    assert message.__doc__
    properties = message.model_json_schema()["properties"]
    assert [name for name, field in properties.items() if not _described(field)] == []


@pytest.mark.parametrize("message", messages(), ids=lambda m: m.__name__)
def test_every_schema_is_json(message: type[BaseModel]) -> None:
    json.dumps(message.model_json_schema(), allow_nan=False)


def _described(field: dict[str, Any]) -> bool:
    return "description" in field or any("description" in option for option in field.get("anyOf", []))
