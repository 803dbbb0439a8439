"""Are many small clients trained faster at once than one by one?

    python benchmarks/many.py [--quick] [--repeats 5]

The local engine with a worker a core, fedavg, uniform selection, every client there, a fifth of its images held out.
A round is selecting, training and aggregating; a run has four, of which the first does not count, and a figure is the
median of the others. Runs of both modes take turns. Batched mode chooses at its start how it trains.
"""

from __future__ import annotations

from functools import partial
from statistics import median

from cluster import Population, config, measured
from rows import REPEATS, emit, in_turn, parser, row, say

from parityfl.workers.cores import cores

ROUNDS = 4

POINTS: tuple[tuple[Population, int], ...] = (
    (("digits", "mlp", 200, 7), 50),
    (("digits", "mlp", 200, 7), 200),
    (("fashion-mnist", "mlp", 10_000, 6), 200),
    (("fashion-mnist", "mlp", 10_000, 6), 1000),
    (("fashion-mnist", "cnn-small", 1000, 60), 50),
    (("fashion-mnist", "cnn-small", 1000, 60), 200),
)
"""The population, and clients a round."""


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=REPEATS)
    arguments = options.parse_args()
    repeats, points = (1, POINTS[:1]) if arguments.quick else (arguments.repeats, POINTS)
    for population, per_round in points:
        found = in_turn({mode: partial(seconds, mode, population, per_round) for mode in ("exact", "batched")}, repeats)
        data, model, _, samples = population
        title = f"many at once, {data}, {model}: a round of {per_round:,} clients of {samples} images"
        emit(row(title, "s", mode, values) for mode, values in found.items())
        say(f"{title}: {found}")


def seconds(mode: str, population: Population, per_round: int) -> float:
    """Return how long a round of a run takes."""
    return median(measured(config(population, ROUNDS, per_round, mode=mode, workers=cores())).seconds)


if __name__ == "__main__":
    main()
