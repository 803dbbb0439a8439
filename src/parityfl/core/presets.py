"""The presets that ship in the package, as their files hold them, and what a run's method is called."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

_FOLDER = files("parityfl") / "presets"

PARTS = (
    ("selector", "name", "lnu"),
    ("aggregator", "name", "mifa"),
    ("objective", "name", "plain"),
    ("server", "optimizer", "none"),
)
"""The sections and keys that name what a method is made of, with their defaults."""


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def preset_document(name: str) -> dict[str, Any]:
    """Return the content of an existing preset."""
    document: dict[str, Any] = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return document


def method_label(config: Mapping[str, Any]) -> str:
    """Return the name of the method of a configuration's document, or that of its parts where it has none."""
    return method_name(config) or parts_joined(config)


def method_name(config: Mapping[str, Any]) -> str:
    """Return the method's name, '' where it is a preset's and the parts are others; the user's own names stay."""
    name = str(config.get("method") or "")
    return name if _preset_parts().get(name, parts(config)) == parts(config) else ""


def parts(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a method's selector, aggregator, objective and server optimiser."""
    return tuple(str(config.get(section, {}).get(key) or usual) for section, key, usual in PARTS)


def parts_joined(config: Mapping[str, Any]) -> str:
    """Return the names of selector and aggregator, and of the other parts that are not the default, joined by +."""
    named = parts(config)
    besides = [name for name, (_, _, usual) in zip(named[2:], PARTS[2:], strict=True) if name != usual]
    return "+".join([*named[:2], *besides])


@cache
def _preset_parts() -> dict[str, tuple[str, ...]]:
    """Return the parts of every preset by name."""
    return {name: parts(preset_document(name)) for name in preset_names()}
