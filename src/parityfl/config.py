"""The configuration: pydantic sections, layers, presets. Every key has a default; unknown keys are errors.

Order: defaults < preset < file < options < ``--set``. A section of an exchangeable part has a `name` and the keys of
the class registered under it; choosing another name drops the keys that lower layers gave for the old one.
"""

from __future__ import annotations

import json
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from parityfl.core.aggregation import Aggregator, aggregator
from parityfl.core.availability import AvailabilityModel, availability
from parityfl.core.conditions import Dropout, Latency
from parityfl.core.deadline import Deadline
from parityfl.core.distributions import PerClient
from parityfl.core.errors import ConfigError
from parityfl.core.objectives import Objective, objective
from parityfl.core.optimizers import Adam, Momentum, PlainStep, ServerOptimizer
from parityfl.core.presets import preset_document, preset_names
from parityfl.core.registry import Registry
from parityfl.core.rounding import Carry, as_it_is, to_bfloat16
from parityfl.core.selection import Selector, selector
from parityfl.core.types import LEAST_STEP, MOST_STEP

Layer = Mapping[str, Any]
"""A nested mapping of section -> key -> value, complete or not."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Step = Annotated[float, Field(ge=LEAST_STEP, le=MOST_STEP, allow_inf_nan=False)]
Pull = Annotated[float, Field(ge=0, le=MOST_STEP, allow_inf_nan=False)]
"""How strongly weights are pulled."""

OWN_DATA = "local"
"""The name of the data set that is each device's own."""

USUAL_MODELS = {"digits": "mlp"}
"""The model of a data set whose configuration names none, or `AUTO`; `cnn-small` for the others."""
AUTO = "auto"


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _none(cls, values: Any) -> Any:
        """Take the word ``none`` for a key that can be absent: TOML has no null."""
        if not isinstance(values, Mapping):
            return values
        optional = _optional(cls)
        return {key: None if key in optional and value == "none" else value for key, value in values.items()}


@cache
def _optional(section: type[Section]) -> frozenset[str]:
    """Return the keys that can be absent."""
    return frozenset(key for key, info in section.model_fields.items() if type(None) in get_args(info.annotation))


T = TypeVar("T")


def _adapter(entry: type[T]) -> TypeAdapter[T]:
    """Return what checks a part's keys, made once: to make it takes as long as all else about a request to train."""
    if entry not in _adapters:
        _adapters[entry] = TypeAdapter(entry)
    return _adapters[entry]


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


class Part(Section, Generic[T]):
    """A section whose `name` chooses a registered class; its other keys are the fields of that class."""

    model_config = ConfigDict(extra="allow", frozen=True)

    registry: ClassVar[Registry[Any]]
    name: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Check the keys against the class and fill in its defaults."""
        extras = self.__pydantic_extra__
        assert extras is not None
        part = self.build()
        if is_dataclass(part) and not isinstance(part, type):
            extras.update(asdict(part))
        return self

    def build(self) -> T:
        """Return the part: the class of that name with these keys."""
        entry, keys = self.registry.get(self.name), self.__pydantic_extra__ or {}
        known = {f.name: f for f in fields(entry)} if is_dataclass(entry) else {}
        for key in keys:
            if key not in known:
                raise _unknown(f"{self.registry.kind}.{key}", list(known), f"{self.registry.kind} {self.name!r}")
        plain = {k: None if v == "none" and known[k].default is None else v for k, v in keys.items()}
        defaults = {k: f.default for k, f in known.items() if f.init and f.default is not MISSING}
        try:  # the defaults are read, too: a 1 that stands for a float would come back from JSON as another value
            part: T = _adapter(entry).validate_python({**defaults, **plain})
        except ValidationError as error:
            raise _explained(error, (self.registry.kind,)) from None
        return part


class AvailabilitySection(Part[AvailabilityModel]):
    """`[availability]`: who could take part when."""

    registry: ClassVar[Registry[Any]] = availability
    name: str = "gilbert-elliott"

    @model_validator(mode="before")
    @classmethod
    def _components(cls, values: Any) -> Any:
        """Check the components of a mixture as sections of their own."""
        parts = values.get("components") if isinstance(values, Mapping) else None
        if not isinstance(parts, Sequence) or isinstance(parts, str):
            return values
        return {**values, "components": [_component(index, part) for index, part in enumerate(parts)]}


def _component(index: int, part: Any) -> Any:
    """Return one component of a mixture with the keys that it gives checked."""
    if not isinstance(part, Mapping):
        return part
    keys = {key: value for key, value in part.items() if key != "share"}
    place = f"availability.components[{index}]"
    try:
        checked = AvailabilitySection(**{"name": "", **keys}).model_dump()
    except ConfigError as error:
        raise ConfigError(str(error).replace("availability", place, 1)) from None
    return {key: checked.get(key, value) for key, value in part.items()}


class SelectorSection(Part[Selector]):
    """`[selector]`: who shall take part."""

    registry: ClassVar[Registry[Any]] = selector
    name: str = "lnu"


class AggregatorSection(Part[Aggregator]):
    """`[aggregator]`: what is learned from a round's updates."""

    registry: ClassVar[Registry[Any]] = aggregator
    name: str = "mifa"


