"""Whole runs without torch and network: clients with quadratic losses, a fleet that is a pure function of the round.

Client k's loss of a model w is |w - theta_k|^2 / 2, its accuracy exp(-loss); training goes 0.3 of the way to theta_k.
"""

import asyncio
import csv
import subprocess
import sys
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from parityfl.core.aggregation import aggregator
from parityfl.core.arrays import Layout
from parityfl.core.availability import Bernoulli
from parityfl.core.optimizers import PlainStep
from parityfl.core.seeding import generator
from parityfl.core.selection import selector
from parityfl.core.types import Outcome, Update, World
from parityfl.engine.fleet import ClientEvaluation, Evaluation, Late, Presence, Reply
from parityfl.engine.folder import RunFolder
from parityfl.engine.loop import run_rounds
from parityfl.engine.spec import RunSpec

LAYOUT = Layout(("weight", "bias"), ((2, 2), (2,)))
SHARED = Path(__file__).parents[3] / "shared"
CLIENTS = 7
ROUNDS = 6

FATES = (*[Outcome.COMPLETED] * 4, *[Outcome.LATE] * 2, Outcome.FAILED, Outcome.TIMED_OUT)
"""What becomes of a selected client, drawn by the seed."""


class InterruptedRunError(Exception):
    """Raised by a test in the middle of a run."""


def make_world(clients=CLIENTS, per_round=3, pi=0.6):
    """Return clients 0, 1, ... with 10, 11, ... examples of the labels k and k + 1 modulo 3."""
    size = np.arange(clients)
    counts = np.zeros((clients, 3), dtype=np.int64)
    counts[size, size % 3] = counts[size, (size + 1) % 3] = 5
    bare = World(0, clients, per_round, 600.0, size + 10, counts)
    process = Bernoulli(pi).bind(bare)
    return replace(bare, availability=process)


@dataclass(frozen=True, kw_only=True)
class DocumentedSpec(RunSpec):
    """A run, and what the config.json in its folder says."""

    document: dict


def make_spec(world=None, layout=LAYOUT, select="lnu", aggregate="mifa", **changes):
    """Return a run; every field of `RunSpec` can be changed, and the document for its folder."""
    world = make_world() if world is None else world
    plain = {
        "world": world,
        "device_ids": [f"h{k}" for k in range(world.num_clients)],
        "layout": layout,
        "initial_weights": lambda: np.zeros(layout.size, dtype=np.float32),
        "selector": selector.get(select)() if isinstance(select, str) else select,
        "aggregator": aggregator.get(aggregate)() if isinstance(aggregate, str) else aggregate,
        "optimizer": PlainStep(),
        "uses_control": False,
        "rounds": ROUNDS,
        "wanted": world.per_round,
        "virtual": True,
        "functional": "loss_gain",
        "evaluate_every": 1,
        "test_every": 1,
        "ema": 0.9,
        "local_lr": 0.1,
        "local_epochs": 1,
        "trusts_latency": True,
        "max_idle_rounds": 100,
    }
    plain |= changes
    document = {"seed": 0, "method": "test", "rounds": {"count": plain["rounds"]}, "selector": {"name": str(select)}}
    document |= {
        "aggregator": {"name": str(aggregate)},
        "versions": {},
        "hash": f"{plain['rounds']} {select} {aggregate}",
    }
    return DocumentedSpec(**{"document": document, **plain})


def optima(world, size):
    """Return theta, shape (N, d)."""
    return generator(world.seed, "optima").normal(size=(world.num_clients, size)).astype(np.float32)


@dataclass
class QuadraticFleet:
    """Seeded outcomes; late updates enter the next round in the opposite of the clients' order.

    `during` is called with each client before it trains.
    """

    spec: RunSpec
    fates: tuple[Outcome, ...] = FATES
    during: object = None
    reproducible: bool = True
    first_round: object = None

    def __post_init__(self):
        self.late = []
        self.tasks = []

    async def look(self, round, time_s):
        available = self.spec.world.availability.available(time_s)
        registered = np.ones_like(available) if self.first_round is None else np.asarray(self.first_round) <= round
        return Presence(registered, available & registered)

    async def train(self, task):
        self.tasks.append(task)
        drawn = generator(self.spec.world.seed, "fates", task.round).integers(840, size=self.spec.world.num_clients)
        for client in task.clients.tolist():
            if self.during is not None:
                self.during(task.round, client)
            outcome, update = self.fates[drawn[client] % len(self.fates)], self.update(task, client)
            if outcome is Outcome.LATE:
                self.late.append(Late(replace(update, staleness=1), task.round + 1))
            done = outcome is Outcome.COMPLETED
            reason = "" if done else f"was {outcome}"
            same = self.reproducible or outcome is not Outcome.TIMED_OUT
            yield Reply(client, outcome, update if done else None, 1.5 * client, 100.0, 200.0, reason, same)

    def late_updates(self):
        late, self.late = self.late[::-1], []
        return late

    def update(self, task, client):
        start = task.start(client)
        way = optima(self.spec.world, len(start))[client] - start
        loss = float(way @ way) / 2
        control = None if task.control is None else (0.1 * way - task.control).astype(np.float32)
        samples = int(self.spec.world.num_samples[client])
        return Update(client, np.float32(0.3) * way, samples, loss, loss, 0.49 * loss, control)


