"""kill -9 at random instants: a run that is resumed ends with the hashes of one that was not disturbed.

The local engine is killed in a child that was forked after torch was imported, so that many kills take little time; the
http engine is the real command with all its processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from chaos_rig import PATIENCE_S, python, until

METHODS: dict[str, dict[str, dict[str, object]]] = {
    "mifa": {"aggregator": {"name": "mifa"}, "selector": {"name": "lnu"}},
    "afl": {"aggregator": {"name": "afl"}, "selector": {"name": "uniform"}},
    "fairfedcs": {"aggregator": {"name": "fedavg"}, "selector": {"name": "fairfedcs"}},
    "adam": {"aggregator": {"name": "fedavg"}, "selector": {"name": "uniform"}, "server": {"optimizer": "adam"}},
    "momentum": {"aggregator": {"name": "fedavg"}, "selector": {"name": "lnu"}, "server": {"optimizer": "momentum"}},
    "ditto": {"aggregator": {"name": "fedavg"}, "selector": {"name": "lnu"}, "objective": {"name": "ditto"}},
    "scaffold": {"aggregator": {"name": "fedavg"}, "selector": {"name": "uniform"}, "objective": {"name": "scaffold"}},
    "late": {
        "aggregator": {"name": "fedavg"},
        "selector": {"name": "uniform"},
        "objective": {"name": "ditto"},
        "latency": {"median_s": 10.0},
        "rounds": {"late": "next-round", "deadline": "adaptive", "deadline_s": 20.0},
    },
}
"""Everything that a run carries from round to round: memories, weights, queues, moments, what clients keep."""

VICTIMS = ("coordinator", "client", "both", "parent")
"""Which processes of `parityfl run --engine http` are killed."""

DAMAGES: tuple[str, ...] = ("none", "none", "flip", "torn")
"""What happens to the newest checkpoint before a killed run is resumed."""


@dataclass
class Tally:
    """What the kills came to.

    Attributes:
        equal: kills after which the resumed run ended with the undisturbed hashes, by what was killed and damaged.
        missed: instants at which the run had ended already; they are no kills.
        faults: what differed.
    """

    equal: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.equal.values()) + len(self.faults)


def document(method: str, engine: str = "local") -> dict[str, object]:
    """Return the configuration of a small run."""
    parts: dict[str, object] = {
        "population": {"clients": 8, "per_round": 3},
        "rounds": {"count": 8},
        "training": {"epochs": 2},
        "seed": 5,
        "engine": {"name": engine, "workers": 1} if engine == "local" else {"name": engine, "processes": 2},
    }
    for section, keys in METHODS[method].items():
        known = parts.get(section, {})
        assert isinstance(known, dict)
        parts[section] = known | keys
    return parts


def hashes(out: Path) -> tuple[str, str]:
    """Return the hashes of a finished run."""
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["deterministic"]) == ("done", True), summary
    return summary["model_hash"], summary["ledger_hash"]


def forked(work: Callable[[], None]) -> int:
    """Run something in a child process and return its id."""
    child = os.fork()
    if child:
        return child
    with contextlib.suppress(BaseException):
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        work()
        os._exit(0)
    os._exit(1)


def run_local(method: str, out: Path) -> None:
    """Run, or go on with, a run of the local engine in this process."""
    from parityfl.config import Config
    from parityfl.experiments.run import execute

    execute(Config(**document(method)), out, resume=True)


class LocalKills:
    """Kills runs of the local engine."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        import torch

        import parityfl.experiments.local
        import parityfl.training.workbench

        assert parityfl.experiments.local
        assert parityfl.training.workbench
        torch.set_num_threads(1)
        self._folder = folder
        self._rng = rng
        self._whole: dict[str, tuple[tuple[str, str], float]] = {}

    def whole(self, method: str) -> tuple[tuple[str, str], float]:
        """Return the hashes of the undisturbed run, and how long it takes from its first file on."""
        if method not in self._whole:
            out = self._folder / f"{method}-whole"
            child = forked(lambda: run_local(method, out))
            until((out / "config.json").exists, "the run begins")
            began = time.monotonic()
            assert os.waitpid(child, 0)[1] == 0, f"the undisturbed run of {method} failed"
            self._whole[method] = hashes(out), time.monotonic() - began
        return self._whole[method]

    def kill(self, method: str, number: int, tally: Tally) -> None:
        """Kill a run at a random instant, perhaps damage its newest checkpoint, resume it and compare."""
        expected, seconds = self.whole(method)
        out = self._folder / f"{method}-{number}"
        if not self._killed(method, out, float(self._rng.uniform(0, seconds))):
            tally.missed += 1
            return
        damage = DAMAGES[int(self._rng.integers(len(DAMAGES)))]
        damage = damage if damage_newest(out, damage, self._rng) else "none"
        status = os.waitpid(forked(lambda: run_local(method, out)), 0)[1]
        same = status == 0 and hashes(out) == expected
        note(tally, f"local run killed, checkpoint: {damage}", same, out, self._folder / f"{method}-whole")

    def _killed(self, method: str, out: Path, after_s: float) -> bool:
        child = forked(lambda: run_local(method, out))
        until((out / "config.json").exists, "the run begins")
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        return os.WIFSIGNALED(status)


