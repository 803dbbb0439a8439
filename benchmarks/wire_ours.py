"""Rounds of echo clients through the real coordinator and the real client application; called by `wire.py`.

    python benchmarks/wire_ours.py CLIENTS MODEL ROUNDS [bf16]

The coordinator is this process, the clients are in two others. Prints one JSON line: the seconds of each round from
asking to the folded mean, the processor seconds of this process in each, and its memory before and at its peak.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
from collections.abc import Mapping
from time import perf_counter, process_time

import numpy as np
from memory import peak_bytes, reset_peak, rss_bytes
from wire_models import named

from parityfl.client.serve import serve as serve_devices
from parityfl.client.settings import Settings
from parityfl.config import Config
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.serve import Service, serve
from parityfl.core.aggregation.combine import fold
from parityfl.core.arrays import Layout
from parityfl.core.types import Update, Vector, World
from parityfl.engine.fleet import Observer, TrainTask
from parityfl.engine.intake import Intake
from parityfl.web.server import bind, port_of, run

PROCESSES = 2
SAMPLES = 10


class EchoWorkbench:
    """Sends back the model that it is sent."""

    def __init__(self, clients: int, model: str) -> None:
        self.layout = layout_of(model)
        self.num_samples = np.full(clients, SAMPLES)
        self.label_counts = np.full((clients, 1), SAMPLES)

    def initial_weights(self) -> Vector:
        """Return zeros."""
        return np.zeros(self.layout.size, dtype=np.float32)

    def train(self, round: int, client: int, weights: Vector, *_: object, **__: object) -> tuple[Update, None]:
        """Return the model as the update."""
        return Update(client, weights, SAMPLES, 0.0), None

    def evaluate_client(self, client: int, weights: Vector) -> tuple[float, float, int]:
        """Return nothing of interest."""
        return 0.0, 0.0, SAMPLES


def layout_of(model: str) -> Layout:
    """Return where the parameters of a model lie."""
    tensors = named(model)
    return Layout(tuple(tensors), tuple(tensors.values()))


def devices(url: str, names: tuple[str, ...], clients: int, model: str) -> None:
    """Host devices until the coordinator says that all is over; the main function of a process."""

    def factory(config: Config, hosted: Mapping[int, str]) -> EchoWorkbench:
        return EchoWorkbench(clients, model)

    run(serve_devices(Settings(server=url, device_ids=names, port=0), factory))


def main() -> None:
    """Run the rounds and print what they took."""
    model, clients, rounds = sys.argv[2], int(sys.argv[1]), int(sys.argv[3])
    config = Config(
        method="fedavg",
        population={"clients": clients, "per_round": clients},
        availability={"name": "always"},
        rounds={"count": rounds},
        transport={"dtype": (sys.argv[4:] or ["float32"])[0]},
    )
    samples = np.full(clients, SAMPLES)
    world = World(0, clients, clients, config.rounds.interval_s, samples, samples.reshape(-1, 1))
    availability = config.availability.build().bind(world)
    listening = bind("127.0.0.1", 0)
    url, ids, count = f"http://127.0.0.1:{port_of(listening)}", config.device_ids, min(PROCESSES, clients)
    context = multiprocessing.get_context("spawn")
    groups = [tuple(ids[rank::count]) for rank in range(count)]
    processes = [context.Process(target=devices, args=(url, group, clients, model)) for group in groups]
    for process in processes:
        process.start()
    found: dict[str, object] = {}

    async def drive(fleet: HttpFleet, observer: Observer) -> None:
        found.update(await play(fleet, clients, rounds))

    run(serve(config, layout_of(model), drive, listening, Service(), availability=availability))
    for process in processes:
        process.join()
    print(json.dumps(found), flush=True)


async def play(fleet: HttpFleet, clients: int, rounds: int) -> dict[str, object]:
    """Run a round that warms up and then those that count."""
    weights = np.random.default_rng(0).standard_normal(fleet.layout.size, dtype=np.float32) * np.float32(1e-3)
    weights = fleet.config.transport.build()(weights)
    base, seconds, cpu = rss_bytes(), [], []
    for number in range(1, rounds + 2):
        if number == 2:
            reset_peak()
        began, worked = perf_counter(), process_time()
        await one_round(fleet, number, weights, clients)
        seconds.append(perf_counter() - began)
        cpu.append(process_time() - worked)
    return {"rounds": seconds[1:], "cpu": cpu[1:], "base": base, "peak": peak_bytes()}


async def one_round(fleet: HttpFleet, number: int, weights: Vector, clients: int) -> None:
    """Ask all clients and fold what they send, as the round loop does: in a thread, while later ones come in."""
    everyone = np.arange(clients)
    task = TrainTask(number, 0.0, everyone, weights, lambda _: weights, None, np.zeros(clients, dtype=np.int64))
    await fleet.look(number, 0.0)
    intake = Intake(fleet.train(task))

    def folded() -> int:
        return fold(((1.0, update.delta) for update in intake), len(weights)).count

    assert await asyncio.to_thread(folded) == clients


if __name__ == "__main__":
    main()
