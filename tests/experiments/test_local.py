"""Runs of the local engine: the same bits with any number of workers, and no process that outlives its run."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file
from watching import has_closed, until
from workbenches import config

from parityfl.core.errors import ConfigError, UnfinishedError
from parityfl.core.machine import available_cores
from parityfl.experiments.local import SMALL_RUN, choose_workers
from parityfl.experiments.run import execute
from parityfl.training.holdings import load_holdings


def hashes(folder: Path) -> tuple[str, str, bool]:
    summary = json.loads((folder / "summary.json").read_text())
    return summary["model_hash"], summary["ledger_hash"], summary["deterministic"]


UNEVEN = {"clients": 6, "per_round": 4, "partition": "quantity"}


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"name": "plain"}},
        {"objective": {"name": "scaffold"}},
        {"objective": {"name": "ditto"}},
        {"objective": {"name": "ditto"}, "population": UNEVEN},
    ],
    ids=["plain", "scaffold", "ditto", "uneven"],
)
def test_any_number_of_workers_gives_the_same_hashes(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = set()
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        execute(config(**changes, engine={"workers": workers}), out)
        found.add(hashes(out))
    assert len(found) == 1
    assert found.pop()[2] is True


def test_a_convolution_network_and_a_start_of_ones_own_train_alike(tmp_path: Path) -> None:
    """`fedawe` gives each client a model of its own to start from, which the board does not hold."""
    for workers in (1, 2):
        changes = {"aggregator": {"name": "fedawe"}, "model": {"name": "cnn-small"}, "engine": {"workers": workers}}
        execute(config(**changes), tmp_path / str(workers))
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")


GREEDY = """
from torch import empty, nn
from parityfl.cli import main
from parityfl.training.models import model

@model("greedy")
class Greedy(nn.Module):
    def __init__(self, shape, num_classes):
        super().__init__()
        self.output = nn.Linear(64, num_classes)

    def forward(self, images):
        return self.output(images.flatten(1) + (empty(2**60) if self.training else 0))

main()
"""


def test_a_run_that_there_is_no_memory_for_ends_unfinished_with_one_line(tmp_path: Path) -> None:
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(GREEDY)
    options = ["--clients", "4", "--per-round", "2", "--rounds", "2", "--set", "model.name=greedy", "--out", str(out)]
    done = subprocess.run([sys.executable, str(script), "run", *options], capture_output=True, text=True, check=False)
    assert done.returncode == UnfinishedError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("parityfl: out of memory with one worker")
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["rounds_completed"]) == ("interrupted", 0)


def selections(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "clients.csv").open() as lines:
        return [(row["round"], row["client_id"], row["selected"]) for row in csv.DictReader(lines)]


@pytest.mark.parametrize("workers", [1, 2])
def test_batched_mode_selects_the_same_and_learns_alike(tmp_path: Path, workers: int) -> None:
    """Sixteen clients of a few images: three rounds of twelve, with a selector that steers by the measured gains."""
    common = {
        "method": "parityfl-utility",
        "population": {"clients": 16, "per_round": 12, "samples_per_client": 20},
        "rounds": {"count": 3},
        "availability": {"name": "bernoulli", "pi": 0.9},
        "objective": {"name": "ditto"},
    }
    for mode in ("exact", "batched"):
        execute(config(**common, engine={"mode": mode, "workers": workers}), tmp_path / mode)
    assert selections(tmp_path / "exact") == selections(tmp_path / "batched")
    summaries = [json.loads((tmp_path / mode / "summary.json").read_text()) for mode in ("exact", "batched")]
    assert [summary["deterministic"] for summary in summaries] == [True, False]
    models = [load_file(tmp_path / mode / "model.safetensors") for mode in ("exact", "batched")]
    for name, weights in models[0].items():
        assert np.allclose(weights, models[1][name], atol=1e-3, rtol=0)


def test_batched_mode_is_for_the_local_engine() -> None:
    with pytest.raises(ConfigError, match=r"engine\.mode = 'batched' with engine\.name = 'http'"):
        config(engine={"name": "http", "mode": "batched"})


@pytest.mark.parametrize("rate", [2.0, [0.1, 0.2]])
def test_a_wrong_rate_of_drop_out_leaves_no_folder(tmp_path: Path, rate: Any) -> None:
    with pytest.raises(ConfigError, match=r"dropout\.rate h"):
        execute(config(dropout={"rate": rate}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"availability.pi": 1.5}, "availability.pi holds 1.5"),
        ({"dropout.rate": [0.1]}, "dropout.rate has 1 values"),
        ({}, "output folder full is not empty"),
    ],
)
def test_a_mistake_is_told_before_torch_is_loaded(tmp_path: Path, overrides: dict[str, Any], words: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    script = f"""
import sys
import parityfl
try:
    parityfl.run(parityfl.Config.load(None, {overrides!r}), "{"new" if overrides else "full"}")
except parityfl.ParityflError as error:
    print(error, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert words in done.stdout
    assert done.stdout.endswith(" False\n")


def test_a_memory_that_does_not_fit_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes room, or takes another rule, may take the same folder."""
    remembers, out = config(aggregator={"name": "mifa"}), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("parityfl.core.aggregation.memory.available_memory", lambda: 1000)
        with pytest.raises(ConfigError, match="this aggregator remembers one update per client"):
            execute(remembers, out)
    assert not out.exists()
    execute(config(rounds={"count": 1}), out)
    assert hashes(out)[2] is True


def test_small_runs_need_no_workers_and_large_ones_take_every_core() -> None:
    """6 clients of 24 images of 64 pixels: 4 x 24 x 64 = 6,144 pixels a round."""
    small = config(rounds={"count": SMALL_RUN // 6144})
    large = config(rounds={"count": SMALL_RUN // 6144 + 1})
    holdings = load_holdings(small)
    assert holdings.num_samples.tolist() == [24] * 6
    assert choose_workers(small, holdings) == 1
    assert choose_workers(large, holdings) == available_cores()
    assert choose_workers(config(engine={"workers": 5}), holdings) == 5


def test_no_more_workers_start_than_there_are_clients(tmp_path: Path) -> None:
    """A million processes would be more than the system has files for."""
    said: list[str] = []
    few = config(engine={"workers": 1_000_000}, population={"clients": 2, "per_round": 1}, rounds={"count": 1})
    execute(few, tmp_path / "run", say=said.append)
    assert any("2 worker processes (engine.workers = 1000000, but there are 2 clients), one" in line for line in said)


SCRIPT = """
import sys
import parityfl
config = parityfl.Config(
    method="fedavg", population={"clients": 4, "per_round": 2, "samples_per_client": 30},
    rounds={"count": int(sys.argv[2])}, availability={"name": "always"}, engine={"workers": 2},
)
print("once", flush=True)
parityfl.run(config, out=sys.argv[1])
"""


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "run"), "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "once\n"


def test_workers_die_with_the_run_however_it_dies(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.Popen([sys.executable, str(script), str(tmp_path / "run"), "100000"], stdout=subprocess.DEVNULL)
    until(lambda: has_closed(tmp_path / "run", 2), "two rounds")
    family = psutil.Process(run.pid).children(recursive=True)
    assert len(family) >= 3, "a server process and two workers"
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
