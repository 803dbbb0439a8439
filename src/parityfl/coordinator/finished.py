"""A run that has come to its end, as its folder holds it, for a coordinator that goes on serving it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

from parityfl.core.arrays import Layout, model_hash
from parityfl.core.columns import ROUND_COLUMNS
from parityfl.core.errors import FolderError
from parityfl.core.types import Vector
from parityfl.engine.folder import RunFolder


@dataclass(frozen=True)
class Finished:
    """How a run ended.

    Attributes:
        layout: where the model's parameters lie.
        weights: the final model.
        rounds: how many rounds it had.
        figures: the last row of rounds.csv, nan where unknown.
    """

    layout: Layout
    weights: Vector
    rounds: int
    figures: Mapping[str, float]


def read_finished(folder: RunFolder) -> Finished:
    """Return the run of a folder whose summary says that it is done.

    Raises:
        FolderError: the model is missing or damaged, or another one than the summary's.
    """
    layout, weights = folder.read_model()
    summary = folder.summary()
    if model_hash(weights) != summary.get("model_hash"):
        raise FolderError(f"{folder.path} holds another model.safetensors than summary.json names: restore it")
    rounds = int(summary["rounds_completed"])
    known = {name: summary[name] for name in ROUND_COLUMNS if name in summary}
    figures = {"round": rounds} | {name: nan if value is None else value for name, value in known.items()}
    return Finished(layout, weights, rounds, figures)