class ObjectiveSection(Part[Objective]):
    """`[objective]`: what a client minimises."""

    registry: ClassVar[Registry[Any]] = objective
    name: str = "plain"


class Population(Section):
    """`[population]`: how many clients there are and what data they hold."""

    clients: Count = 20
    per_round: Count = 4
    partition: Literal["label-subset", "dirichlet", "iid", "quantity"] = "label-subset"
    labels_per_client: Count = 2
    samples_per_client: Count | None = None
    alpha: Positive = 0.5
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.2


class Data(Section):
    """`[data]`: the data set and where its files are; `local`: each device has its own, of these classes and shape."""

    name: str = "digits"
    root: str | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    shape: tuple[Count, Count, Count] | None = None
    test: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None

    @property
    def is_own(self) -> bool:
        """Whether each device has its own data."""
        return self.name == OWN_DATA

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        given = [key for key in ("classes", "shape", "test", "mean", "std") if getattr(self, key) is not None]
        if given and not self.is_own:
            raise ConfigError(f"data.{given[0]} belongs to data.name = {OWN_DATA!r}; data.name is {self.name!r}")
        if self.root is not None and self.is_own:
            raise ConfigError(
                f"data.root = {self.root!r}: with data.name = {OWN_DATA!r} each device names its own --data"
            )
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"data.classes = {list(self.classes)} names a class twice")
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ConfigError("data.mean and data.std belong together: a number for each channel in both")
        if self.shape is not None and self.mean is not None and len(self.mean) != self.shape[0]:
            raise ConfigError(f"data.mean has {len(self.mean)} numbers, data.shape has {self.shape[0]} channels")
        return self


class Model(Section):
    """`[model]`: the network; `auto` becomes the data set's usual one."""

    name: str = AUTO


class Training(Section):
    """`[training]`: local training."""

    epochs: Count = 1
    batch_size: Annotated[int, Field(ge=1, le=2**31)] = 32
    lr: Step = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Pull = 0.0
    clip_norm: Positive | None = None


class Evaluation(Section):
    """`[evaluation]`: how often the model is evaluated, and the decay of the server's moving average."""

    every: Count = 1
    test_every: Count = 1
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9


class Rounds(Section):
    """`[rounds]`: how many, when, and how long everyone may take."""

    count: Count = 30
    interval_s: Positive = 600.0
    clock: Literal["virtual", "wall"] = "virtual"
    time_scale: Positive = 1.0
    heartbeat_s: Positive = 2.0
    connect_timeout_s: Positive = 5.0
    train_timeout_s: Positive = 600.0
    deadline: Literal["fixed", "adaptive"] = "fixed"
    deadline_s: Positive = 600.0
    deadline_spread: NonNegative = Deadline.spread
    grace_s: NonNegative = 5.0
    quorum: Count | None = None
    over_select: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False)] = 1.0
    late: Literal["discard", "next-round"] = "discard"
    max_idle_rounds: Count = 1000

    @property
    def net_s(self) -> float:
        """Seconds of the wall clock after which a round on the virtual clock, whose deadlines are seeded, is broken."""
        return max(self.deadline_s, self.train_timeout_s) + self.grace_s

    def build_deadline(self) -> Deadline:
        """Return the rule of the rounds' deadlines."""
        return Deadline(self.deadline_s, self.deadline == "adaptive", self.deadline_spread)


