"""The messages of both HTTP interfaces. Unknown floats are nan in Python and null on the wire; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isinf, nan
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
)

from parityfl.config import ObjectiveSection, Training
from parityfl.core.types import MAX_CLASS_NAME, MAX_LABELS, MAX_LOSS, Outcome

SAFETENSORS = "application/x-safetensors"
"""The media type of every document that carries a model."""

WORK_ID = "Parityfl-Work"
"""The header that names the request which an answer of ``/work`` carries."""
WORK_PATH = "Parityfl-Path"
"""The header that says which of the client's endpoints that request is for."""
WORK_UNWANTED = "Parityfl-Unwanted"
"""The header that names the requests, of those that a process holds, for whose answers nobody waits any more."""

Dtype = Literal["F32", "BF16"]
"""How safetensors names what a tensor's numbers are."""
Compression = Literal["zstd"]

DEVICE_NAME = r"[A-Za-z0-9._-]{1,64}"
MAX_PORT = 65535
MAX_SAMPLES = 2**40
MAX_DEVICES = 10_000
"""How many devices a process may have: each of its reports, and of its requests for work, names all of them."""


def _null_is_nan(value: Any) -> Any:
    return nan if value is None else value


def _refuse_infinity(value: float) -> float:
    if isinf(value):
        raise ValueError("must be a finite number, or null where it is unknown")
    return value


def _refuse_negative(value: float) -> float:
    if value < 0:
        raise ValueError("must be at least 0, or null where it is unknown")
    return value


def _refuse_above_one(value: float) -> float:
    if value > 1:
        raise ValueError("must be at most 1, or null where it is unknown")
    return value


def _refuse_diverged(value: float) -> float:
    if value > MAX_LOSS:
        raise ValueError(f"must be at most {MAX_LOSS:g}, or null where the model has diverged")
    return value


def _require_plain(dtypes: list[str]) -> list[str]:
    if "F32" not in dtypes:
        raise ValueError(f"offers {dtypes}, but must offer 'F32'")
    return dtypes


def _nan_is_null(value: float) -> float | None:
    return None if value != value else value  # noqa: PLR0124 - nan is the one number that differs from itself


Measured = Annotated[
    float,
    BeforeValidator(_null_is_nan),
    AfterValidator(_refuse_infinity),
    PlainSerializer(_nan_is_null, return_type=float | None, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
"""A measurement: nan in Python and null on the wire where nobody measured it."""
Duration = Annotated[
    Measured,
    AfterValidator(_refuse_negative),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}),
]
Share = Annotated[
    Measured,
    AfterValidator(_refuse_negative),
    AfterValidator(_refuse_above_one),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}),
]
Loss = Annotated[
    Measured,
    AfterValidator(_refuse_negative),
    AfterValidator(_refuse_diverged),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": MAX_LOSS}, {"type": "null"}]}),
]
"""A mean cross-entropy, which is never below 0: what a device sends must not be too large to be added up."""

DeviceId = Annotated[str, Field(pattern=f"^{DEVICE_NAME}$", description="The device's name.")]
Port = Annotated[int, Field(ge=1, le=MAX_PORT, description="Where the device listens.")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelDigest = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE3 of the parameters in order, little-endian float32.")
]
Offer = Annotated[str, Field(min_length=1, max_length=16)]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="An Ed25519 public key, in hexadecimal.")]
RoundNumber = Annotated[int, Field(ge=0, lt=2**63, description="The round, from 1; 0 is before the first.")]
Samples = Annotated[int, Field(ge=0, le=MAX_SAMPLES, description="Training examples.")]
State = Literal[
    "registered", "available", "away", "unreachable", "training", "suspect", "lost", "rejoined", "left", "revoked"
]
"""What the coordinator makes of a device.

`away` reports in but cannot take part; `unreachable` reports in but does not answer where it is called; `suspect` and
`lost` have been silent, the latter for longer;
`rejoined` came back from there; `left` was told to leave; `revoked` is no longer admitted.
"""


class Message(BaseModel):
    """A message: strictly typed, without unknown fields, not to be changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())


class DataFormat(Message):
    """What a device's own data look like; the data themselves stay where they are."""

    classes: list[Annotated[str, Field(min_length=1, max_length=MAX_CLASS_NAME)]] = Field(
        min_length=1, max_length=MAX_LABELS, description="The names of its classes."
    )
    shape: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=3, max_length=3, description="Channels, height and width of each image."
    )
    dtype: Literal["uint8", "float32"] = Field(description="How a pixel is stored.")


