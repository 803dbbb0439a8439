"""The local engine against what the machine allows: cores times the training rate of one thread in a bare loop.

    python benchmarks/training.py [--quick] [--models cnn-small cnn] [--repeats 5] [--rounds 6]

Fashion-MNIST, 100 clients that train on 480 images each, 10 clients a round, one epoch in batches of 32. A bare loop
trains the same network on the same images, resident and normalised, on flat weights: no client, no held-out part, no
ledger. A plain torch loop is what one would write without any of this: see `network.py`. Averaging needs all clients
of a round, so bare loops `in rounds` wait for each other after as many clients as a round has: a core that is slower
than the others costs them what it costs the engine. The engine's sides are `train_s` of runs with ledger, metrics and
journal, without their first round. In `nothing held out` it does what the bare loop does; with `clients of unlike
sizes` too, but the images are dealt out by `population.partition = "quantity"`, a handful to some clients and
thousands to others, and a client trains on one core. In the usual run clients hold out 120 images more and measure the
model on them before and after training, so there is a second bare loop, in rounds, that does this and nothing else
more; and every round is evaluated.

The sides take turns, as long as a run's rounds; the first turn warms up. The machine's speed changes from turn to turn,
so the engine is compared within each: the rows of `the engine in turn` are its median in a turn by the median of the
other side in the same one. The rows of `a round of a run` say where the time of the usual run's rounds goes: `the rest`
is selection, aggregation, ledger, metrics, journal and tables.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rows import REPEATS, emit, parser, row, say
from sides import AT_ONCE, ENGINE, EVALUATION, IN_ROUNDS, LOOP, MEASURING, PLAIN, UNEVEN, USUAL, all_cores, beside
from torch import Tensor, nn

from network import build, train
from parityfl.allocator import keep_freed_memory
from parityfl.config import Config
from parityfl.engine.fleet import ClosedRound
from parityfl.experiments.run import execute
from parityfl.training.models import build_model
from parityfl.workers.cores import cores

BATCH, LR, PER_ROUND, TRAINED, HELD = 32, 0.05, 10, 480, 120

PAIRS = (
    (ENGINE, all_cores(LOOP)),
    (ENGINE, all_cores(PLAIN)),
    (ENGINE, AT_ONCE),
    (ENGINE, IN_ROUNDS),
    (UNEVEN, AT_ONCE),
    (USUAL, MEASURING),
    (EVALUATION, AT_ONCE),
)
"""Which side is compared with which, within a turn."""


def configuration(model: str, rounds: int, held: int, sizes: Mapping[str, Any]) -> Config:
    """Return the run that is measured: with held-out parts the usual one, else evaluated at its ends only."""
    return Config(
        method="fedavg",
        data={"name": "fashion-mnist"},
        model={"name": model},
        population={
            "clients": 100,
            "per_round": PER_ROUND,
            "holdout": held / (TRAINED + held),
            **sizes,
        },
        training={"batch_size": BATCH, "lr": LR},
        availability={"name": "always"},
        rounds={"count": rounds},
        evaluation={"every": 1 if held else rounds},
        utility={"functional": "loss_gain" if held else "local_gain"},
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
        self.plain = build(model)

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


def _plain_train(clients: int) -> float:
    assert _bare is not None
    began = perf_counter()
    for _ in range(clients):
        train(_bare.plain, _bare.images, _bare.labels)
    return perf_counter() - began


@contextmanager
def bare_processes(model: str) -> Iterator[ProcessPoolExecutor]:
    """Yield as many processes with a bare loop as there are cores."""
    with ProcessPoolExecutor(cores(), get_context("spawn"), initializer=_begin, initargs=(model,)) as pool:
        list(pool.map(_bare_train, [1] * cores(), [False] * cores()))
        yield pool


class Stamps:
    """An observer that notes the seconds of each round, journal and tables included, and what of it had a name.

    Attributes:
        rounds: these seconds.
        rates: the images a second of each round's training.
    """

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []
        self.rates: list[float] = []
        self._last = 0.0

    def started(self, weights: object, rounds_done: int, rounds_total: int) -> None:
        """Begin to count."""
        self._last = perf_counter()

    def round_closed(self, closed: ClosedRound) -> None:
        """Note a round."""
        now = perf_counter()
        whole, training, evaluation = now - self._last, closed.figures["train_s"], closed.figures["evaluate_s"]
        rest = whole - training - evaluation
        self.rounds.append({"the whole round": whole, "training": training, "evaluation": evaluation, "the rest": rest})
        self.rates.append(float(np.nansum(closed.record.num_samples[closed.record.selected])) / training)
        self._last = now


def run(model: str, rounds: int, held: int = 0, **sizes: Any) -> Stamps:
    """Return what was noted of the rounds of a run after its first.

    Args:
        model: its name.
        rounds: how many are noted.
        held: images of each client that are held out.
        sizes: keys of `population` that say how many images clients have; `TRAINED` to train on for none.
    """

    @contextmanager
    def watch() -> Iterator[Stamps]:
        yield stamps

    stamps = Stamps()
    with tempfile.TemporaryDirectory() as folder:
        settings = configuration(model, rounds + 1, held, sizes or {"samples_per_client": TRAINED + held})
        execute(settings, Path(folder) / "run", watch=watch)
    del stamps.rounds[0], stamps.rates[0]
    return stamps


Turn = dict[str, list[float]]
"""Images a second of each side, once or once a round."""


def measure(model: str, repeats: int, rounds: int) -> None:
    """Measure a model's sides in turn and print their rows."""
    turns: list[Turn] = []
    usual: list[dict[str, float]] = []
    with bare_processes(model) as bare:
        for repeat in range(repeats + 1):
            turn, times = one_turn(bare, model, rounds)
            if repeat > 0:
                turns.append(turn)
                usual += times
            say(f"{model}: turn {repeat} of {repeats}")
    images = f"{model}, images"
    emit(row(images, "images/s", side, [rate for turn in turns for rate in turn[side]]) for side in turns[0])
    emit(
        row(
            f"{model}, the engine in turn",
            "x",
            beside(side, other),
            [median(t[side]) / median(t[other]) for t in turns],
        )
        for side, other in PAIRS
    )
    emit(row(f"{model}, a round of a run", "s", part, [each[part] for each in usual]) for part in usual[0])


