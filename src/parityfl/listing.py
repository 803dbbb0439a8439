"""What there is: every registered part by name, with the first line of its docstring and its source."""

from dataclasses import dataclass
from importlib import import_module

from parityfl.config import describe_preset
from parityfl.core.errors import ConfigError
from parityfl.core.presets import preset_names
from parityfl.core.registry import Registry

REGISTRIES = {
    "selectors": ("parityfl.core.selection", "selector"),
    "aggregators": ("parityfl.core.aggregation", "aggregator"),
    "objectives": ("parityfl.core.objectives", "objective"),
    "availability": ("parityfl.core.availability", "availability"),
    "datasets": ("parityfl.training.datasets", "dataset"),
    "models": ("parityfl.training.models", "model"),
}
"""Where each kind is registered; only `models` imports torch."""

KINDS = ("presets", *REGISTRIES)
"""What can be listed."""


@dataclass(frozen=True)
class Entry:
    """A line of the list: the name to configure, what it is, and where it comes from."""

    name: str
    about: str
    source: str


def entries(kind: str) -> list[Entry]:
    """Return what there is of a kind, by name, with what other packages registered.

    Raises:
        ConfigError: no such kind.
    """
    if kind == "presets":
        return [Entry(name, *describe_preset(name)) for name in preset_names()]
    if kind not in REGISTRIES:
        raise ConfigError(f"nothing to list under {kind!r}: choose one of {', '.join(KINDS)}")
    module, attribute = REGISTRIES[kind]
    registry: Registry[object] = getattr(import_module(module), attribute)
    return [_entry(name, registry.get(name)) for name in registry.names()]


def _entry(name: str, part: type[object]) -> Entry:
    lines = (part.__doc__ or "").strip().splitlines()
    return Entry(name, lines[0] if lines else "", str(getattr(part, "source", "")))
