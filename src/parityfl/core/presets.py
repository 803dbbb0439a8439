"""The presets that ship in the package, as their files hold them: what a method's name stands for."""

import tomllib
from importlib.resources import files
from typing import Any

_FOLDER = files("parityfl") / "presets"


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def preset_document(name: str) -> dict[str, Any]:
    """Return the content of a preset that there is."""
    document: dict[str, Any] = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return document