class Server(Section):
    """`[server]`: the optimiser that takes the aggregate as its gradient."""

    optimizer: Literal["none", "momentum", "adam"] = "none"
    momentum: Annotated[float, Field(ge=0, lt=1)] = Momentum.momentum
    beta1: Annotated[float, Field(ge=0, lt=1)] = Adam.beta1
    beta2: Annotated[float, Field(ge=0, lt=1)] = Adam.beta2
    tau: Positive = Adam.tau

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        """Refuse what the optimiser does."""
        self.build()
        return self

    def build(self) -> ServerOptimizer:
        """Return the optimiser."""
        if self.optimizer == "momentum":
            return Momentum(self.momentum)
        if self.optimizer == "adam":
            return Adam(self.beta1, self.beta2, self.tau)
        return PlainStep()


class Utility(Section):
    """`[utility]`: what a participation is worth; `mu` and `noise` are for `parityfl schedule`."""

    functional: Literal["loss_gain", "accuracy_gain", "local_gain"] = "loss_gain"
    mu: PerClient = 1.0
    noise: NonNegative = 0.0


class Engine(Section):
    """`[engine]`: where the clients run."""

    name: Literal["local", "http", "ray"] = "local"
    processes: Count | None = None
    workers: Count | None = None
    address: Annotated[str, Field(min_length=1)] | None = None
    mode: Literal["exact", "batched"] = "exact"
    pre_aggregate: Count | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"


class Security(Section):
    """`[security]`: the limits of what is taken from others. Secrets are no configuration: see docs/security.md."""

    max_update_norm: Positive | None = 1e4
    max_json_bytes: Annotated[int, Field(ge=1024)] = 4 * 2**20


class Transport(Section):
    """`[transport]`: how vectors travel: what they are rounded to, on every engine alike, and whether compressed."""

    dtype: Literal["float32", "bf16"] = "float32"
    compression: Literal["zstd"] | None = None

    def build(self) -> Carry:
        """Return what happens to a vector on its way."""
        return to_bfloat16 if self.dtype == "bf16" else as_it_is


class LatencySection(Section):
    """`[latency]`: how long clients take in an experiment, seeded; a median of 0 means no time at all."""

    median_s: NonNegative = Latency.median_s
    spread: NonNegative = Latency.spread
    jitter: NonNegative = Latency.jitter
    per_sample_s: NonNegative = Latency.per_sample_s

    def build(self) -> Latency:
        """Return the latency model."""
        return Latency(self.median_s, self.spread, self.jitter, self.per_sample_s)


class DropoutSection(Section):
    """`[dropout]`: how often a selected client of an experiment gives up in mid-round, seeded."""

    rate: PerClient = Dropout.rate

    def build(self) -> Dropout:
        """Return the drop-out model."""
        return Dropout(self.rate)


