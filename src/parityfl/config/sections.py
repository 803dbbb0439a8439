"""The sections of a configuration. Every key has a default; unknown keys are errors.

A section of an exchangeable part has a `name` and the keys of the class registered under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from parityfl.config.faults import explained, unknown
from parityfl.core.aggregation import Aggregator, aggregator
from parityfl.core.availability import AvailabilityModel, availability
from parityfl.core.blame import described
from parityfl.core.conditions import Dropout, Latency
from parityfl.core.deadline import Deadline
from parityfl.core.distributions import PerClient
from parityfl.core.errors import ConfigError, ParityflError
from parityfl.core.objectives import Objective, objective
from parityfl.core.optimizers import Adam, Momentum, PlainStep, ServerOptimizer
from parityfl.core.registry import Registry
from parityfl.core.rounding import Carry, as_it_is, to_bfloat16
from parityfl.core.selection import Selector, selector
from parityfl.core.types import LEAST_STEP, MOST_STEP

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Step = Annotated[float, Field(ge=LEAST_STEP, le=MOST_STEP, allow_inf_nan=False)]
Pull = Annotated[float, Field(ge=0, le=MOST_STEP, allow_inf_nan=False)]
"""How strongly weights are pulled."""

MOST_CLIENTS = 100_000_000
"""A vector with a number for each then takes 0.8 GB, and a schedule some thirty of them."""
OWN_DATA = "local"
"""The name of the data set that is each device's own."""
AUTO = "auto"
"""The name of the model that a data set usually has."""


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
        """Return the part: the class of that name with these keys.

        Raises:
            ConfigError: no such name, or it does not take these keys.
        """
        entry, keys = self.registry.get(self.name), self.__pydantic_extra__ or {}
        known = {f.name: f for f in fields(entry)} if is_dataclass(entry) else {}
        for key in keys:
            if key not in known:
                raise unknown(f"{self.registry.kind}.{key}", list(known), f"{self.registry.kind} {self.name!r}")
        plain = {k: None if v == "none" and known[k].default is None else v for k, v in keys.items()}
        defaults = {k: f.default for k, f in known.items() if f.init and f.default is not MISSING}
        try:  # the defaults are read, too: a 1 that stands for a float would come back from JSON as another value
            part: T = _adapter(entry).validate_python({**defaults, **plain})
        except ValidationError as error:
            raise explained(error, {}, (self.registry.kind,)) from None
        except ParityflError:
            raise
        except Exception as error:  # whatever the __post_init__ of another package raises
            told = f"{self.registry.label(entry)} does not take its keys: {described(error, entry)}"
            raise ConfigError(f"{told}; give other values, or repair it") from error
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

    clients: Annotated[int, Field(ge=1, le=MOST_CLIENTS)] = 20
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
    def virtual(self) -> bool:
        """Whether time is the experiment's own, and not that of the wall clock."""
        return self.clock == "virtual"

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


class Sections(Section):
    """All that a configuration says, with its defaults."""

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


KEYS = {name: list(getattr(info.annotation, "model_fields", ())) for name, info in Sections.model_fields.items()}
"""The keys of each section, without those that a part's `name` brings."""