class WorkRequest(Message):
    """Devices of one process that cannot be called ask for what they are to do."""

    devices: list[DeviceId] = Field(min_length=1, max_length=MAX_DEVICES, description="The devices' names.")
    holding: list[Annotated[str, Field(max_length=64)]] = Field(
        [], max_length=2 * MAX_DEVICES, description="The requests that the process has and has not yet answered."
    )


class Registration(Message):
    """A device introduces itself. It may do so again: from a new address, or once it knows its data."""

    device_id: DeviceId
    port: Port | None = Field(description="Where the device listens; null: it cannot be called and posts to /work.")
    host: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="Where to call the device; absent: the address that the request came from.",
    )
    num_samples: Samples | None = Field(None, description="Training examples; null until the data is loaded.")
    label_counts: list[Annotated[int, Field(ge=0, le=MAX_SAMPLES)]] = Field(
        [], max_length=MAX_LABELS, description="Training examples per label."
    )
    data: DataFormat | None = Field(None, description="What its own data look like, if it brings any.")
    layout_hash: Sha256 | None = Field(None, description="SHA-256 of its model's parameter names and shapes.")
    version: str = Field("", max_length=64, description="The device's version of parityfl.")
    tls: bool = Field(False, description="Whether the device is to be called with https.")
    dtypes: Annotated[list[Offer], AfterValidator(_require_plain)] = Field(
        ["F32"],
        max_length=8,
        description="What tensors it takes, and can answer with: F32 and others, of which those unknown are not used.",
        json_schema_extra={"contains": {"const": "F32"}},
    )
    compressions: list[Offer] = Field(
        [],
        max_length=8,
        description="What compression of documents it takes, and can answer with; those unknown are not used.",
    )
    process_key: PublicKey | None = Field(
        None, description="The key with which the device's process signs; needed where the coordinator asks for proofs."
    )


class RegistrationReply(Message):
    """What a device needs to take part."""

    index: int = Field(ge=0, description="The device's index in the population, which is also its shard of the data.")
    run_id: str = Field(description="The run that the device now belongs to.")
    config: dict[str, Any] = Field(description="The run's whole resolved configuration.")
    heartbeat_s: float = Field(gt=0, description="A heartbeat: within how many seconds to send two status updates.")
    session_key: PublicKey | None = Field(
        None, description="The key with which the coordinator signs; null where it serves without credentials."
    )


class DeviceReport(Message):
    """How a device is."""

    device_id: DeviceId
    available: bool = Field(description="Whether it could train now.")
    training: RoundNumber | None = Field(None, description="The round that it is training for, or null.")
    latency_s: Duration = Field(
        default_factory=lambda: nan, description="Round trip of its previous status update, or null."
    )


class StatusUpdate(Message):
    """A heartbeat of all devices of one process."""

    devices: list[DeviceReport] = Field(min_length=1, max_length=MAX_DEVICES, description="One report per device.")


def _is_of(update: Any) -> str:
    several = isinstance(update, StatusUpdate) or (isinstance(update, dict) and "devices" in update)
    return "devices" if several else "device"


AnyUpdate = Annotated[
    Annotated[StatusUpdate, Tag("devices")] | Annotated[DeviceReport, Tag("device")], Discriminator(_is_of)
]
"""A heartbeat of several devices or of a single one, told apart by `devices`: so a fault names what was meant."""


class StatusReply(Message):
    """What the coordinator answers to a heartbeat."""

    known: bool = Field(description="Whether every device is registered, and reached there; if not, register again.")
    leave: bool = Field(description="Whether the run is over and the process should end.")
    time_s: Measured = Field(description="Wall-clock seconds since the run began; null before it has.")


class TrainRequest(Message):
    """Train from the model that this document carries. `/train` takes it in the metadata of a safetensors document."""

    run_id: str = Field(description="The run; a device of another run refuses.")
    round: RoundNumber
    time_s: float = Field(
        ge=-1e15, le=1e15, allow_inf_nan=False, description="Seconds since the run began, on the run's own clock."
    )
    device_id: DeviceId | None = Field(None, description="Who is asked; optional where a process hosts one device.")
    seed: int = Field(description="The run's seed.")
    model: str = Field(description="The model's name.")
    model_digest: ModelDigest
    training: Training = Field(description="Epochs, batch size, step size, as in the configuration.")
    objective: ObjectiveSection = Field(description="What to minimise, with its keys.")
    memory_round: RoundNumber = Field(0, description="The last round that the device completed, 0 for never.")
    deadline_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Seconds from now until nobody waits for the reply any more."
    )
    dtype: Dtype = Field("F32", description="What the reply's tensors are to be.")
    compression: Compression | None = Field(None, description="How the reply's document is to be compressed, or null.")