def one_turn(bare: ProcessPoolExecutor, model: str, rounds: int) -> tuple[Turn, list[dict[str, float]]]:
    """Return the rates of all sides, one after the other, and the times of the usual run's rounds."""
    share = [PER_ROUND * rounds // cores()] * cores()
    each_round = [PER_ROUND // cores()] * cores()

    def loops(shares: list[int], *, with_held_out: bool = False) -> float:
        began = perf_counter()
        list(bare.map(_bare_train, shares, [with_held_out] * len(shares)))
        return TRAINED * sum(shares) / (perf_counter() - began)

    turn = {
        PLAIN: [TRAINED * share[0] / bare.submit(_plain_train, share[0]).result()],
        LOOP: [loops(share[:1])],
        AT_ONCE: [loops(share)],
        IN_ROUNDS: [loops(each_round) for _ in range(rounds)],
        ENGINE: run(model, rounds).rates,
        UNEVEN: run(model, rounds, partition="quantity").rates,
        MEASURING: [loops(each_round, with_held_out=True) for _ in range(rounds)],
    }
    usual = run(model, rounds, HELD)
    turn[USUAL] = usual.rates
    turn[EVALUATION] = [(2 * 10_000 + 100 * HELD) / each["evaluation"] for each in usual.rounds]
    for loop in (PLAIN, LOOP):
        turn[all_cores(loop)] = [cores() * each for each in turn[loop]]
    return turn, usual.rounds


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
        measure(model, arguments.repeats, arguments.rounds)


if __name__ == "__main__":
    main()