class Config(Section):
    """The whole configuration of a run. ``Config(method="fedavg")`` applies the preset of that name."""

    seed: int = 0
    method: str = "parityfl"
    population: Population = Population()
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    availability: AvailabilitySection = AvailabilitySection()
    latency: LatencySection = LatencySection()
    dropout: DropoutSection = DropoutSection()
    rounds: Rounds = Rounds()
    selector: SelectorSection = SelectorSection()
    aggregator: AggregatorSection = AggregatorSection()
    objective: ObjectiveSection = ObjectiveSection()
    server: Server = Server()
    utility: Utility = Utility()
    engine: Engine = Engine()
    transport: Transport = Transport()
    security: Security = Security()

    def __init__(self, preset_is_laid: bool = False, /, **sections: Any) -> None:
        """Check the sections, given as mappings or as section objects, over the preset that they name.

        Args:
            preset_is_laid: whether the preset is among what is given already.
            sections: by name.

        Raises:
            ConfigError: a key or value is wrong.
        """
        layer: Layer = {key: _plain(value) for key, value in sections.items()}
        _refuse_switches(layer)
        if not preset_is_laid:
            layer = merge(read_preset(str(layer.get("method", "parityfl"))), layer)
        try:
            super().__init__(**_with_implied(layer))
        except ValidationError as error:
            raise _explained(error) from None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse what each section allows but their combination does not."""
        population, rounds = self.population, self.rounds
        if self.data.is_own and rounds.clock == "virtual":
            raise ConfigError(
                f"data.name = {OWN_DATA!r} needs devices with data of their own and the wall clock: start "
                "`parityfl coordinator` and on each device `parityfl client --data DIR`"
            )
        if population.per_round > population.clients:
            raise ConfigError(
                f"population.per_round = {population.per_round} is more than population.clients = "
                f"{population.clients}: select at most as many as there are"
            )
        if self.engine.mode == "batched" and self.engine.name != "local":
            raise ConfigError(
                f"engine.mode = 'batched' with engine.name = {self.engine.name!r}: only the local engine trains many "
                "clients at once; use engine.name = 'local', or engine.mode = 'exact'"
            )
        if self.engine.device == "cuda" and self.engine.name == "ray":
            raise ConfigError(
                "engine.device = 'cuda' with engine.name = 'ray': its actors compute on the CPU; use engine.device = "
                "'cpu' or 'auto', or engine.name = 'local'"
            )
        if rounds.quorum is not None and rounds.quorum > population.per_round:
            raise ConfigError(
                f"rounds.quorum = {rounds.quorum} is more than population.per_round = {population.per_round}: "
                "a round would never reach it"
            )
        if self.utility.functional != "local_gain" and self.evaluation.every != 1:
            raise ConfigError(
                f"evaluation.every = {self.evaluation.every} with utility.functional = {self.utility.functional!r}: "
                "a gain per round needs an evaluation every round; set evaluation.every = 1 or use local_gain"
            )
        if self.objective.build().uses_control and self.training.momentum:
            raise ConfigError(
                f"training.momentum = {self.training.momentum} with objective.name = {self.objective.name!r}: its "
                "control variates are mean gradients only without momentum; set training.momentum = 0"
            )
        self._require_poolable()
        rule = self.selector.build()
        if self.aggregator.build().needs_probability and (rule.deterministic or not rule.has_probability):
            why = "is deterministic (they are 0 or 1)" if rule.deterministic else "has none"
            raise ConfigError(
                f"aggregator.name = {self.aggregator.name!r} divides by inclusion probabilities, and selector.name = "
                f"{self.selector.name!r} as configured {why}: use a randomised selector, or mifa or fedau"
            )
        return self

    def _require_poolable(self) -> None:
        """Refuse `engine.pre_aggregate` where something needs each client's own update."""
        if self.engine.pre_aggregate is None:
            return
        needs = {
            f"engine.name = {self.engine.name!r}, whose devices answer one by one": self.engine.name == "http",
            "engine.mode = 'batched'": self.engine.mode == "batched",
            "rounds.late = 'next-round', which takes single updates out of a round": self.rounds.late == "next-round",
            f"aggregator.name = {self.aggregator.name!r}, which needs every update": (
                self.aggregator.build().weight is None
            ),
            f"objective.name = {self.objective.name!r}, whose clients keep vectors of their own": (
                self.objective.build().keeps_memory
            ),
        }
        for what, present in needs.items():
            if present:
                raise ConfigError(
                    f"engine.pre_aggregate = {self.engine.pre_aggregate} does not go with {what}: leave it out, or use "
                    "the local or ray engine in exact mode with a plain weighted mean such as fedavg"
                )

    @property
    def device_ids(self) -> list[str]:
        """The names of an experiment's clients, in index order."""
        return [f"h{index}" for index in range(self.population.clients)]

    def document(self) -> dict[str, Any]:
        """Return the resolved configuration as plain JSON values (infinity as a string)."""
        plain: dict[str, Any] = _finite(self.model_dump(mode="python"))
        return plain

    @property
    def hash(self) -> str:
        """SHA-256 over the resolved configuration."""
        return sha256(json.dumps(self.document(), sort_keys=True).encode()).hexdigest()

    @staticmethod
    def load(path: str | Path | None = None, overrides: Layer | None = None) -> Config:
        """Return the configuration of a TOML file or of a run's config.json, with overrides on top.

        Args:
            path: the file; None for the defaults.
            overrides: values by dotted key, such as ``{"population.clients": 20}``, or a nested mapping.

        Raises:
            ConfigError: the file cannot be read, or a key or value is wrong.
        """
        return resolve([read_file(Path(path))] if path is not None else [], overrides or {})

    @staticmethod
    def preset(name: str, overrides: Layer | None = None) -> Config:
        """Return the configuration of a preset, with overrides on top."""
        return resolve([{"method": name}], overrides or {})


