"""The local engine against what the machine allows: cores times the training rate of one thread in a bare loop.

    python benchmarks/training.py [--quick] [--models cnn-small cnn] [--repeats 5] [--rounds 6]

Fashion-MNIST, 100 clients of 600 images, 480 of which they train on and 120 of which they hold out, 10 clients a round,
one epoch in batches of 32. A bare loop trains the same network on the same images, resident and normalised, on flat
weights: no client, no held-out part, no ledger. A round of the engine also measures each client's held-out part before
and after its training, so there is a second bare loop that does this and nothing else more.

All sides take turns in one run; the first turn warms up. The rows of `a round of a run` say where the time of a real
run's rounds goes: `the rest` is selection, aggregation, ledger, metrics, journal and tables.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from rows import REPEATS, Row, emit, parser, row, say
from torch import Tensor, nn

from parityfl.allocator import keep_freed_memory
from parityfl.config import Config
from parityfl.core.types import Vector
from parityfl.engine.fleet import ClosedRound, TrainTask
from parityfl.experiments.build import WorkbenchEvaluator
from parityfl.experiments.crew import Crew
from parityfl.experiments.local import LocalFleet, cores, local_crew
from parityfl.experiments.run import execute
from parityfl.training.models import build_model
from parityfl.training.workbench import Workbench

BATCH, LR, PER_ROUND, TRAINED, HELD = 32, 0.05, 10, 480, 120


def configuration(model: str, rounds: int, held: int = HELD) -> Config:
    """Return the run that is measured."""
    return Config(
        method="fedavg",
        data={"name": "fashion-mnist"},
        model={"name": model},
        population={
            "clients": 100,
            "per_round": PER_ROUND,
            "samples_per_client": TRAINED + held,
            "holdout": held / (TRAINED + held),
        },
        training={"batch_size": BATCH, "lr": LR},
        availability={"name": "always"},
        rounds={"count": rounds},
        engine={"workers": cores()},
    )


class Bare:
    """The bare loop: one thread, resident images, weights and gradients as views of two flat tensors."""

    def __init__(self, model: str) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self.net = build_model(model, (1, 28, 28), 10).to(memory_format=torch.channels_last)
        sizes = [parameter.numel() for parameter in self.net.parameters()]
        self.weights, self.gradient = torch.zeros(sum(sizes)), torch.zeros(sum(sizes))
        parts = zip(self.net.parameters(), self.weights.split(sizes), self.gradient.split(sizes), strict=True)
        for parameter, weights, gradient in parts:
            weights.copy_(parameter.detach().permute(_last(parameter)).reshape(-1))
            parameter.data = _viewed(weights, parameter)
            parameter.grad = _viewed(gradient, parameter)
        rng = torch.Generator().manual_seed(0)
        self.images = torch.randn(TRAINED, 1, 28, 28, generator=rng).contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 10, (TRAINED,), generator=rng)

    def train(self, clients: int, with_held_out: bool) -> None:
        """Train so many clients, one after the other, from the same weights."""
        start = self.weights.clone()
        for _ in range(clients):
            self.weights.copy_(start)
            if with_held_out:
                self.measure(HELD, HELD)
            order = torch.randperm(TRAINED)
            images, labels = self.images[order], self.labels[order]
            for first in range(0, TRAINED, BATCH):
                self.gradient.zero_()
                loss = nn.functional.cross_entropy(
                    self.net(images[first : first + BATCH]), labels[first : first + BATCH]
                )
                loss.backward()
                self.weights.add_(self.gradient, alpha=-LR)
            if with_held_out:
                self.measure(HELD, HELD)

    def measure(self, total: int, batch: int) -> None:
        """Predict so many images."""
        with torch.inference_mode():
            for first in range(0, total, batch):
                self.net(self.images[: min(batch, total - first)])


def _last(parameter: Tensor) -> tuple[int, ...]:
    return (0, 2, 3, 1) if parameter.dim() == 4 else tuple(range(parameter.dim()))


def _viewed(flat: Tensor, parameter: Tensor) -> Tensor:
    if parameter.dim() < 4:
        return flat.view(parameter.shape)
    outputs, inputs, height, width = parameter.shape
    return flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


_bare: Bare | None = None


def _begin(model: str) -> None:
    global _bare  # noqa: PLW0603 -- a pool's initializer has no other way to hand something to its jobs
    _bare = Bare(model)


def _bare_train(clients: int, with_held_out: bool) -> float:
    assert _bare is not None
    began = perf_counter()
    _bare.train(clients, with_held_out)
    return perf_counter() - began


@dataclass
class Times:
    """Seconds of each side, a list of repeats."""

    by_name: dict[str, list[float]] = field(default_factory=dict)

    def take(self, name: str, work: Callable[[], object]) -> None:
        """Time a piece of work."""
        began = perf_counter()
        work()
        self.add(name, perf_counter() - began)

    def add(self, name: str, seconds: float) -> None:
        """Note a time."""
        self.by_name.setdefault(name, []).append(seconds)

    def row(self, title: str, side: str, images: int | None = None) -> Row:
        """Return a side's row without its first turn: seconds, or images a second."""
        known = self.by_name[side][1:]
        if images is None:
            return row(title, "s", side, known)
        return row(title, "images/s", side, [images / seconds for seconds in known])


