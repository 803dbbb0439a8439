"""How long is a round, and a whole run with its start-up, beside Flower's simulation and pfl-research?

    python benchmarks/peers.py [--quick] [--models cnn-small cnn] [--rounds 20] [--repeats 5]

Fashion-MNIST, 100 clients of 480 training images, 10 a round, one epoch in batches of 32, federated averaging, on two
cores. A round is all that happens between two rounds of evaluation; of `parityfl` writing the journal and the tables is
not in it, some 2 ms, though it is in the whole run. `parityfl` does what the others do: nothing is held out, and the
model is measured on the test set at the end only (`parityfl` measures its moving average as well). The accuracy shows
that all sides train the same. In `parityfl, held-out parts` each client also measures the model before and after its
training, on 120 images more that it holds out. `parityfl, evaluating` is the usual run: besides, every round measures
the model and its moving average on the test set and the model on all 100 held-out parts. `parityfl, bf16` is `parityfl`
with `engine.precision = "bf16"`, which computes something else: it is no side of a goal, and is not run on a processor
that takes many times as long for such numbers. Each peer lives in an environment of its own, made by `scripts/bench`;
one that is not there is shown as missing.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from platformdirs import user_cache_path
from rows import REPEATS, emit, parser, row, say
from setting import PARITYFL

from parityfl.config import Config
from parityfl.training.device import choose_device, is_slow_in_bf16
from parityfl.training.holdings import load_holdings

CACHE = Path(os.environ.get("PARITYFL_BENCH_CACHE", user_cache_path("parityfl-bench")))
"""Where `scripts/bench` makes the peers' environments."""

HERE = Path(__file__).parent
TRAINED = 480
POPULATION = {"clients": 100, "per_round": 10, "partition": "iid"}
DATA = "fashion-mnist"

PEERS = {
    "flower": [str(HERE / "peer_flower.py")],
    "pfl": ["-m", "torch.distributed.run", "--nproc-per-node", "2", str(HERE / "peer_pfl.py")],
}

BF16 = "parityfl, bf16"

PACKAGES = {"flower": "flwr", "pfl": "pfl"}


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        seconds: of the whole run.
        rounds: of each round after the first.
        accuracy: of the model at the end, on the test set.
    """

    seconds: float
    rounds: list[float]
    accuracy: float


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=["cnn-small", "cnn"])
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--repeats", type=int, default=REPEATS)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.models, arguments.rounds, arguments.repeats = ["cnn-small"], 2, 1
    with TemporaryDirectory() as folder:
        data = Path(folder) / "shards.npz"
        write_shards(data)
        for model in arguments.models:
            compare(model, arguments, data)


def compare(model: str, arguments: Namespace, data: Path) -> None:
    """Measure one model on all sides in turn and print its rows."""
    rounds = arguments.rounds
    sides: dict[str, Callable[[], Measured]] = {
        "parityfl": lambda: ours(model, rounds, data.parent, held=0, every=rounds),
        BF16: lambda: ours(model, rounds, data.parent, held=0, every=rounds, precision="bf16"),
        "parityfl, held-out parts": lambda: ours(model, rounds, data.parent, held=120, every=rounds),
        "parityfl, evaluating": lambda: ours(model, rounds, data.parent, held=120, every=1),
    }
    notes = {}
    if is_slow_in_bf16(choose_device("cpu")):
        del sides[BF16]
        notes[BF16] = "not run: this processor takes many times as long"
    for name, script in PEERS.items():
        python = CACHE / name / "bin" / "python"
        command = [str(python), *script, str(data), model, str(rounds)]
        if python.exists():
            sides[name] = lambda command=command: peer(command)  # type: ignore[misc]
            places = [str(place) for place in python.parent.parent.glob("lib/python*/site-packages")]
            notes[name] = " ".join(versions(places, PACKAGES[name]))
        else:
            notes[name] = f"missing: no environment at {python.parent.parent}"
    found: dict[str, list[Measured]] = {name: [] for name in (*sides, *notes)}
    for _ in range(arguments.repeats):
        for name in list(sides):
            try:
                found[name].append(sides[name]())
            except (subprocess.SubprocessError, json.JSONDecodeError, IndexError) as error:
                notes[name] = f"missing: {failure(error)}"
                del sides[name]
                continue
            run = found[name][-1]
            say(f"{model} {name}: {run.seconds:.1f} s, a round {np.median(run.rounds):.3f} s, {run.accuracy:.3f}")
    figures: dict[tuple[str, str], Callable[[list[Measured]], list[float]]] = {
        (f"{model}, a round", "s"): lambda runs: [seconds for run in runs for seconds in run.rounds],
        (f"{model}, a run of {rounds} rounds with start-up", "s"): lambda runs: [run.seconds for run in runs],
        (f"{model}, accuracy after {rounds} rounds", ""): lambda runs: [run.accuracy for run in runs],
    }
    for (title, unit), of in figures.items():
        emit(row(title, unit, name, of(runs), notes.get(name, "")) for name, runs in found.items())


def versions(places: list[str], package: str) -> list[str]:
    """Return a package and its version in some folders; nothing where it is not there."""
    return [f"{package} {found.version}" for found in distributions(name=package, path=places)]


def failure(error: Exception) -> str:
    """Return the last line that a failed command wrote."""
    lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__


def ours(model: str, rounds: int, folder: Path, *, held: int, every: int, precision: str = "float32") -> Measured:
    """Run `parityfl run` as a user does, with so many images held out, evaluating after every so many rounds."""
    settings = {
        "data.name": DATA,
        "model.name": model,
        **{f"population.{key}": value for key, value in (POPULATION | holding(held)).items()},
        "rounds.count": rounds,
        "availability.name": "always",
        "engine.workers": 2,
        "engine.precision": precision,
        "evaluation.every": every,
        "utility.functional": "local_gain",
    }
    assignments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    with TemporaryDirectory(dir=folder) as place:
        out = Path(place) / "run"
        command = [*PARITYFL, "run", "--method", "fedavg-uniform", *assignments]
        began = perf_counter()
        subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, text=True)
        seconds = perf_counter() - began
        with (out / "rounds.csv").open() as lines:
            table = list(csv.DictReader(lines))
    each = [float(line["round_s"]) - float(line["evaluate_s"]) for line in table[1:]]
    return Measured(seconds, each, float(table[-1]["global_accuracy"]))


def holding(held: int) -> dict[str, float]:
    """Return the keys of clients that train on `TRAINED` images and hold out so many."""
    return {"samples_per_client": TRAINED + held, "holdout": held / (TRAINED + held)}


def peer(command: list[str]) -> Measured:
    """Run a peer's script, which prints its rounds and its accuracy as JSON."""
    began = perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    seconds = perf_counter() - began
    told = json.loads([line for line in done.stdout.splitlines() if line.startswith('{"rounds"')][-1])
    return Measured(seconds, told["rounds"][1:], told["accuracy"])


def write_shards(path: Path) -> None:
    """Write what our clients train on, and the test set, for the others to read."""
    holdings = load_holdings(Config(method="fedavg", data={"name": DATA}, population=POPULATION | holding(0)))
    part, test = holdings.train, holdings.test
    np.savez(
        path,
        images=part.images,
        labels=part.labels,
        bounds=part.bounds,
        test_images=test.images,
        test_labels=test.labels,
        mean=holdings.mean[0],
        std=holdings.std[0],
    )


if __name__ == "__main__":
    main()
