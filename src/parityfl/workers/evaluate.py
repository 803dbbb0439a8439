"""Evaluation with the data of this machine, in pieces that workers measure side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from parityfl.core.types import BoolArray, FloatArray, Vector
from parityfl.engine.fleet import ClientEvaluation, Evaluation
from parityfl.training.holdings import PartName, spans
from parityfl.workers.crew import Crew
from parityfl.workers.jobs import MeasureJob

if TYPE_CHECKING:
    from parityfl.training.workbench import Workbench


class WorkbenchEvaluator:
    """Evaluates with the data of this machine: the test set, and every client's held-out part, present or not.

    Pieces of whole batches are measured side by side, and put together in order before anything is averaged: the
    figures do not depend on who measured what.

    Args:
        workbench: the data.
        crew: who measures; None for this process.
    """

    def __init__(self, workbench: Workbench, crew: Crew | None = None) -> None:
        self._bench = workbench
        self._crew = Crew.alone(workbench) if crew is None else crew

    async def __call__(self, round: int, weights: Vector, average: Vector, *, on_test_set: bool = True) -> Evaluation:
        """Evaluate, off the event loop."""
        vectors = {"weights": weights}
        if on_test_set and not np.array_equal(weights, average):
            vectors["average"] = average
        for name, vector in vectors.items():
            self._crew.board.put(name, vector)
        tests = list(vectors) if on_test_set else []
        *tested, (losses, hits) = await self._measure([*((name, "test") for name in tests), ("weights", "held")])
        figures = [(float(each.mean()), float(right.mean())) for each, right in tested] or [(math.nan, math.nan)]
        held = self._bench.holdings.held
        return Evaluation(
            global_loss=figures[0][0],
            global_accuracy=figures[0][1],
            ema_global_accuracy=figures[-1][1],
            clients=ClientEvaluation(held.means(losses), held.means(hits)),
        )

    async def _measure(self, wanted: Sequence[tuple[str, PartName]]) -> list[tuple[FloatArray, BoolArray]]:
        """Return the loss and the correctness of each example, for each model and part."""
        jobs = [job for model, part in wanted for job in self._jobs(model, part)]
        pieces = iter(await self._crew.gather(jobs))
        measured = []
        for model, part in wanted:
            losses, hits = zip(*(next(pieces) for _ in self._jobs(model, part)), strict=True)
            measured.append((np.concatenate(losses), np.concatenate(hits)))
        return measured

    def _jobs(self, model: str, part: PartName) -> list[MeasureJob]:
        total = len(self._bench.holdings.part(part).labels)
        return [MeasureJob(model, part, start, stop) for start, stop in spans(total, self._bench.evaluation_batch)]
