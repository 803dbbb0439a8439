from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import polars as pl
import pytest
from folders import CLIENTS, write_run

from parityfl.core.errors import FolderError
from parityfl.reporting.compare import compare, compared, why_unpaired
from parityfl.reporting.comparison import METRICS, Comparison, Difference
from parityfl.reporting.intervals import estimate
from parityfl.reporting.load import RunData, last_known, load_run
from parityfl.reporting.report import compare_below
from parityfl.reporting.tables import markdown
from parityfl.reporting.verdicts import verdicts

MINE = {"method": "mine", "selector": "lnu", "aggregator": "mifa", "selects": "last"}


def runs_of(tmp_path: Path, bases: dict[int, tuple[float, float]]) -> list[RunData]:
    """Run fedavg and mine for each seed, with the given base accuracies."""
    runs = []
    for seed, (theirs, mine) in bases.items():
        runs.append(load_run(write_run(tmp_path / f"fedavg-{seed}", seed=seed, base=theirs)))
        runs.append(load_run(write_run(tmp_path / f"mine-{seed}", seed=seed, base=mine, **MINE)))
    return runs


def difference(comparison: Comparison, column: str) -> Difference:
    return next(d for d in comparison.differences if d.metric.column == column)


def test_means_over_seeds(tmp_path: Path):
    """After round 8 the global accuracy is base + .16: .66, .70, .68 with mean .68, s = .02.

    The interval is .68 -+ 4.3027 x .02 / sqrt(3) = .0497. The gap is that of `folders`: rates 1 ... 0, so 1.
    """
    comparison = compare(runs_of(tmp_path, {0: (0.5, 0.6), 1: (0.54, 0.6), 2: (0.52, 0.6)}))
    row = comparison.rows[0]
    accuracy = row.estimates["global_accuracy"]
    assert (row.method, row.parts, row.setting, row.missing) == ("fedavg", "uniform+fedavg", "", "")
    assert (len(row.runs), row.clients, row.rounds, row.seeds) == (3, "6", "8", "0-2")
    assert accuracy.mean == pytest.approx(0.68)
    assert accuracy.high - accuracy.mean == pytest.approx(0.0497, abs=1e-4)
    assert row.estimates["ema_global_accuracy"].mean == pytest.approx(0.69)
    assert row.estimates["worst10_client_accuracy"].mean == pytest.approx(0.53)
    assert row.estimates["conditional_selection_gap"].mean == 1.0
    assert comparison.rows[1].estimates["conditional_selection_gap"].mean == pytest.approx(0.375)


def test_paired_differences_over_seeds(tmp_path: Path):
    """Differences .1, .06, .08: mean .08, s = .02, half width .0497; 3 of 3 larger, p = 2 / 2^3 = .25."""
    comparison = compare(runs_of(tmp_path, {0: (0.5, 0.6), 1: (0.54, 0.6), 2: (0.52, 0.6)}))
    found = difference(comparison, "global_accuracy")
    assert (found.method, found.baseline, found.pairs, found.estimate.n, found.positive) == (
        "mine",
        "fedavg",
        "seeds",
        3,
        3,
    )
    assert found.estimate.mean == pytest.approx(0.08)
    assert found.estimate.low == pytest.approx(0.0303, abs=1e-4)
    assert found.sign_p == pytest.approx(0.25)
    assert found.verdict == "better"
    assert difference(comparison, "conditional_selection_gap").verdict == "better"
    assert difference(comparison, "utility_cv").verdict == "not ranked"
    assert difference(comparison, "net_gain_cv").verdict == "identical"
    assert {d.pairs for d in comparison.differences} == {"seeds"}
    assert comparison.unpaired == ()


def test_one_seed_is_compared_client_by_client(tmp_path: Path):
    """Every client gains .1 of accuracy.

    Normalised utilities: fedavg (.1, .05, .05, 0, .1), mine (.0625, .1, .05, .05, .1).
    Their differences (-.0375, .05, 0, .05, 0) have mean .0125; h5 was never available and is left out.
    """
    comparison = compare(runs_of(tmp_path, {0: (0.5, 0.6)}))
    by_seed, accuracy = difference(comparison, "global_accuracy"), difference(comparison, "eval_accuracy")
    utility = difference(comparison, "normalized_utility")
    assert (by_seed.estimate.n, by_seed.estimate.low, by_seed.sign_p, by_seed.verdict) == (1, None, None, "no interval")
    assert (accuracy.pairs, accuracy.estimate.n, accuracy.positive, accuracy.sign_p) == ("clients", 6, 6, None)
    assert accuracy.estimate.mean == pytest.approx(0.1)
    assert (utility.estimate.n, utility.positive, utility.verdict) == (5, 2, "not ranked")
    assert utility.estimate.mean == pytest.approx(0.0125)