class TrainReply(Message):
    """What a device learned; the document carries its model minus the model that it was sent."""

    device_id: DeviceId
    round: RoundNumber
    num_samples: Samples
    train_loss: Loss = Field(description="Mean training loss over the local epochs.")
    loss_before: Loss = Field(description="Held-out loss of the model that was sent.")
    loss_after: Loss = Field(description="Held-out loss after local training.")
    personal_accuracy: Share = Field(
        default_factory=lambda: nan, description="Held-out accuracy of the personal model, or null."
    )
    model_digest: ModelDigest = Field(description="BLAKE3 of the model that it trained from.")
    train_s: float = Field(ge=0, allow_inf_nan=False, description="How long training took.")


class EvaluateRequest(Message):
    """Evaluate the model that this document carries on the device's held-out part."""

    run_id: str = Field(description="The run; a device of another run refuses.")
    round: RoundNumber
    device_id: DeviceId | None = Field(None, description="Who is asked; optional where a process hosts one device.")
    model_digest: ModelDigest


class EvaluateReply(Message):
    """A model measured on a device's held-out part."""

    device_id: DeviceId
    round: RoundNumber
    loss: Loss = Field(description="Mean held-out loss; null where the device holds nothing out.")
    accuracy: Share = Field(description="Held-out accuracy.")
    num_samples: Samples = Field(description="Held-out examples.")


class InitialReply(Message):
    """The model before the first round, as a device builds it from the configuration and the seed."""

    model: str = Field(description="The model's name.")
    seed: int = Field(description="The run's seed.")
    model_digest: ModelDigest


class DeviceStatus(Message):
    """A device as its own process sees it."""

    device_id: DeviceId
    index: int | None = Field(description="Its index in the population; null before it has registered.")
    available: bool = Field(description="Whether it could train now.")
    training: RoundNumber | None = Field(description="The round that it is training for, or null.")
    last_round: RoundNumber = Field(description="The last round that it trained for, 0 for none.")
    num_samples: Samples | None = Field(description="Training examples; null until the data is loaded.")


@dataclass
class Transition:
    """A change of a device's state."""

    time_s: Annotated[float, Field(description="Seconds since the coordinator started.")]
    before: Annotated[State | None, Field(description="The state until then; null for a newcomer.")]
    after: Annotated[State, Field(description="The state from then on.")]
    reason: Annotated[str, Field(description="What made the difference.")]


class ClientInfo(Message):
    """A device as the coordinator sees it."""

    device_id: DeviceId
    index: int = Field(description="Its index in the population.")
    state: State = Field(description="What the coordinator makes of it.")
    address: str = Field(description="Where the coordinator calls it.")
    last_seen_s: float = Field(description="Seconds since it was last heard of.")
    training: RoundNumber | None = Field(description="The round that it trains for, or null.")
    latency_s: Duration = Field(description="Round trip of its status updates.")
    num_samples: Samples | None = Field(description="Training examples; null until its data is loaded.")
    label_counts: list[int] = Field(description="Training examples per label.")
    version: str = Field(description="Its version of parityfl.")
    opportunities: int = Field(description="Rounds in which it was seen available.")
    selected: int = Field(description="Rounds in which it was selected.")
    participated: int = Field(description="Rounds that it completed.")
    staleness: int | None = Field(description="Rounds since it last completed one; null: it never did.")
    utility: Measured = Field(description="Cumulative credited utility; null where nobody measured what it gained.")
    normalized_utility: Measured = Field(description="Utility per opportunity; null before the first.")
    left_behind: str | None = Field(description="Why it is left behind, as of the latest round; null: it is not.")


class ClientHistory(ClientInfo):
    """The same with how it came to be so."""

    transitions: list[Transition] = Field(description="Its latest changes of state, oldest first.")


class RoundInfo(Message):
    """A closed round."""

    round: int = Field(description="The round, from 1.")
    figures: Mapping[str, Measured] = Field(description="The round's row of rounds.csv.")
    outcomes: Mapping[str, Outcome] = Field(description="How each selected device's round ended.")
    reasons: Mapping[str, str] = Field(description="A line for each selected device that did not complete.")


class Health(Message):
    """That a process is up, and what it is doing."""

    status: Literal["ok"] = Field("ok", description="Always ok.")
    phase: str = Field(description="What it is doing.")
    version: str = Field(description="The version of parityfl.")
    reason: str = Field("", description="What it waits for, or why the run ended early; empty otherwise.")


class TrainingState(Message):
    """What the coordinator is doing after a command."""

    phase: str = Field(description="waiting, training, done, stopped or failed.")
    round: int = Field(description="Rounds that are done.")


class Problem(BaseModel):
    """RFC 9457 problem details, the body of every error."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="What is wrong, the value and the remedy.")
