"""Pre-aggregation: several clients' updates as one vector, the same model up to rounding, on any number of workers."""

import asyncio
import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from parityfl.config import Config
from parityfl.core.aggregation.combine import fold, pool
from parityfl.core.aggregation.fedavg import FedAvg
from parityfl.core.errors import ConfigError
from parityfl.core.types import Update
from parityfl.experiments.run import execute
from parityfl.workers.crew import AHEAD, Crew, Lost, WorkerLostError
from parityfl.workers.grouping import Pooling
from parityfl.workers.jobs import PooledJob, TrainJob
from parityfl.workers.shared_memory import Board


def config(**changes: Any) -> Config:
    sections = {
        "seed": 3,
        "method": "fedavg",
        "population": {"clients": 16, "per_round": 10, "samples_per_client": 20},
        "rounds": {"count": 3},
        "availability": {"name": "bernoulli", "pi": 0.9},
        "selector": {"name": "oort"},
    }
    return Config(**{**sections, **changes})


def jobs_of(clients: list[int]) -> list[TrainJob]:
    return [TrainJob(1, client, None, False, None, 1) for client in clients]


def hashes(folder: Path) -> tuple[str, str]:
    summary = json.loads((folder / "summary.json").read_text())
    return summary["model_hash"], summary["ledger_hash"]


def figures(folder: Path, *columns: str) -> list[tuple[str, ...]]:
    with (folder / "clients.csv").open() as lines:
        return [tuple(row[column] for column in columns) for row in csv.DictReader(lines)]


def updates() -> list[Update]:
    """Two clients of 1 and 3 examples: their weighted mean is (1 x (4, 0) + 3 x (0, 8)) / 4 = (1, 6)."""
    vectors = (4, 0), (0, 8)
    return [
        Update(client, np.array(vector, dtype=np.float32), samples, train_loss=float(client))
        for client, vector, samples in zip((5, 7), vectors, (1, 3), strict=True)
    ]


def test_pooled_updates_share_their_mean_and_keep_their_figures() -> None:
    """The sum is 4 (1, 6) before and after."""
    weigh = FedAvg().weight
    pooled = pool(updates(), weigh, 2)
    assert [(update.client, update.num_samples, update.train_loss) for update in pooled] == [(5, 1, 5.0), (7, 3, 7.0)]
    assert pooled[0].delta is pooled[1].delta
    assert pooled[0].delta.tolist() == [1, 6]
    for some in (updates(), pooled):
        assert fold(((weigh(update), update.delta) for update in some), 2).total.tolist() == [4, 24]
    assert pool([], weigh, 2) == []
    assert [update.delta.tolist() for update in pool(updates(), lambda update: 0.0, 2)] == [[0, 0], [0, 0]]


class Known:
    """In the place of a workbench: knows what clients learned."""

    layout = SimpleNamespace(size=2)
    config = SimpleNamespace(security=SimpleNamespace(max_update_norm=7.0), aggregator=SimpleNamespace(build=FedAvg))

    def __init__(self, updates: list[Update]) -> None:
        self.updates = {update.client: update for update in updates}

    def train(self, number: int, client: int, *arguments: Any) -> tuple[Update, None]:
        return self.updates[client], None


