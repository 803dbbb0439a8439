"""What a workbench answers, as exact text: run as a program, it answers from another process."""

import json
import sys
from hashlib import sha256
from typing import Any

from parityfl.config import Config
from parityfl.core.types import FloatArray, Vector
from parityfl.training.workbench import Workbench


def answers(document: dict[str, Any], hosted: list[int]) -> dict[str, Any]:
    """Train the hosted clients in the given order, and evaluate the initial model."""
    bench = Workbench(Config(**document), clients=hosted)
    weights = bench.initial_weights()
    return {
        "initial": digest(weights),
        "devices": {str(client): device(bench, client, weights) for client in hosted},
        "clients": [values.tolist() for values in measured(bench, weights)],
        "test": list(bench.evaluate_test(weights)),
    }


def measured(bench: Workbench, weights: Vector) -> tuple[FloatArray, FloatArray]:
    """Return loss and accuracy on every client's held-out part, nan where it has none."""
    held = bench.holdings.held
    losses, hits = bench.measure("held", weights)
    return held.means(losses), held.means(hits)


def device(bench: Workbench, client: int, weights: Vector) -> list[Any]:
    update, _ = bench.train(1, client, weights)
    losses = [update.train_loss, update.loss_before, update.loss_after]
    return [digest(update.delta), losses, list(bench.evaluate_client(client, weights))]


def digest(vector: Vector) -> str:
    return sha256(vector.tobytes()).hexdigest()


if __name__ == "__main__":
    print(json.dumps([answers(document, hosted) for document, hosted in json.loads(sys.argv[1])]))