def note(tally: Tally, what: str, same: bool, out: Path, whole: Path) -> None:
    """Count a kill; of one that changed something, keep the first row that differs."""
    if same:
        tally.equal[what] += 1
        return
    rows = zip(*((path / "clients.csv").read_text().splitlines() for path in (out, whole)), strict=False)
    differing = [" | ".join(pair) for pair in rows if pair[0] != pair[1] and "failed" in pair[0] + pair[1]]
    tally.faults.append(f"{what}: {out}: {differing[:1]}")


def damage_newest(out: Path, damage: str, rng: np.random.Generator) -> bool:
    """Flip a bit of the newest checkpoint or cut it short; return whether another one is left to go back to."""
    files = sorted((out / "journal").glob("round-*.safetensors"))
    if damage == "none" or len(files) < 2:
        return damage == "none"
    data = bytearray(files[-1].read_bytes())
    place = int(rng.integers(len(data)))
    if damage == "flip":
        data[place] ^= 1 << int(rng.integers(8))
    else:
        del data[place:]
    files[-1].write_bytes(data)
    return True


def children_of(process: subprocess.Popen[bytes], kind: str) -> list[psutil.Process]:
    """Return the children of a run over HTTP that are its coordinator, or its clients."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(process.pid).children() if kind in child.cmdline()]
    return []


@contextlib.contextmanager
def http_run(method: str, out: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start, or go on with, a run over HTTP as its user would."""
    file = out.with_suffix(".json")
    file.write_text(json.dumps(document(method, "http")), encoding="utf-8")
    with log.open("ab") as handle:
        run = python("-m", "parityfl", "run", file, "--out", out, "--resume", stdout=handle, stderr=handle)
    try:
        yield run
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


class HttpKills:
    """Kills processes of runs over HTTP."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self._folder = folder
        self._rng = rng
        self._whole: dict[str, tuple[tuple[str, str], float]] = {}
        self.log = folder / "http.log"

    def whole(self, method: str) -> tuple[tuple[str, str], float]:
        """Return the hashes of the undisturbed run, and how long it takes from its first round on."""
        if method not in self._whole:
            out = self._folder / f"{method}-http-whole"
            with http_run(method, out, self.log) as run:
                until(lambda: checkpoints(out), "the first checkpoint")
                began = time.monotonic()
                until((out / "summary.json").exists, "the last round")
                seconds = time.monotonic() - began
                assert run.wait(PATIENCE_S) == 0, self.log.read_text()
            self._whole[method] = hashes(out), seconds
        return self._whole[method]

    def kill(self, method: str, victim: str, number: int, tally: Tally) -> None:
        """Kill some process at a random instant, resume where the run died of it, and compare."""
        expected, seconds = self.whole(method)
        out = self._folder / f"{method}-http-{number}"
        with http_run(method, out, self.log) as run:
            until(lambda: checkpoints(out) or run.poll() is not None, "the first checkpoint")
            time.sleep(float(self._rng.uniform(0, seconds)))
            family = [*children_of(run, "coordinator"), *children_of(run, "client")]
            if (out / "summary.json").exists() or not family:
                tally.missed += 1
                return
            for process in self._victims(run, victim):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            code = run.wait(PATIENCE_S)
        gone(family)
        if victim == "client":
            assert code == 0, f"a client's death ended the run with {code}: {self.log.read_text()[-2000:]}"
        else:
            assert code in (3, -signal.SIGKILL), f"exit code {code}: {self.log.read_text()[-2000:]}"
            with http_run(method, out, self.log) as again:
                assert again.wait(PATIENCE_S) == 0, self.log.read_text()[-2000:]
        note(tally, f"http run, {victim} killed", hashes(out) == expected, out, self._folder / f"{method}-http-whole")

    def _victims(self, run: subprocess.Popen[bytes], victim: str) -> list[psutil.Process]:
        if victim == "parent":
            return [psutil.Process(run.pid)]
        boss, clients = children_of(run, "coordinator"), children_of(run, "client")
        one = [clients[int(self._rng.integers(len(clients)))]] if clients else []
        return {"coordinator": boss, "client": one, "both": [*one, *boss]}[victim]


def checkpoints(out: Path) -> list[Path]:
    return sorted((out / "journal").glob("round-*.safetensors"))


def gone(processes: list[psutil.Process], seconds: float = 20.0) -> float:
    """Wait until processes are no more and return how long that took.

    Raises:
        AssertionError: one is left.
    """
    began = time.monotonic()
    until(lambda: not any(alive(process) for process in processes), "all processes of the run are gone", seconds)
    return time.monotonic() - began


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def local_kills(folder: Path, count: int, seed: int) -> Tally:
    """Kill the local engine so many times, over all methods in turn."""
    kills, tally, number = LocalKills(folder, np.random.default_rng(seed)), Tally(), 0
    while tally.kills < count:
        kills.kill(list(METHODS)[number % len(METHODS)], number, tally)
        number += 1
    return tally


def http_kills(folder: Path, count: int, seed: int) -> Tally:
    """Kill processes of the http engine so many times, over all methods and victims in turn."""
    kills, tally, number = HttpKills(folder, np.random.default_rng(seed)), Tally(), 0
    while tally.kills < count:
        method = ("ditto", "mifa", "scaffold")[number // len(VICTIMS) % 3]
        kills.kill(method, VICTIMS[number % len(VICTIMS)], number, tally)
        number += 1
    return tally
