"""What there is: every registered part by name, what it is, its source and its keys."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from inspect import cleandoc
from math import isfinite
from typing import Any

from rich.text import Text

from parityfl.config import describe_preset
from parityfl.core.errors import ConfigError
from parityfl.core.presets import preset_document, preset_names
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


@dataclass(frozen=True)
class Details:
    """One part whole: what it is, with what its keys mean, where it comes from, and the TOML that configures it."""

    about: str
    source: str
    toml: str


def overview(kind: str) -> list[Text]:
    """Return a line for each part of a kind; see `entries`."""
    found = entries(kind)
    width = max((len(entry.name) for entry in found), default=0)
    return [
        Text.assemble((entry.name.ljust(width), "bold"), f"  {entry.about}", _sourced(entry.source)) for entry in found
    ]


def whole(kind: str, name: str) -> Text:
    """Return all about one part; see `details`."""
    found = details(kind, name)
    paragraphs = (f"\n\n{text}" for text in (found.about, found.toml) if text)
    return Text.assemble((name, "bold"), _sourced(found.source), *paragraphs)


def entries(kind: str) -> list[Entry]:
    """Return what there is of a kind, by name, with what other packages registered.

    Raises:
        ConfigError: no such kind.
    """
    if kind == "presets":
        return [Entry(name, *describe_preset(name)) for name in preset_names()]
    registry = _registry(kind)
    return [_entry(name, registry.get(name)) for name in registry.names()]


def details(kind: str, name: str) -> Details:
    """Return one part of a kind with its keys: the defaults, or what a preset sets.

    Raises:
        ConfigError: no such kind, or no such part.
    """
    if kind == "presets":
        about, source = describe_preset(name)
        return Details(about, source, _tables({k: v for k, v in preset_document(name).items() if isinstance(v, dict)}))
    part = _registry(kind).get(name)
    section = "data" if kind == "datasets" else REGISTRIES[kind][1]
    entry = _entry(name, part)
    return Details(cleandoc(part.__doc__ or ""), entry.source, _tables({section: {"name": name, **_defaults(part)}}))


def _sourced(source: str) -> tuple[str, str]:
    return f"  [{source}]" if source else "", "dim"


def _registry(kind: str) -> Registry[object]:
    if kind not in REGISTRIES:
        raise ConfigError(f"nothing to list under {kind!r}: choose one of {', '.join(KINDS)}")
    module, attribute = REGISTRIES[kind]
    registry: Registry[object] = getattr(import_module(module), attribute)
    return registry


def _entry(name: str, part: type[object]) -> Entry:
    lines = (part.__doc__ or "").strip().splitlines()
    return Entry(name, lines[0] if lines else "", str(getattr(part, "source", "")))


def _defaults(part: type[object]) -> dict[str, Any]:
    keys = [key for key in fields(part) if key.init] if is_dataclass(part) else []
    return {
        key.name: key.default_factory() if key.default_factory is not MISSING else key.default  # one of them is there
        for key in keys
    }


def _tables(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return sections as TOML."""
    tables = (
        "\n".join([f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())])
        for section, keys in sections.items()
    )
    return "\n\n".join(tables)


def _toml(value: Any) -> str:
    """Return a value as TOML has it; None is the word ``none``, as the configuration takes it."""
    if value is None:
        return '"none"'
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value) if isinstance(value, float) and not isfinite(value) else json.dumps(value, ensure_ascii=False)