def resolve(layers: Sequence[Layer], overrides: Layer) -> Config:
    """Lay the overrides over the layers, the layers over each other and the preset, lowest first; check the result.

    An override that is no string and does not fit its key is tried as a string.

    Raises:
        ConfigError: a key or value is wrong.
    """
    try:
        return Config(True, **_stacked(layers, overrides))
    except _KeyFaultError as fault:
        text = _as_text(overrides, fault.key)
        if text is None:
            raise
        try:
            return resolve(layers, text)
        except _KeyFaultError as again:
            raise (fault if again.key == fault.key else again) from None


def _stacked(layers: Sequence[Layer], overrides: Layer) -> dict[str, Any]:
    """Lay the layers over the preset, one after the other: each may drop what those below it gave."""
    upper: dict[str, Any] = {}
    for dotted, value in overrides.items():
        upper = _united(upper, nested(dotted, value))
    stack = [*layers, upper]
    methods = [layer["method"] for layer in stack if "method" in layer]
    merged = dict(read_preset(str(methods[-1] if methods else "parityfl")))
    for layer in stack:
        merged = merge(merged, layer)
    return merged


def _with_implied(layer: Layer) -> dict[str, Any]:
    """Return a whole layer with the defaults that depend on what it says elsewhere."""
    implied: dict[str, Any] = {}
    if _given(layer, "rounds", "clock", None) == "wall" and "availability" not in layer:
        implied["availability"] = {"name": "always"}
    data = _given(layer, "data", "name", _default_name("data"))
    if data == OWN_DATA:
        implied["utility"] = {"functional": "local_gain"}
    whole = merge(implied, layer)
    if _given(layer, "model", "name", AUTO) == AUTO and isinstance(data, str):
        whole["model"] = {**whole.get("model", {}), "name": USUAL_MODELS.get(data, "cnn-small")}
    return whole


def _given(layer: Layer, section: str, key: str, default: str | None) -> Any:
    """Return what a layer gives for a key, which may be anything; None where the section is no table."""
    values = layer.get(section, {})
    return values.get(key, default) if isinstance(values, Mapping) else None


def read_override(text: str) -> tuple[str, Any]:
    """Return key and value of ``key.sub=value``: a TOML value, or else a string.

    Raises:
        ConfigError: there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: write key.sub=value, such as --set training.lr=0.1")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def read_file(path: Path) -> Layer:
    """Return the layer of a TOML file, or of a run's config.json.

    Raises:
        ConfigError: it cannot be read, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin with a byte order mark
        layer = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"configuration {path} cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"configuration {path} is not UTF-8 text: save it as UTF-8") from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"configuration {path} is no {path.suffix.lstrip('.').upper() or 'TOML'}: {error}") from None
    if not isinstance(layer, dict):
        raise ConfigError(f"configuration {path} must be a table of sections")
    return {key: value for key, value in layer.items() if key not in ("versions", "files", "hash")}


def read_preset(name: str) -> Layer:
    """Return a preset's layer, its name and description taken out.

    Raises:
        ConfigError: there is no such preset.
    """
    layer = _preset_document(name)
    return {key: value for key, value in layer.items() if key not in ("about", "source")} | {"method": name}


def describe_preset(name: str) -> tuple[str, str]:
    """Return a preset's one-line description and its source."""
    document = _preset_document(name)
    return str(document["about"]), str(document["source"])


def _preset_document(name: str) -> dict[str, Any]:
    if name not in preset_names():
        close = get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"unknown method {name!r}: {hint}presets are {', '.join(preset_names())}")
    return preset_document(name)


def merge(lower: Layer, upper: Layer) -> dict[str, Any]:
    """Lay `upper` over `lower`, section by section; a section with another `name` starts afresh."""
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in lower.items()}
    for key, value in upper.items():
        below = merged.get(key)
        if not isinstance(value, Mapping) or not isinstance(below, Mapping):
            merged[key] = dict(value) if isinstance(value, Mapping) else value
        elif "name" in value and value["name"] != below.get("name", _default_name(key)):
            merged[key] = dict(value)
        else:
            merged[key] = {**below, **value}
    return merged


def _default_name(section: str) -> str | None:
    info = Config.model_fields.get(section)
    return getattr(info.default, "name", None) if info else None


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """Return the layer that gives one dotted key."""
    head, dot, rest = dotted.partition(".")
    return {head: nested(rest, value)} if dot else {head: value}


