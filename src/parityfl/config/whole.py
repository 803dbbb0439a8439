"""The whole configuration of a run: its layers laid over each other, checked section by section and together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator

from parityfl.config.faults import KeyFaultError, explained
from parityfl.config.layers import (
    Layer,
    given_keys,
    merge,
    read_file,
    read_preset,
    refuse_switches,
    stacked,
    with_implied,
)
from parityfl.config.sections import KEYS, OWN_DATA, Sections
from parityfl.core.errors import ConfigError
from parityfl.core.types import FloatArray, IntArray, World


class Config(Sections):
    """The whole configuration of a run. ``Config(method="fedavg")`` applies the preset of that name."""

    def __init__(self, preset_is_laid: bool = False, /, **sections: Any) -> None:
        """Check the sections, given as mappings or as section objects, over the preset that they name.

        Args:
            preset_is_laid: whether the preset is among what is given already.
            sections: by name.

        Raises:
            ConfigError: a key or value is wrong.
        """
        layer: Layer = {key: given_keys(value) for key, value in sections.items()}
        refuse_switches(layer)
        if not preset_is_laid:
            layer = merge(read_preset(str(layer.get("method", "parityfl"))), layer)
        try:
            super().__init__(**with_implied(layer))
        except ValidationError as error:
            raise explained(error, KEYS) from None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse what each section allows but their combination does not."""
        population, rounds = self.population, self.rounds
        if self.data.is_own and rounds.virtual:
            raise ConfigError(
                f"data.name = {OWN_DATA!r} needs devices with data of their own and the wall clock: start "
                "`parityfl coordinator` and on each device `parityfl client --data DIR`"
            )
        if population.per_round > population.clients:
            raise ConfigError(
                f"population.per_round = {population.per_round} is more than population.clients = "
                f"{population.clients}: select at most as many as there are"
            )
        self._require_engine()
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
        self._require_probability()
        return self

    def _require_probability(self) -> None:
        """Refuse to divide by probabilities that there are not, or that are 0 for some who are available."""
        if not self.aggregator.build().needs_probability:
            return
        rule = self.selector.build()
        lacks = {
            "has none": not rule.has_probability,
            "is deterministic (they are 0 or 1)": rule.deterministic,
            "gives some who are available none (0)": not rule.positive,
        }
        for why in (why for why, applies in lacks.items() if applies):
            raise ConfigError(
                f"aggregator.name = {self.aggregator.name!r} divides by inclusion probabilities, and selector.name = "
                f"{self.selector.name!r} as configured {why}: use a randomised selector, or mifa or fedau"
            )

    def _require_engine(self) -> None:
        """Refuse what the engine of that name does not do."""
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

    def world(self, num_samples: IntArray, label_counts: IntArray, mean_utility: FloatArray | None = None) -> World:
        """Return the facts of a run whose clients have these data, without a model of availability; see `World`."""
        return World(
            seed=self.seed,
            num_clients=self.population.clients,
            per_round=self.population.per_round,
            interval_s=self.rounds.interval_s,
            num_samples=num_samples,
            label_counts=label_counts,
            mean_utility=mean_utility,
        )

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


def _finite(value: Any) -> Any:
    """Replace infinities, which JSON does not know, by strings that every float key reads back."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and abs(value) == float("inf") else value


def resolve(layers: Sequence[Layer], overrides: Layer) -> Config:
    """Lay the overrides over the layers, the layers over each other and the preset, lowest first; check the result.

    An override that is no string and does not fit its key is tried as a string.

    Raises:
        ConfigError: a key or value is wrong.
    """
    try:
        return Config(True, **stacked(layers, overrides))
    except KeyFaultError as fault:
        text = _as_text(overrides, fault.key)
        if text is None:
            raise
        try:
            return resolve(layers, text)
        except KeyFaultError as again:
            raise (fault if again.key == fault.key else again) from None


def _as_text(overrides: Layer, key: str) -> Layer | None:
    """Return the overrides with the one that gave `key` as a string, or None where it is none or was one already."""
    for dotted, value in overrides.items():
        if f"{key}.".startswith(f"{dotted}.") and not isinstance(value, str | Mapping):
            return {**overrides, dotted: str(value).lower() if isinstance(value, bool) else str(value)}
    return None
