"""How does a round's time grow with clients a round, with the model, and with workers?

    python benchmarks/scaling.py [--quick]

Fashion-MNIST, 100 clients, the local engine; a round is selecting, training and aggregating. A point is the median of
the rounds of one run but its first. How scheduling grows with the population is in `selection.py`.
"""

from __future__ import annotations

import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rows import REPEATS, emit, parser, row, say

from parityfl.config import Config
from parityfl.experiments.run import execute
from parityfl.workers.cores import cores

PER_ROUND = (5, 10, 20, 40, 80)
MODELS = {"cnn-small": 20_490, "mlp": 50_890, "cnn": 1_663_370, "resnet18": 11_172_810}
"""By parameters, for images of 28 x 28 x 1."""


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__).parse_args()
    rounds = 1 + (1 if arguments.quick else REPEATS)
    for clients in PER_ROUND[: 1 if arguments.quick else None]:
        point("clients a round (cnn-small)", str(clients), seconds(rounds, per_round=clients))
    for model in ["cnn-small"] if arguments.quick else MODELS:
        found = seconds(rounds, model=model, per_round=4, samples=60)
        point("parameters (4 clients of 48 images)", f"{model} ({MODELS[model]:,})", found)
    for workers in range(1, 1 + (1 if arguments.quick else cores())):
        point("workers (cnn-small, 10 clients)", str(workers), seconds(rounds, workers=workers))


def point(what: str, where: str, found: list[float]) -> None:
    """Print a point of a curve."""
    say(f"{what} {where}: {found}")
    emit([row(f"a round's time by {what}", "s", where, found)])


def seconds(
    rounds: int,
    *,
    model: str = "cnn-small",
    per_round: int = 10,
    samples: int = 600,
    workers: int | None = None,
) -> list[float]:
    """Return the seconds of the rounds of a run but its first."""
    sections: dict[str, Any] = {
        "method": "fedavg",
        "data": {"name": "fashion-mnist"},
        "model": {"name": model},
        "population": {"clients": 100, "per_round": per_round, "samples_per_client": samples},
        "availability": {"name": "always"},
        "evaluation": {"every": rounds},
        "utility": {"functional": "local_gain"},
        "rounds": {"count": rounds},
        "engine": {"workers": cores() if workers is None else workers},
    }
    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        execute(Config(**sections), out)
        with (out / "rounds.csv").open(encoding="utf-8") as lines:
            table = list(csv.DictReader(lines))
    return [sum(float(line[part]) for part in ("select_s", "train_s", "aggregate_s")) for line in table[1:]]


if __name__ == "__main__":
    main()