def test_a_method_is_described_by_all_that_makes_it(tmp_path: Path):
    """scaffold selects and averages as FedAvg does, and fedadam has an optimiser at the server besides."""
    others = {"scaffold": {"objective.name": "scaffold"}, "fedadam": {"server.optimizer": "adam"}}
    runs = [load_run(write_run(tmp_path / name, method=name, changes=changes)) for name, changes in others.items()]
    found = {row.method: row.parts for row in compare([*runs, load_run(write_run(tmp_path / "fedavg"))]).rows}
    assert found == {
        "fedavg": "uniform+fedavg",
        "scaffold": "uniform+fedavg+scaffold",
        "fedadam": "uniform+fedavg+adam",
    }


def test_the_spread_of_accuracy_over_clients_is_compared_where_runs_have_it(tmp_path: Path):
    """Of mine it is .1 and .12, of fedavg .2 and .23: .1 and .11 less. A folder may lack it."""
    runs = runs_of(tmp_path, {0: (0.5, 0.6), 1: (0.5, 0.6)})
    assert "client_accuracy_std" not in [metric.column for metric in compare(runs).metrics]
    known = [
        replace(run, rounds=run.rounds.with_columns(client_accuracy_std=pl.lit(spread + rise * run.seed)))
        for run, (spread, rise) in zip(runs, [(0.2, 0.03), (0.1, 0.02)] * 2, strict=True)
    ]
    comparison = compare(known)
    assert [row.estimates["client_accuracy_std"].mean for row in comparison.rows] == pytest.approx([0.215, 0.11])
    assert difference(comparison, "client_accuracy_std").verdict == "better"


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_differs_in_no_pair_is_identical(tmp_path: Path, seeds: int):
    """Both have the same selections, so the same gap and the same utilities; their accuracies differ by .1."""
    made = {**MINE, "selects": "first"}
    runs = [
        load_run(write_run(tmp_path / f"{name}-{seed}", seed=seed, base=base + 0.01 * seed, **more))
        for seed in range(seeds)
        for name, base, more in (("fedavg", 0.5, {}), ("mine", 0.6, made))
    ]
    comparison = compare(runs)
    found = {d.metric.column: d.verdict for d in comparison.differences if d.pairs == "seeds"}
    assert found["conditional_selection_gap"] == found["utility_cv"] == "identical"
    assert found["global_accuracy"] != "identical"
    lines = [line for each in verdicts(comparison) for line in each.lines if line.startswith("Identical")]
    assert "conditional selection gap, utility CV, utility Jain" in lines[0]


@pytest.mark.parametrize(("seeds", "verdict"), [(2, "no interval"), (3, "better")])
def test_two_seeds_that_differ_by_the_same_settle_nothing(tmp_path: Path, seeds: int, verdict: str):
    """One example more of 360, twice, happens by chance; the third time it is as rare as the interval says."""
    comparison = compare(
        runs_of(tmp_path, {seed: (0.5 + seed / 90, 0.5 + seed / 90 + 1 / 360) for seed in range(seeds)})
    )
    assert difference(comparison, "global_accuracy").verdict == verdict


def test_a_difference_that_makes_things_worse(tmp_path: Path):
    comparison = compare(runs_of(tmp_path, {0: (0.6, 0.5), 1: (0.62, 0.51)}))
    assert difference(comparison, "global_accuracy").verdict == "worse"


def test_the_baseline_is_fedavg_or_as_asked_and_stands_first(tmp_path: Path):
    runs = runs_of(tmp_path, {0: (0.5, 0.6)})[::-1]
    assert [row.method for row in compare(runs).rows] == ["fedavg", "mine"]
    assert [row.method for row in compare(runs, baseline="mine").rows] == ["mine", "fedavg"]
    assert compare(runs, baseline="mine").differences[0].method == "fedavg"
    assert compare(runs[:1]).baseline == "mine"
    with pytest.raises(FolderError, match="baseline 'his': there are"):
        compare(runs, baseline="his")
    with pytest.raises(FolderError, match="nothing to compare"):
        compare([])


