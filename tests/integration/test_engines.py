"""The same seed ends with the same model and the same ledger, in one process and over real HTTP."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import rows

from parityfl.config import Config
from parityfl.core.aggregation import aggregator
from parityfl.core.columns import CLIENT_COLUMNS, ROUND_COLUMNS
from parityfl.core.objectives import objective
from parityfl.core.presets import preset_names
from parityfl.core.selection import selector
from parityfl.engine.folder import RunFolder
from parityfl.experiments.run import execute
from parityfl.reporting.report import write_report

SHARED = Path(__file__).parents[3] / "shared"
SMALL = ["--clients", "6", "--per-round", "3", "--rounds", "4", "--seed", "3", "--set", "engine.processes=2"]


def parityfl(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "parityfl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, f"exit {done.returncode}, wanted {code}\n{done.stdout}\n{done.stderr}"
    return done


def run(out: Path, *arguments: str) -> dict[str, object]:
    done = parityfl("run", *SMALL, *arguments, "--out", str(out))
    assert done.stdout.strip().splitlines()[-1] == str(out)
    summary: dict[str, object] = json.loads((out / "summary.json").read_text())
    return summary


def assert_same(left: dict[str, object], right: dict[str, object]) -> None:
    for key in ("model_hash", "ledger_hash"):
        assert left[key] == right[key], key
    assert left["deterministic"] is True
    assert right["deterministic"] is True


METHODS = [
    ("uniform", "fedavg", []),
    ("lnu", "mifa", []),
    ("lnu", "mifa", ["--set", "selector.mode=deterministic", "--set", "selector.parity=utility"]),
    ("lnu", "fedavg", ["--set", "selector.parity=selection"]),
    ("cup-paper", "mifa", ["--set", "aggregator.memory_dtype=float16"]),
]


@pytest.mark.parametrize(("rule", "fold", "more"), METHODS)
def test_engines_agree_on_every_core_method(tmp_path: Path, rule: str, fold: str, more: list[str]) -> None:
    chosen = ["--selector", rule, "--aggregator", fold, *more]
    assert_same(run(tmp_path / "local", *chosen), run(tmp_path / "http", *chosen, "--engine", "http"))


def test_run_folder_holds_what_the_contract_names(tmp_path: Path) -> None:
    run(tmp_path / "run")
    for name in ("config.json", "summary.json", "model.safetensors", "report.html", "shortfall.csv"):
        assert (tmp_path / "run" / name).is_file()
    for name, columns in (("rounds", ROUND_COLUMNS), ("clients", CLIENT_COLUMNS)):
        with (tmp_path / "run" / f"{name}.csv").open() as handle:
            assert tuple(csv.DictReader(handle).fieldnames or ()) == tuple(columns)
    checker = SHARED / "verify" / "run_folder"
    if checker.is_file():
        subprocess.run([sys.executable, checker, tmp_path / "run"], check=True)


def test_config_json_repeats_a_run_to_the_hash(tmp_path: Path) -> None:
    first = run(tmp_path / "first", "--method", "fedavg")
    parityfl("run", str(tmp_path / "first" / "config.json"), "--out", str(tmp_path / "again"))
    assert_same(first, json.loads((tmp_path / "again" / "summary.json").read_text()))


def test_engines_agree_on_a_real_trace(tmp_path: Path) -> None:
    trace = SHARED / "data" / "flash-100.json"
    if not trace.is_file():
        pytest.skip("the real trace is not here")
    chosen = ["--availability", "trace", "--set", f"availability.path={trace}", "--clients", "30", "--rounds", "6"]
    assert_same(run(tmp_path / "local", *chosen), run(tmp_path / "http", *chosen, "--engine", "http"))


def test_more_may_be_asked_than_are_waited_for_and_who_pays_for_it_is_reported(tmp_path: Path) -> None:
    """1.5 x 2 = 3 of 6 are asked and the first 2 wanted: one a round is late, and who is slow is so for good."""
    rounds = {"count": 12, "over_select": 1.5, "quorum": 2}
    execute(
        Config(
            method="fedavg",
            population={"clients": 6, "per_round": 2},
            availability={"name": "always"},
            rounds=rounds,
            latency={"median_s": 10.0, "spread": 1.0},
        ),
        tmp_path / "run",
    )
    with (tmp_path / "run" / "rounds.csv").open() as handle:
        counts = [(r["num_selected"], r["num_participated"], r["num_late"]) for r in csv.DictReader(handle)]
    assert counts == [("3", "2", "1")] * 12
    with (tmp_path / "run" / "shortfall.csv").open() as handle:
        late = {row["client_id"]: int(row["late"]) for row in csv.DictReader(handle)}
    assert sum(late.values()) == 12
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "The deadline or the quorum shuts them out" in page


@pytest.mark.parametrize("goal", objective.names())
def test_engines_agree_on_every_objective(tmp_path: Path, goal: str) -> None:
    chosen = ["--method", "fedavg", "--set", f"objective.name={goal}"]
    assert_same(run(tmp_path / "local", *chosen), run(tmp_path / "http", *chosen, "--engine", "http"))


@pytest.mark.parametrize("goal", ["plain", "scaffold"])
def test_engines_agree_on_rounded_and_compressed_transport(tmp_path: Path, goal: str) -> None:
    """The local engine rounds what the wire would; compression changes nothing."""
    plain = ["--method", "fedavg", "--set", f"objective.name={goal}"]
    chosen = [*plain, "--set", "transport.dtype=bf16"]
    local = run(tmp_path / "local", *chosen)
    assert_same(local, run(tmp_path / "http", *chosen, "--set", "transport.compression=zstd", "--engine", "http"))
    assert local["model_hash"] != run(tmp_path / "float32", *plain)["model_hash"]
    sent = [float(row["bytes_up"]) for row in rows(tmp_path / "http", "rounds") if row["bytes_up"]]
    assert max(sent) < 3 * 2 * 4_810 * (2 if goal == "scaffold" else 1) + 3 * 4096


@pytest.mark.parametrize("preset", ["q-ffl", "fedawe", "fairfedcs", "fedadam"])
def test_engines_agree_on_presets_with_state_of_their_own(tmp_path: Path, preset: str) -> None:
    """Losses, models kept per client, reputations, a server optimiser; objectives with state are above."""
    few = ["--clients", "4", "--per-round", "2", "--rounds", "2", "--set", "engine.processes=1"]
    chosen = ["--method", preset, *few]
    assert_same(run(tmp_path / "local", *chosen), run(tmp_path / "http", *chosen, "--engine", "http"))


@pytest.mark.parametrize("preset", [name for name in preset_names() if name != "paper"])
def test_every_preset_runs(tmp_path: Path, preset: str) -> None:
    """All but the paper's own setting, which needs CIFAR-10."""
    chosen = {"method": preset, "population.clients": 4, "population.per_round": 2, "rounds.count": 2}
    execute(Config.load(None, chosen), tmp_path / "run")
    assert RunFolder(tmp_path / "run").summary()["status"] == "done"


def finishes(tmp_path: Path, rule: str, fold: str) -> None:
    chosen = {"selector.name": rule, "aggregator.name": fold, "population.clients": 6, "population.per_round": 3}
    execute(Config.load(None, chosen | {"rounds.count": 4, "seed": 3}), tmp_path / "run")
    assert RunFolder(tmp_path / "run").summary()["status"] == "done"


@pytest.mark.parametrize("rule", selector.names())
def test_every_selector_runs(tmp_path: Path, rule: str) -> None:
    finishes(tmp_path, rule, "fedavg")


@pytest.mark.parametrize("fold", aggregator.names())
def test_every_aggregator_runs(tmp_path: Path, fold: str) -> None:
    finishes(tmp_path, "uniform", fold)