@contextmanager
def bare_processes(model: str) -> Iterator[ProcessPoolExecutor]:
    """Yield as many processes with a bare loop as there are cores."""
    with ProcessPoolExecutor(cores(), get_context("spawn"), initializer=_begin, initargs=(model,)) as pool:
        list(pool.map(_bare_train, [1] * cores(), [False] * cores()))
        yield pool


def measure(model: str, repeats: int) -> Times:
    """Return the times of all sides."""
    times = Times()
    whole, bare_minimum = (Workbench(configuration(model, 1, held)) for held in (HELD, 0))
    weights, count = whole.initial_weights(), cores()
    share = [PER_ROUND // count + (rank < PER_ROUND % count) for rank in range(count)]

    async def train(name: str, crew: Crew, number: int) -> None:
        began = perf_counter()
        async for reply in LocalFleet(crew, None, None).train(_task(number, weights)):  # type: ignore[arg-type]
            assert reply.update is not None
        times.add(name, perf_counter() - began)

    async def turns() -> None:
        with (
            bare_processes(model) as bare,
            local_crew(whole, count, say) as crew,
            local_crew(bare_minimum, count, say) as crew_without,
        ):
            evaluate = WorkbenchEvaluator(whole, crew)
            for number in range(1, repeats + 2):
                times.add("one bare loop", bare.submit(_bare_train, share[0], False).result())
                times.take("a bare loop a core", lambda: list(bare.map(_bare_train, share, [False] * count)))
                await train("the engine, nothing held out", crew_without, number)
                times.take(
                    "a bare loop a core, held-out parts measured",
                    lambda: list(bare.map(_bare_train, share, [True] * count)),
                )
                await train("the engine", crew, number)
                began = perf_counter()
                await evaluate(number, weights, weights * np.float32(0.9))
                times.add("the engine's evaluation", perf_counter() - began)

    asyncio.run(turns())
    return times


def _task(round: int, weights: Vector) -> TrainTask:
    clients = (np.arange(PER_ROUND) * 7 + round) % 100
    return TrainTask(round, 0.0, np.sort(clients), weights, lambda _: weights, None, np.zeros(100, dtype=np.int64))


class Stamps:
    """An observer that notes how long each round took, journal and tables included, and what of it had a name."""

    def __init__(self) -> None:
        self.times = Times()
        self._last = 0.0

    def started(self, weights: Vector, rounds_done: int, rounds_total: int) -> None:
        """Begin to count."""
        self._last = perf_counter()

    def round_closed(self, closed: ClosedRound) -> None:
        """Note a round."""
        now = perf_counter()
        self.times.add("the whole round", now - self._last)
        for name, side in (("train_s", "training"), ("evaluate_s", "evaluation")):
            self.times.add(side, float(closed.figures[name]))
        rest = now - self._last - sum(float(closed.figures[name]) for name in ("train_s", "evaluate_s"))
        self.times.add("the rest", rest)
        self._last = perf_counter()


def whole_run(model: str, rounds: int) -> Times:
    """Return the times of the rounds of a run."""

    @contextmanager
    def watch() -> Iterator[Stamps]:
        yield stamps

    stamps = Stamps()
    with tempfile.TemporaryDirectory() as folder:
        execute(configuration(model, rounds), Path(folder) / "run", watch=watch)
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
        assert summary["status"] == "done"
    return stamps.times


def report(model: str, repeats: int, rounds: int) -> None:
    """Print a model's rows."""
    times = measure(model, repeats)
    trained, evaluated = PER_ROUND * TRAINED, 2 * 10_000 + 100 * HELD
    share = PER_ROUND // cores() + (PER_ROUND % cores() > 0)
    images = {"one bare loop": share * TRAINED, "the engine's evaluation": evaluated}
    emit(times.row(f"{model}, images", name, images.get(name, trained)) for name in times.by_name)
    run = whole_run(model, rounds)
    emit(run.row(f"{model}, a round of a run", name) for name in run.by_name)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=["cnn-small", "cnn"])
    options.add_argument("--repeats", type=int, default=REPEATS)
    options.add_argument("--rounds", type=int, default=6)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.models, arguments.repeats, arguments.rounds = ["cnn-small"], 1, 2
    for model in arguments.models:
        report(model, arguments.repeats, arguments.rounds)


if __name__ == "__main__":
    main()