@pytest.mark.parametrize(("method", "optimizer"), [("fedadam", "adam"), ("fedavgm", "momentum"), ("fedavg", "adam")])
def test_what_has_an_optimiser_at_the_server_is_no_baseline(tmp_path: Path, method: str, optimizer: str):
    """It selects and averages as FedAvg does, and comes first; a configuration may also say nothing of the server."""
    other = load_run(write_run(tmp_path / "a", method=method, changes={"server.optimizer": optimizer}))
    plain = load_run(write_run(tmp_path / "b"))
    silent = replace(plain, config={key: value for key, value in plain.config.items() if key != "server"})
    assert compare([other, plain]).baseline == "fedavg"
    assert compare([other, silent]).baseline == "fedavg"


def test_of_several_baselines_the_one_that_is_called_so_counts_and_is_not_rounded(tmp_path: Path):
    mean = load_run(write_run(tmp_path / "a", method="fedavg-uniform", changes={"aggregator.weighted": False}))
    rounded = load_run(write_run(tmp_path / "b", changes={"transport": {"dtype": "bf16"}}))
    plain = load_run(write_run(tmp_path / "c", changes={"transport": {"dtype": "float32"}}))
    assert compare([mean, rounded]).baseline == "fedavg"
    assert compare([mean, rounded, plain]).baseline == "uniform+fedavg (transport.dtype=float32)"


def test_a_method_without_rows_is_missing(tmp_path: Path):
    runs = runs_of(tmp_path, {0: (0.5, 0.6)})
    runs.append(load_run(write_run(tmp_path / "none", method="none", selector="x", rounds=0, status=None)))
    runs.append(load_run(write_run(tmp_path / "half", method="half", selector="y", rounds=3, status="interrupted")))
    comparison = compare(runs)
    rows = {row.method: row for row in comparison.rows}
    assert rows["none"].missing == "running, or ended without a summary after 0 of 8 rounds"
    assert rows["half"].missing == "interrupted after 3 of 8 rounds"
    assert set(rows["half"].estimates.values()) == {None}
    assert {d.method for d in comparison.differences} == {"mine"}
    assert [note.partition(" is left out")[0] for note in comparison.notes] == [str(run.path) for run in runs[2:]]


def test_no_seed_counts_twice(tmp_path: Path):
    first = load_run(write_run(tmp_path / "a", base=0.5))
    again = load_run(write_run(tmp_path / "b", base=0.9))
    comparison = compare([first, again])
    assert [run.path for run in comparison.rows[0].runs] == [first.path]
    assert comparison.notes == (f"{again.path} repeats seed 0 of {first.path}, which counts",)