def make_evaluator(spec, during=None):
    """Return the evaluation of the quadratic clients; `during` is called with the round before each."""
    theta = optima(spec.world, spec.layout.size).astype(np.float64)

    async def evaluate(round, weights, average, *, on_test_set=True):
        if during is not None:
            during(round)
        loss = np.sum((theta - weights) ** 2, axis=1) / 2
        clients = ClientEvaluation(loss, np.exp(-loss))
        centre, smooth = (float(np.exp(-np.sum((theta.mean(axis=0) - w) ** 2))) for w in (weights, average))
        measured = (float(loss.mean()), centre, smooth) if on_test_set else (np.nan,) * 3
        return Evaluation(*measured, clients)

    return evaluate


@dataclass
class Raising:
    """An observer that raises once a round is closed."""

    round: int

    def started(self, weights, rounds_done, rounds_total):
        pass

    def round_closed(self, closed):
        if closed.record.round == self.round:
            raise InterruptedRunError


def run(spec, path, *, resume=False, fleet=None, evaluate=None, observers=(), stop=None):
    """Run into a folder and return its summary."""
    folder = RunFolder(path)
    if folder.prepare(spec.document, resume):
        return folder.summary()
    fleet = QuadraticFleet(spec) if fleet is None else fleet
    evaluate = make_evaluator(spec) if evaluate is None else evaluate

    async def rounds():
        async with folder.locked():
            await run_rounds(spec, fleet, evaluate, folder, observers=observers, stop=stop)

    asyncio.run(rounds())
    assert_ledger_hash(path)
    return folder.summary()


def interrupt(spec, path, after, resume=False, fleet=None):
    """Run until a round is closed."""
    try:
        run(spec, path, resume=resume, fleet=fleet, observers=[Raising(after)])
    except InterruptedRunError:
        return assert_ledger_hash(path)
    raise AssertionError(f"the run was not interrupted after round {after}")


def hashes(summary):
    return summary["model_hash"], summary["ledger_hash"]


def assert_ledger_hash(path):
    """Check a summary's ledger hash: it is that of clients.csv without three columns."""
    with (path / "clients.csv").open(newline="") as handle:
        table = list(csv.reader(handle))
    kept = [i for i, name in enumerate(table[0]) if name not in {"latency_s", "bytes_up", "bytes_down"}]
    text = "".join(",".join(line[i] for i in kept) + "\n" for line in table)
    assert RunFolder(path).summary()["ledger_hash"] == sha256(text.encode()).hexdigest()


def assert_same_end(summary, other):
    """Check that two runs ended the same."""
    assert summary["status"] == other["status"] == "done"
    assert hashes(summary) == hashes(other)


def contents(path):
    """Return every file of a folder with its bytes."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def checkpoints(path):
    """Return a run's checkpoints, oldest first."""
    return sorted((path / "journal").glob("round-*.safetensors"))


def assert_holds(path):
    """Check a run folder against the contract, but for the report, which is not the engine's."""
    check = SHARED / "verify" / "run_folder"
    if check.is_file():
        done = subprocess.run([sys.executable, str(check), str(path)], capture_output=True, text=True, check=False)
        assert done.stdout.splitlines() == ["report.html: missing", "1 faults"]
    rounds, clients = (pl.read_csv(path / f"{name}.csv") for name in ("rounds", "clients"))
    assert rounds["round"].to_list() == [*range(1, 1 + RunFolder(path).summary()["rounds_completed"])]
    assert clients["round"].is_sorted()
    kinds = ("available", "selected", "participated")
    for whole, part in pairwise(kinds):
        assert (clients[part] <= clients[whole]).all()
    sums = clients.group_by("round", maintain_order=True).agg(pl.col(kinds).sum())
    for kind in kinds:
        assert sums[kind].to_list() == rounds[f"num_{kind}"].to_list()