def test_an_update_to_be_refused_is_kept_out_of_the_mean() -> None:
    """Of three clients the second one's norm, 8, is beyond the limit of 7: it comes back as it is, in its place."""
    bench, board = Known([*updates(), replace(updates()[0], client=9)]), Board(2)
    results = PooledJob(tuple(jobs_of([5, 7, 9]))).run(bench, board)  # type: ignore[arg-type]
    assert [update.client for update, _ in results] == [5, 7, 9]
    assert [update.delta.tolist() for update, _ in results] == [[4, 0], [0, 8], [4, 0]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One by one; and in threes, on one and on two workers."""
    folder = tmp_path_factory.mktemp("runs")
    execute(config(engine={"workers": 1}), folder / "plain")
    for workers in (1, 2):
        execute(config(engine={"workers": workers, "pre_aggregate": 3}), folder / f"pooled{workers}")
    return folder


def test_a_pooled_run_selects_the_same_and_learns_alike(runs: Path) -> None:
    """Oort steers by the clients' own losses, which are each client's own in a pooled run too."""
    columns = "round", "client_id", "selected", "participated"
    assert figures(runs / "plain", *columns) == figures(runs / "pooled1", *columns)
    one, other = (load_file(runs / name / "model.safetensors") for name in ("plain", "pooled1"))
    assert all(np.allclose(weights, other[name], atol=1e-5, rtol=0) for name, weights in one.items())


def test_a_pooled_run_does_not_depend_on_the_number_of_workers(runs: Path) -> None:
    assert hashes(runs / "pooled1") == hashes(runs / "pooled2")


RULE = """
from dataclasses import dataclass

import parityfl
from parityfl.core.aggregation.fedavg import FedAvg


@parityfl.aggregator("squared")
@dataclass(frozen=True)
class Squared(FedAvg):
    source = "a script"

    @property
    def weight(self):
        return lambda update: float(update.num_samples) ** 2
"""

RUN = """
import sys

config = parityfl.Config(
    aggregator={"name": "squared"},
    population={"clients": 16, "per_round": 10, "samples_per_client": 20},
    rounds={"count": 2},
    engine={"workers": int(sys.argv[2]), "pre_aggregate": 3},
)
parityfl.run(config, out=sys.argv[1])
"""


@pytest.mark.parametrize("rule", [RULE, "import parityfl, rule\n"], ids=["in the script", "in a module"])
def test_a_rule_of_ones_own_pools_alike_on_any_number_of_workers(tmp_path: Path, rule: str) -> None:
    """Workers import a module; what the script itself defines they cannot have, and this process trains."""
    (tmp_path / "rule.py").write_text(RULE)
    (tmp_path / "script.py").write_text(rule + RUN)
    for workers in ("1", "2"):
        command = [sys.executable, "script.py", str(tmp_path / workers), workers]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ("2 worker processes" in done.stderr) == (rule is not RULE)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")
    assert json.loads((tmp_path / "2" / "summary.json").read_text())["deterministic"] is True


class Gated:
    """Works when the gate is open, and loses the group that begins with client 2."""

    depth = 100
    starting = False

    def __init__(self, gate: asyncio.Event) -> None:
        self.gate = gate
        self.begun = 0

    async def run(self, job: Any) -> Any:
        self.begun += 1
        await self.gate.wait()
        if job.parts[0].client == 2:
            raise WorkerLostError("its worker process died", charge=1, usable=True)
        return [(part.client, None) for part in job.parts]

    def close(self) -> None: ...


def test_groups_in_flight_are_bounded_and_a_lost_one_is_lost_for_each_of_its_clients() -> None:
    """Of 50 groups of two, four a worker are begun before the first is fetched."""

    async def work() -> list[Any]:
        gate = asyncio.Event()
        worker = Gated(gate)
        crew = Crew([worker], Board(1), lambda: worker)
        results = Pooling(2).run(crew, jobs_of(list(range(100))))
        first = asyncio.create_task(anext(results))
        while worker.begun < AHEAD:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert worker.begun == AHEAD
        gate.set()
        return [await first, *[result async for result in results]]

    lost = Lost("its worker process died")
    assert asyncio.run(work()) == [(0, None), (1, None), lost, lost, *((client, None) for client in range(4, 100))]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"engine": {"name": "http"}}, "engine.name = 'http'"),
        ({"engine": {"mode": "batched"}}, "engine.mode = 'batched'"),
        ({"rounds": {"late": "next-round"}}, "rounds.late = 'next-round'"),
        ({"aggregator": {"name": "mifa"}}, "aggregator.name = 'mifa'"),
        ({"objective": {"name": "scaffold"}}, "objective.name = 'scaffold'"),
    ],
)
def test_what_needs_each_update_is_refused(changes: dict[str, dict[str, str]], what: str) -> None:
    engine = {"pre_aggregate": 2, **changes.get("engine", {})}
    with pytest.raises(ConfigError, match=f"pre_aggregate = 2 does not go with {what}"):
        config(**{**changes, "engine": engine})


@pytest.mark.parametrize(
    "aggregator", [{"name": "fedavg", "weighted": False}, {"name": "surrogate", "mode": "accounting"}]
)
def test_plain_means_are_taken(aggregator: dict[str, Any]) -> None:
    assert config(aggregator=aggregator, engine={"name": "ray", "pre_aggregate": 2}).aggregator.build().weight
