"""What does a round on Ray cost with and without pre-aggregation, and does its memory stay flat?

    python benchmarks/cluster.py [--quick]

A cluster of this machine alone, fedavg, uniform selection, two to six images a client. A round is selecting, training
and aggregating; a point is the median of the rounds of one run but its first. Bytes are those of the pickled answers of
a round. Memory is what each process has for itself, so the object store, which all map, is in none of them; it is
looked at after every round but the first, and its growth is the median of the last quarter by that of the first.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import psutil
from rows import REPEATS, emit, parser, row, say

from parityfl.config import Config
from parityfl.engine.fleet import ClosedRound
from parityfl.experiments.run import execute
from parityfl.training.workbench import Workbench
from parityfl.workers.crew import Crew, ThisProcess
from parityfl.workers.grouping import choose_grouping
from parityfl.workers.jobs import Job, TrainJob
from parityfl.workers.shared_memory import Board

R = TypeVar("R")

Population = tuple[str, str, int, int]
"""Data set, model, clients and images a client."""

POPULATIONS: dict[str, Population] = {
    "digits, mlp": ("digits", "mlp", 600, 2),
    "fashion-mnist, mlp": ("fashion-mnist", "mlp", 10_000, 6),
    "fashion-mnist, cnn": ("fashion-mnist", "cnn", 10_000, 6),
}

PER_ROUND = 200
POOLED = 25
LONG = 20
"""Rounds over which memory is looked at."""


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__).parse_args()
    rounds = 2 if arguments.quick else 1 + REPEATS
    for per_round in () if arguments.quick else (100, 1000):
        seen = measured(config(POPULATIONS["fashion-mnist, mlp"], LONG, per_round, name="ray")).memory
        title = f"10,000 clients, {per_round:,} a round: own memory over {LONG - 1} rounds"
        emit(row(title, "MB", process, values) for process, values in seen.items())
        emit(row(f"{title}, growth", "x", process, [growth(values)]) for process, values in seen.items())
        say(f"{per_round} a round: {seen}")
    for name in list(POPULATIONS)[: 1 if arguments.quick else None]:
        sides = {
            side: config(POPULATIONS[name], rounds, PER_ROUND, name="ray", pre_aggregate=pooled)
            for side, pooled in (("each", None), ("25", POOLED))
        }
        titles = {"each": "each client's update", "25": f"one vector for {POOLED} clients"}
        found = {side: measured(each).seconds for side, each in sides.items()}
        emit(row(f"{name}: a round of {PER_ROUND} clients", "s", titles[side], found[side]) for side in sides)
        sizes = {side: asyncio.run(answered_bytes(each)) / 1e6 for side, each in sides.items()}
        emit(row(f"{name}: answers of {PER_ROUND} clients", "MB", titles[side], [sizes[side]]) for side in sides)
        say(f"{name}: {found} {sizes}")


def growth(values: Sequence[float]) -> float:
    """Return the last quarter by the first one."""
    quarter = max(1, len(values) // 4)
    return median(values[-quarter:]) / median(values[:quarter])


def config(population: Population, rounds: int, per_round: int, **engine: Any) -> Config:
    """Return a run on this machine, by an engine with these keys."""
    data, model, clients, samples = population
    sections: dict[str, Any] = {
        "method": "fedavg",
        "data": {"name": data},
        "model": {"name": model},
        "population": {"clients": clients, "per_round": per_round, "samples_per_client": samples},
        "availability": {"name": "always"},
        "evaluation": {"every": rounds},
        "utility": {"functional": "local_gain"},
        "rounds": {"count": rounds},
        "engine": engine,
    }
    return Config(**sections)


class Watch:
    """Notes each round's seconds and the processes' memory in MB, the first round aside."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.memory: dict[str, list[float]] = {}

    def started(self, weights: Any, rounds_done: int, rounds_total: int) -> None:
        """Nothing to note."""

    def round_closed(self, closed: ClosedRound) -> None:
        """Note a round."""
        if closed.record.round == 1:
            return
        self.seconds.append(sum(closed.figures[part] for part in ("select_s", "train_s", "aggregate_s")))
        for process in psutil.process_iter():
            name = role(process)
            if name:
                self.memory.setdefault(name, []).append(process.memory_full_info().uss / 1e6)


def role(process: psutil.Process) -> str:
    """Return what a process is in the run, empty where it has no part in it."""
    if process.pid == psutil.Process().pid:
        return "driver"
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    names = {"ray::Actor": "an actor", "raylet/raylet": "raylet", "gcs/gcs_server": "head node's server"}
    return next((name for part, name in names.items() if part in line), "")


def measured(settings: Config) -> Watch:
    """Run and return what was noted."""
    noted = Watch()

    @contextmanager
    def watch() -> Iterator[Watch]:
        yield noted

    with TemporaryDirectory() as folder:
        execute(settings, Path(folder) / "run", watch=watch)
    return noted


class Counting(ThisProcess):
    """Adds up the bytes of its answers."""

    bytes = 0

    async def run(self, job: Job[R]) -> R:
        """Do a job."""
        result = await super().run(job)
        self.bytes += len(pickle.dumps(result, protocol=5))
        return result


async def answered_bytes(settings: Config) -> int:
    """Return the bytes of a round's answers as they are sent: jobs like a run's, done here and pickled."""
    bench = Workbench(settings)
    board = Board(bench.layout.size)
    board.put("weights", bench.initial_weights())
    counting = Counting(bench, board)
    crew = Crew([counting], board, lambda: counting)
    jobs = [TrainJob(1, client, None, controlled=False, memory=None, cost=1) for client in range(PER_ROUND)]
    grouping = await choose_grouping(bench, crew, say)
    async for _ in crew.run(jobs) if grouping is None else grouping.run(crew, jobs):
        pass
    return counting.bytes


if __name__ == "__main__":
    main()
