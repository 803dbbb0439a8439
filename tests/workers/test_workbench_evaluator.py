"""Evaluation comes to the same whoever measures."""

import asyncio
from typing import Any

import numpy as np
import pytest
from workbenches import config, with_workers

from parityfl.engine.fleet import Evaluation
from parityfl.training.holdings import spans
from parityfl.training.workbench import Workbench
from parityfl.workers.crew import Crew
from parityfl.workers.evaluate import WorkbenchEvaluator


@pytest.mark.parametrize("model", ["mlp", "cnn-small"])
def test_evaluation_is_the_same_whoever_measures(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test images in pieces of a batch and by one pass; the moving average is another model than the weights."""
    monkeypatch.setattr("parityfl.training.holdings.BATCHES_A_PIECE", 1)
    bench = Workbench(config(model={"name": model}))
    weights = bench.initial_weights()
    average = weights * np.float32(0.5)
    found = []
    for workers in (1, 2):

        async def work(crew: Crew) -> Any:
            return await WorkbenchEvaluator(bench, crew)(1, weights, average)

        found.append(with_workers(bench, workers, work)[0])
    one, two = found
    assert (one.global_loss, one.global_accuracy, one.ema_global_accuracy) == (
        two.global_loss,
        two.global_accuracy,
        two.ema_global_accuracy,
    )
    assert one.clients.loss.tobytes() == two.clients.loss.tobytes()
    assert (one.global_loss, one.global_accuracy) == bench.evaluate_test(weights)
    assert one.ema_global_accuracy == bench.evaluate_test(average)[1]
    assert np.array_equal(one.clients.accuracy, bench.holdings.held.means(bench.measure("held", weights)[1]))


def test_an_evaluation_without_the_test_set_measures_the_clients_alike() -> None:
    bench = Workbench(config())
    weights = bench.initial_weights()

    async def both() -> list[Evaluation]:
        evaluate = WorkbenchEvaluator(bench)
        return [await evaluate(1, weights, weights * np.float32(0.5), on_test_set=tested) for tested in (True, False)]

    whole, clients_only = asyncio.run(both())
    assert np.isnan([clients_only.global_loss, clients_only.global_accuracy, clients_only.ema_global_accuracy]).all()
    assert clients_only.clients.loss.tobytes() == whole.clients.loss.tobytes()
    assert clients_only.clients.accuracy.tobytes() == whole.clients.accuracy.tobytes()


def test_pieces_are_whole_batches() -> None:
    """Sixteen batches of 64 are 1,024; nothing is one piece of nothing."""
    assert list(spans(2500, 64)) == [(0, 1024), (1024, 2048), (2048, 2500)]
    assert list(spans(1024, 64)) == [(0, 1024)]
    assert list(spans(0, 64)) == [(0, 0)]


def test_pieces_measure_what_the_whole_does(bench: Workbench) -> None:
    weights, batch = bench.initial_weights(), bench.evaluation_batch
    whole = bench.measure("test", weights)
    pieces = [bench.measure("test", weights, 0, batch), bench.measure("test", weights, batch)]
    assert all(len(piece[0]) > 0 for piece in pieces)
    for parts, together in zip(zip(*pieces, strict=True), whole, strict=True):
        assert np.concatenate(parts).tobytes() == together.tobytes()
