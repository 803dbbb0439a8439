"""The layers of a configuration: defaults < preset < file < options < ``--set``; how they are read and laid.

Choosing another `name` for a section drops the keys that lower layers gave for the old one. Choosing a `method` drops
the parts of a method that lower layers named.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from parityfl.config.faults import KeyFaultError
from parityfl.config.sections import AUTO, OWN_DATA, Part, Section, Sections
from parityfl.core.errors import ConfigError
from parityfl.core.presets import PARTS, preset_document, preset_names

Layer = Mapping[str, Any]
"""A nested mapping of section -> key -> value, complete or not."""

USUAL_MODELS = {"digits": "mlp"}
"""The model of a data set whose configuration names none, or `AUTO`; `cnn-small` for the others."""


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
    except IsADirectoryError:
        kept = path / "config.json"
        remedy = f"give {kept}" if kept.is_file() else "give a TOML file, or the config.json of a run folder"
        raise ConfigError(f"configuration {path} is a folder: {remedy}") from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"configuration {path} cannot be read ({reason}): give a TOML file, or the config.json of a run folder"
        ) from None
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


def stacked(layers: Sequence[Layer], overrides: Layer) -> dict[str, Any]:
    """Lay the layers over the preset of the highest that names one: each may drop what those below it gave."""
    stack = [*layers, layer_of(overrides)]
    chooser = max((place for place, layer in enumerate(stack) if "method" in layer), default=0)
    merged = dict(read_preset(str(stack[chooser].get("method", "parityfl"))))
    for place, layer in enumerate(stack):
        merged = merge(merged, _without_parts(layer) if place < chooser else layer)
    return merged


def _without_parts(layer: Layer) -> Layer:
    """Return a layer without the sections that name a part of a method, which a higher layer has chosen as a whole."""
    named = {section for section, key, _ in PARTS if _given(layer, section, key, None) is not None}
    return {section: values for section, values in layer.items() if section not in named}


def layer_of(values: Layer) -> Layer:
    """Return the layer that gives values by dotted key."""
    layer: Layer = {}
    for dotted, value in values.items():
        layer = _united(layer, _nested(dotted, value))
    return layer


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    head, dot, rest = dotted.partition(".")
    return {head: _nested(rest, value)} if dot else {head: value}


def _united(left: Layer, right: Layer) -> dict[str, Any]:
    """Lay parts of one layer together: which comes first means nothing, unless both give the same key."""
    both = {key for key in left if isinstance(left[key], Mapping) and isinstance(right.get(key), Mapping)}
    return {**left, **right, **{key: {**left[key], **right[key]} for key in both}}


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
    info = Sections.model_fields.get(section)
    return getattr(info.default, "name", None) if info else None


def with_implied(layer: Layer) -> dict[str, Any]:
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


def given_keys(value: Any) -> Any:
    """Return a section as the keys that were given, its name among them."""
    if not isinstance(value, Section):
        return value
    given = value.model_dump(exclude_unset=True)
    return {"name": value.name, **given} if isinstance(value, Part) else given


def refuse_switches(layer: Layer) -> None:
    """Refuse true and false where a key is neither: pydantic would take them for the numbers 1 and 0."""
    for name, given in layer.items():
        values = given if isinstance(given, Mapping) else {"": given}
        for key, value in values.items():
            if isinstance(value, bool) and not _takes_bool(_type_of(name, key, values)):
                dotted = f"{name}.{key}".rstrip(".")
                raise KeyFaultError(dotted, f"{dotted} = {str(value).lower()}: this key is not true or false")


def _type_of(section: str, key: str, values: Layer) -> Any:
    """Return the type of a key of a section that is given these values, or, without a key, of the section itself.

    None where that is unknown.
    """
    info = Sections.model_fields.get(section)
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