def _united(left: Layer, right: Layer) -> dict[str, Any]:
    """Lay parts of one layer together: which comes first means nothing, unless both give the same key."""
    both = {key for key in left if isinstance(left[key], Mapping) and isinstance(right.get(key), Mapping)}
    return {**left, **right, **{key: {**left[key], **right[key]} for key in both}}


def _plain(value: Any) -> Any:
    """Return a section as the keys that were given, its name among them."""
    if not isinstance(value, Section):
        return value
    given = value.model_dump(exclude_unset=True)
    return {"name": value.name, **given} if isinstance(value, Part) else given


def _finite(value: Any) -> Any:
    """Replace infinities, which JSON does not know, by strings that every float key reads back."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and abs(value) == float("inf") else value


def _as_text(overrides: Layer, key: str) -> Layer | None:
    """Return the overrides with the one that gave `key` as a string, or None where it is none or was one already."""
    for dotted, value in overrides.items():
        if f"{key}.".startswith(f"{dotted}.") and not isinstance(value, str | Mapping):
            return {**overrides, dotted: str(value).lower() if isinstance(value, bool) else str(value)}
    return None


def _refuse_switches(layer: Layer) -> None:
    """Refuse true and false where a key is neither: pydantic would take them for the numbers 1 and 0."""
    for name, given in layer.items():
        values = given if isinstance(given, Mapping) else {"": given}
        for key, value in values.items():
            if isinstance(value, bool) and not _takes_bool(_type_of(name, key, values)):
                dotted = f"{name}.{key}".rstrip(".")
                raise _KeyFaultError(dotted, f"{dotted} = {str(value).lower()}: this key is not true or false")


def _type_of(section: str, key: str, values: Layer) -> Any:
    """Return the type of a key of a section that is given these values, or, without a key, of the section itself.

    None where that is unknown.
    """
    info = Config.model_fields.get(section)
    kind: Any = None if info is None else info.annotation
    if not key or kind is None:
        return kind
    if issubclass(kind, Part) and key not in kind.model_fields:
        name = values.get("name", _default_name(section))
        return get_type_hints(kind.registry.get(str(name))).get(key)
    field = kind.model_fields.get(key) if issubclass(kind, Section) else None
    return None if field is None else field.annotation


def _takes_bool(annotation: Any) -> bool:
    """Return whether a type, or one of a union, is that of true and false; also where nothing is known."""
    return annotation in (bool, None) or any(map(_takes_bool, get_args(annotation)))


class _KeyFaultError(ConfigError):
    """A fault of one key, whose dotted name is `key`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _explained(error: ValidationError, prefix: tuple[str, ...] = ()) -> _KeyFaultError:
    """Turn pydantic's report into one line about the first key that is wrong."""
    faults = [((*prefix, *details["loc"]), details) for details in error.errors()]
    place = faults[0][0][:2]
    # A value that may be of several types is wrong in each of them: the longest path tells most.
    _, details = max((fault for fault in faults if fault[0][:2] == place), key=lambda fault: len(fault[0]))
    key = ".".join(str(part) for part in place)
    if details["type"] == "extra_forbidden":
        if len(place) == 1:
            return _unknown(key, list(Config.model_fields), "the top level")
        return _unknown(key, _section_keys(str(place[0])), f"[{place[0]}]")
    message = _said(details)
    if details["type"] == "model_type":
        message = f"[{key}] is a section: give its keys, such as {key}.{next(iter(_section_keys(key)))}"
    return _KeyFaultError(key, f"{key} = {reprlib.repr(details['input'])}: {message}")


def _said(details: Mapping[str, Any]) -> str:
    """Return what pydantic says, with a limit of many digits as a power of ten."""
    words = f"{details['msg'][0].lower()}{details['msg'][1:]}"
    limit = next(iter(details.get("ctx", {}).values()), None)
    return f"{words.rpartition(' ')[0]} {limit:g}" if isinstance(limit, float) else words


def _section_keys(section: str) -> list[str]:
    return list(type(Config.model_fields[section].default).model_fields)


def _unknown(key: str, known: list[str], owner: str) -> _KeyFaultError:
    close = get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = key if key.isprintable() else repr(key)
    return _KeyFaultError(key, f"unknown key {shown}: {hint}{owner} has {', '.join(sorted(known)) or 'no keys'}")
