"""A run small enough to follow by hand, and real servers for it on loopback.

The model has d = 3 parameters: "w" of shape (2,) and "b", a scalar. Client k trains by adding k + 1 to every one of
them, plus what it kept (0 at first), and keeps the round's number where its objective keeps anything.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from threading import Event
from typing import Any, TypeVar

import httpx
import numpy as np
from starlette.types import ASGIApp

from parityfl.config import Config
from parityfl.core.arrays import Layout
from parityfl.core.types import Update, Vector
from parityfl.web.server import bind, port_of, serving
from parityfl.wire.digests import model_digest
from parityfl.wire.payload import assemble
from parityfl.wire.schemas import TrainRequest

T = TypeVar("T")

LAYOUT = Layout(("w", "b"), ((2,), ()))
WEIGHTS = np.array([1, 2, 3], dtype=np.float32)
RUN = "run-1"
SAMPLES = (10, 20, 30, 40)
PATIENCE_S = 30


def small_config(**sections: Any) -> Config:
    """Return a configuration of four clients, always available unless said otherwise."""
    given = {"population": {"clients": 4, "per_round": 4}, "availability": {"name": "always"}, "method": "fedavg"}
    return Config(**{**given, **sections})


class NumpyWorkbench:
    """Stands in for torch. `gate` holds every training back until it is set."""

    layout = LAYOUT
    careful = False
    num_samples = np.array(SAMPLES)
    label_counts = np.array([[samples, 0] for samples in SAMPLES])

    def __init__(self, config: Config, clients: Collection[int], gate: Event | None = None) -> None:
        self.config = config
        self.clients = list(clients)
        self.gate = gate
        self.trained: list[tuple[int, int]] = []

    def initial_weights(self) -> Vector:
        return WEIGHTS.copy()

    def train(
        self,
        round: int,
        client: int,
        weights: Vector,
        control: Vector | None = None,
        memory: Vector | None = None,
        *,
        proceed: Callable[[], None] = lambda: None,
    ) -> tuple[Update, Vector | None]:
        """Wait for the gate; where the process is `careful`, only as long as it may proceed."""
        if self.gate is not None:
            for _ in range(100 * PATIENCE_S):
                if self.gate.wait(0.01):
                    break
                if self.careful:
                    proceed()
        self.trained.append((round, client))
        kept = np.float32(0) if memory is None else memory
        change = None if control is None else control * np.float32(2)
        update = Update(client, np.full(3, client + 1, np.float32) + kept, SAMPLES[client], 0.5, 1.5, control=change)
        keeps = self.config.objective.build().keeps_memory
        return update, np.full(3, round, np.float32) if keeps else None

    def evaluate_client(self, client: int, weights: Vector) -> tuple[float, float, int]:
        return float(np.sum(weights)), (client + 1) / 10, 5


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test that is a coroutine; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(main, PATIENCE_S))


async def until(condition: Callable[[], object]) -> None:
    """Return once something is so, which others are about to bring about."""
    while not condition():
        await asyncio.sleep(0.005)


@asynccontextmanager
async def served(app: ASGIApp, port: int = 0) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an application on a port, 0 for a free one, and yield a client for it."""
    listening = bind("127.0.0.1", port)
    url = f"http://127.0.0.1:{port_of(listening)}"
    async with serving(app, listening), httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
        yield http


def train_request(config: Config, **changes: Any) -> TrainRequest:
    """Return what a coordinator would ask in round 1, or something else."""
    usual: dict[str, Any] = {
        "run_id": RUN,
        "round": 1,
        "time_s": 0.0,
        "seed": config.seed,
        "model": config.model.name,
        "model_digest": model_digest(WEIGHTS),
        "training": config.training,
        "objective": config.objective,
    }
    return TrainRequest(**{**usual, **changes})


def train_document(config: Config, **changes: Any) -> bytes:
    """Return the document that carries it, with `WEIGHTS` as the model."""
    return bytes(assemble(train_request(config, **changes), {"model": WEIGHTS}, LAYOUT))


def assert_problem(response: httpx.Response, status: int, *words: str) -> None:
    """Require that an answer is a problem with this status, whose detail has these words."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    assert response.status_code == problem["status"] == status, response.text
    assert all(word in problem["detail"] for word in words), problem["detail"]


def closed_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