def test_of_many_runs_one_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is kept of each has a row per round or per client, and none per both."""
    loaded: list[ReferenceType[RunData]] = []

    def load(path: Path) -> RunData:
        assert [reference() for reference in loaded] == [None] * len(loaded)
        run = load_run(path)
        loaded.append(ref(run))
        return run

    runs_of(tmp_path, {0: (0.5, 0.6), 1: (0.5, 0.6)})
    monkeypatch.setattr("parityfl.reporting.report.load_run", load)
    comparison = compare_below(tmp_path)
    assert len(loaded) == len(comparison.runs) == 4
    assert {run.standing.height for run in comparison.runs} == {CLIENTS}


def test_a_run_without_a_partner_is_named(tmp_path: Path):
    runs = runs_of(tmp_path, {0: (0.5, 0.6)})
    runs.append(load_run(write_run(tmp_path / "mine-7", seed=7, **MINE)))
    comparison = compare(runs)
    assert comparison.unpaired == (f"{runs[2].path} is unpaired: no finished fedavg run with seed 7",)
    assert difference(comparison, "global_accuracy").estimate.n == 1


def test_methods_are_compared_within_a_setting(tmp_path: Path):
    """Two populations: a row each per method, and no difference across them."""
    runs = runs_of(tmp_path / "small", {0: (0.5, 0.6)})
    larger = {"population.clients": 12}
    runs.append(load_run(write_run(tmp_path / "large", changes=larger, **MINE)))
    comparison = compare(runs)
    assert comparison.settings == ["population.clients=12", "population.clients=6"]
    assert {d.setting for d in comparison.differences} == {"population.clients=6"}
    reason = "no finished fedavg run with seed 0 in this setting"
    assert comparison.unpaired == (f"{runs[2].path} is unpaired: {reason}",)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ({}, ""),
        ({"seed": 1}, "seeds 0 and 1 differ"),
        ({"changes": {"availability.pi": 0.9}}, "settings differ: availability.pi=0.5 against availability.pi=0.9"),
        ({"changes": {"population.clients": 9}}, "settings differ: population.clients=6 against population.clients=9"),
        ({"rounds": 7}, "8 rounds against 7"),
        ({"changes": {"evaluation.test_every": 5}}, ""),
    ],
)
def test_what_makes_a_pair(tmp_path: Path, run: RunData, written, reason: str):
    other = load_run(write_run(tmp_path / "other", **{**MINE, **written}))
    assert why_unpaired(compared(run), compared(other)) == reason


def test_runs_that_saw_other_clients_are_no_pair(run: RunData):
    """As in a live run: the configuration is the same, and the devices came at other times."""
    moved = run.clients.with_columns(pl.col("available").shift(1, fill_value=0))
    other = RunData(run.path, run.config, run.summary, run.rounds, moved)
    assert why_unpaired(compared(run), compared(other)) == "not the same clients were available in the same rounds"
    assert compare([run, other]).notes  # the same seed twice


def test_the_last_known_value_counts():
    frame = pl.DataFrame({"x": [1.0, 2.0, None], "y": pl.Series([None] * 3, dtype=pl.Float64)})
    assert last_known(frame, "x") == 2.0
    assert last_known(frame, "y") is None


def test_the_versions_of_the_runs_that_count_are_told_and_a_mixture_is_a_note(tmp_path: Path):
    def run(name: str, torch: str, **more: Any) -> RunData:
        return load_run(write_run(tmp_path / name, changes={"versions": {"torch": torch, "python": "3.11"}}, **more))

    same = [run("a", "2.14", seed=1), run("b", "2.14", seed=2), run("c", "2.15", seed=3, status="interrupted")]
    comparison = compare(same)
    assert comparison.versions == {"torch": "2.14", "python": "3.11"}
    assert not any("made with" in note for note in comparison.notes)
    assert "Made with torch 2.14, python 3.11.\n" in markdown(comparison)
    mixed = compare([*same, run("d", "2.15", seed=4)])
    assert mixed.versions["torch"] == "2.14 and 2.15"
    assert mixed.notes[-1].startswith("The runs were made with torch 2.14 and 2.15: a difference may come from that")


def test_a_package_of_which_only_some_runs_use_a_part_is_no_mixture(tmp_path: Path):
    config = {"versions": {"torch": "2.14", "tiny-parts": "0.3"}}
    ours = load_run(write_run(tmp_path / "ours", changes={"versions": {"torch": "2.14"}}))
    comparison = compare([load_run(write_run(tmp_path / "theirs", seed=2, changes=config)), ours])
    assert comparison.versions == {"torch": "2.14", "tiny-parts": "0.3"}
    assert not any("made with" in note for note in comparison.notes)


def test_the_manifest_is_of_results_and_not_of_folders(tmp_path: Path):
    first, second = {"model_hash": "aa", "ledger_hash": "bb"}, {"model_hash": "cc", "ledger_hash": "dd"}
    ours = write_run(tmp_path / "x" / "ours", seed=1, summary=first), write_run(tmp_path / "x" / "b", summary=second)
    again = write_run(tmp_path / "y" / "b", summary=first, seed=1), write_run(tmp_path / "y" / "c", summary=second)
    stopped = write_run(tmp_path / "y" / "d", seed=2, status="interrupted")
    found = [compare([load_run(path) for path in paths]).manifest for paths in (ours, (*again, stopped), ours[:1])]
    assert found[0] == found[1] != found[2]
    assert found[0] == sha256(b"aa bb\ncc dd\n").hexdigest()


def test_differences_that_cancel_are_not_identical():
    found = Difference("", "mine", "fedavg", METRICS[0], "seeds", estimate([0.1, -0.1]), 1, 1.0)
    assert (found.identical, found.verdict) == (False, "not settled")


def test_clients_and_rounds_that_differ_are_told_as_a_span(tmp_path: Path):
    runs = [
        load_run(write_run(tmp_path / str(seed), seed=seed, rounds=rounds)) for seed, rounds in enumerate((8, 5, 6))
    ]
    assert [row.rounds for row in compare(runs).rows] == ["5-8"]
