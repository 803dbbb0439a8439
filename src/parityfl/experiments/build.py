"""From a configuration to a run: the population, the method and the conditions, as the round loop wants them."""

import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import file_digest
from importlib.metadata import distributions, entry_points, version
from pathlib import Path
from typing import Any

from parityfl.config import Config
from parityfl.core.aggregation import asking as aggregating
from parityfl.core.arrays import Layout
from parityfl.core.availability import bind, describe_check, self_check
from parityfl.core.conditions import drop_rates
from parityfl.core.sealing import sealed
from parityfl.core.selection import asking as selecting
from parityfl.core.types import IntArray, Vector, World
from parityfl.engine.fleet import Say
from parityfl.engine.lockstep import Conditions
from parityfl.engine.spec import RunSpec

VERSIONED = ("parityfl", "torch", "numpy", "pydantic", "safetensors", "fastapi", "httpx")
"""The packages whose versions a run records."""


def document(config: Config) -> dict[str, Any]:
    """Return the content of config.json: the resolved configuration, the versions and the hash.

    The packages that offer the parts in use are among the versions. With them the SHA-256 of each file that the
    availability model reads, so that a run does not go on with another one.
    """
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    versions |= {name: version(name) for name in VERSIONED if _is_installed(name)}
    versions |= _offering(config)
    paths = {name: Path(name).expanduser() for name in config.availability.build().files}
    files = {name: _sha256(path) for name, path in paths.items() if path.is_file()}
    return {**config.document(), "versions": versions, "files": files, "hash": config.hash}


def _offering(config: Config) -> dict[str, str]:
    """Return the packages that offer the parts in use, with their versions."""
    named = {
        "parityfl.selectors": config.selector.name,
        "parityfl.aggregators": config.aggregator.name,
        "parityfl.objectives": config.objective.name,
        "parityfl.availability": config.availability.name,
        "parityfl.datasets": config.data.name,
        "parityfl.models": config.model.name,
    }
    offered = entry_points()
    points = [point for group, name in named.items() for point in offered.select(group=group, name=name)]
    return {point.dist.name: point.dist.version for point in points if point.dist is not None}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _is_installed(name: str) -> bool:
    """A coordinator that only averages may do without torch."""
    return any(distributions(name=name))


def build_world(config: Config, num_samples: IntArray, label_counts: IntArray) -> World:
    """Return the facts of a run: its population, and on the virtual clock the model that drives it.

    Raises:
        ConfigError: values per client, of availability or of drop-out, do not fit the population.
        PartError: the availability model is one of another package and fails.
    """
    bare = sealed(config.world(num_samples, label_counts))
    if not config.rounds.virtual:
        return bare
    drop_rates(config.dropout.build(), bare)  # a mistake in them is told before a folder is begun
    return replace(bare, availability=bind(config.availability.build(), bare))


def require_selector(config: Config, world: World) -> None:
    """Have the selector tell what it cannot do in this world, before a folder is begun or a device is waited for.

    Raises:
        ConfigError: it cannot begin.
        PartError: it is one of another package and fails.
    """
    selecting.first_state(config.selector.build(), world)


def require_aggregator(config: Config, world: World, size: int) -> None:
    """Have the aggregator tell what it cannot do with a model of `size` parameters, before a folder is begun.

    Raises:
        ConfigError: it cannot begin, such as without the memory that it needs.
        PartError: it is one of another package and fails.
    """
    aggregating.first_state(config.aggregator.build(), world, size)


def say_availability(config: Config, world: World, say: Say) -> None:
    """Tell the user whether availability comes out as requested over the run's rounds; on the wall clock, nothing."""
    if world.availability is None:
        return
    check = self_check(world.availability, config.rounds.count, world.interval_s)
    for line in describe_check(check, config.availability.name, wanted(config), config.device_ids):
        say(line)


def say_idle(config: Config, say: Say) -> None:
    """Tell the user of keys that were set and change nothing in this run."""
    for key, reason in _idle(config):
        say(f"warning: {key} has no effect: {reason}")


def _idle(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the keys that differ from their defaults and that nothing of the run reads, and why."""
    usual, schedule_only = type(config).model_construct(), "only parityfl schedule draws utility from it"
    idle = [("utility.mu", schedule_only), ("utility.noise", schedule_only)]
    if not config.rounds.virtual:
        live = "it belongs to experiments; on the wall clock devices are as slow as they are, and leave when they do"
        idle += [(f"latency.{key}", live) for key in type(config.latency).model_fields]
        idle += [(f"dropout.{key}", live) for key in type(config.dropout).model_fields]
    elif not build_conditions(config).has_latency:
        at_once = "without [latency] all replies of an experiment come at once; set latency.median_s"
        keys = ["deadline", "quorum", "late"]
        if config.engine.name == "local":  # elsewhere it bounds how long a round may hang
            keys.insert(1, "deadline_s")
        idle += [(f"rounds.{key}", at_once) for key in keys]
    for key, reason in idle:
        section, _, name = key.partition(".")
        if getattr(getattr(config, section), name) != getattr(getattr(usual, section), name):
            yield key, reason


def build_spec(config: Config, world: World, layout: Layout, initial_weights: Callable[[], Vector]) -> RunSpec:
    """Return the run that a configuration describes."""
    objective = config.objective.build()
    return RunSpec(
        world=world,
        device_ids=config.device_ids,
        layout=layout,
        initial_weights=initial_weights,
        selector=config.selector.build(),
        aggregator=config.aggregator.build(),
        optimizer=config.server.build(),
        uses_control=objective.uses_control,
        rounds=config.rounds.count,
        wanted=wanted(config),
        virtual=config.rounds.virtual,
        functional=config.utility.functional,
        evaluate_every=config.evaluation.every,
        test_every=config.evaluation.test_every,
        ema=config.evaluation.ema,
        local_lr=config.training.lr,
        local_epochs=config.training.epochs,
        trusts_latency=not config.rounds.virtual or build_conditions(config).has_latency,
        max_idle_rounds=config.rounds.max_idle_rounds,
        deadline=config.rounds.build_deadline(),
        carry=config.transport.build(),
        repeatable=config.engine.mode != "batched",
    )


def wanted(config: Config) -> int:
    """Return how many clients a round asks; 1.1 times 10 is 11, though not in floating point."""
    return min(config.population.clients, math.ceil(round(config.population.per_round * config.rounds.over_select, 9)))


def build_conditions(config: Config) -> Conditions:
    """Return what the seeded world of an experiment does to its rounds."""
    return Conditions(
        latency=config.latency.build(),
        dropout=config.dropout.build(),
        quorum=config.rounds.quorum,
        late=config.rounds.late,
        patience_s=config.rounds.train_timeout_s,
    )
