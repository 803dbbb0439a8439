"""What a run is called in a comparison: its setting, and its method within the setting."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from parityfl.core.presets import method_name, parts_joined

Config = dict[str, Any]

SETTING = (
    "population",
    "data",
    "model",
    "training",
    "evaluation",
    "availability",
    "latency",
    "dropout",
    "rounds",
    "utility",
)
"""Sections that methods must share to be compared."""

METHOD = (
    "selector",
    "aggregator",
    "objective",
    "server",
    "transport.dtype",
    "engine.precision",
    "engine.mode",
    "engine.pre_aggregate",
    "security.max_update_norm",
)
"""Sections and keys that make a method: what is computed, whoever computes it."""

FEDAVG = ("uniform", "fedavg", "plain", "none")
"""The `parts` of FedAvg."""

_OF_NO_ACCOUNT = {"data.root", "evaluation.test_every"}
"""Keys that do not change how a run goes: where its data lie, and how often it looks at the test set."""


def setting_key(config: Config) -> str:
    """Return a text that is equal for two runs exactly where their settings are."""
    return _canonical(_told_by(config, SETTING))


def method_key(config: Config) -> str:
    """Return a text that is equal for two runs exactly where their methods are."""
    return _canonical({"method": config.get("method"), **_told_by(config, METHOD)})


def settings(configs: Sequence[Config]) -> dict[str, str]:
    """Return, by `setting_key`, the keys that tell each setting from the others; '' where there is but one."""
    distinct = {setting_key(config): config for config in configs}
    return _told_apart(dict(zip(distinct, _describe(list(distinct.values()), SETTING), strict=True)))


def methods(configs: Sequence[Config]) -> dict[str, str]:
    """Return, by `method_key`, each method's label.

    That is the method's name where it stands for one method only, and its parts are those of the preset of that name;
    else the names of the parts, and where these are not enough, the keys that differ.
    """
    distinct = {method_key(config): config for config in configs}
    by_name = _group(distinct, method_name)
    named = {keys[0]: name for name, keys in by_name.items() if name and len(keys) == 1}
    return _told_apart(named | _labels_by_parts({k: config for k, config in distinct.items() if k not in named}))


def _labels_by_parts(distinct: dict[str, Config]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for label, keys in _group(distinct, parts_joined).items():
        details = _describe([distinct[key] for key in keys], METHOD)
        labels |= {key: f"{label} ({detail})" if detail else label for key, detail in zip(keys, details, strict=True)}
    return labels


def _group(distinct: dict[str, Config], name: Any) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key, config in distinct.items():
        groups[name(config)].append(key)
    return groups


def _told_apart(labels: dict[str, str]) -> dict[str, str]:
    """Return the labels by key, with a few digits of the key's hash where two would be the same."""
    times = Counter(labels.values())
    digits = {key: sha256(key.encode()).hexdigest()[:6] for key in labels}
    return {key: label if times[label] == 1 else f"{label} #{digits[key]}".strip() for key, label in labels.items()}


def _flatten(config: Config, wanted: Sequence[str]) -> Config:
    """Return the values of the wanted sections and keys by dotted key."""
    sections = dict.fromkeys(name.partition(".")[0] for name in wanted)
    pairs = (
        (section, f"{section}.{key}", value) for section in sections for key, value in config.get(section, {}).items()
    )
    found = {key: value for section, key, value in pairs if section in wanted or key in wanted}
    return {key: value for key, value in found.items() if key not in _OF_NO_ACCOUNT}


def _told_by(config: Config, wanted: Sequence[str]) -> Config:
    """Return what tells two runs apart: as `_flatten`, with a file's SHA-256 where its path is known to the run."""
    files = config.get("files", {})

    def content(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: content(name, each) for name, each in value.items()}
        if isinstance(value, list):
            return [content(key, each) for each in value]
        return files.get(value, value) if isinstance(value, str) and key.rpartition(".")[2] != "name" else value

    return {key: content(key, value) for key, value in _flatten(config, wanted).items()}


def _canonical(value: Config) -> str:
    return json.dumps(value, sort_keys=True)


def _describe(configs: list[Config], sections: Sequence[str]) -> list[str]:
    """Return, for each configuration, the keys and values that not all share.

    Where another `name` brings other keys into a section, the name alone says so.
    """
    told = [_told_by(config, sections) for config in configs]
    written = [_flatten(config, sections) for config in configs]
    return [
        ", ".join(_pair(key, flat[key]) for key in own if _tells(key, own, told))
        for own, flat in zip(told, written, strict=True)
    ]


def _tells(key: str, own: Config, everyone: list[Config]) -> bool:
    name = key.partition(".")[0] + ".name"
    peers = everyone if key == name else [other for other in everyone if other.get(name) == own.get(name)]
    return any(other.get(key) != own[key] for other in peers)


def _pair(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > 32:
        text = f"…{text[-31:]}" if isinstance(value, str) else f"{text[:31]}…"  # of a path the end tells most
    return f"{key.removesuffix('.name')}={text}"
