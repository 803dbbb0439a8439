from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from folders import write_run

from parityfl.reporting.load import RunData, load_run
from parityfl.reporting.standing import standing


def test_totals_of_each_client(run: RunData):
    """The counts that `folders` derives; h0's utility is .1 x 8 in 8 opportunities, h1's .1 x 2 in 4."""
    table = standing(run)
    assert table["client_id"].to_list() == [f"h{k}" for k in range(6)]
    assert table["opportunities"].to_list() == [8, 4, 2, 2, 1, 0]
    assert table["selected"].to_list() == [8, 4, 1, 0, 1, 0]
    assert table["participated"].to_list() == [8, 2, 1, 0, 1, 0]
    assert table["conditional_rate"].to_list() == [1.0, 1.0, 0.5, 0.0, 1.0, None]
    assert table["normalized_utility"].to_list() == pytest.approx([0.1, 0.05, 0.05, 0.0, 0.1, None])
    assert table["eval_accuracy"].to_list() == pytest.approx([0.66, 0.63, 0.60, 0.57, 0.54, 0.51])
    assert table["availability_estimate"].to_list() == [1.0, 0.5, 0.25, 0.25, 0.125, 0.0]
    assert table["left_behind"].to_list() == [None] * 5 + ["never available"]


def test_a_client_joins_late_and_keeps_its_place(tmp_path: Path):
    """h1 registers in round 5: it has rows from there, and stands between h0 and h2 all the same."""
    folder = write_run(tmp_path / "run")
    frame = pl.read_csv(folder / "clients.csv").filter((pl.col("client_id") != "h1") | (pl.col("round") >= 5))
    frame.write_csv(folder / "clients.csv")
    table = standing(load_run(folder))
    assert table["client_id"].to_list() == [f"h{k}" for k in range(6)]
    assert table["opportunities"].to_list() == [8, 2, 2, 2, 1, 0]


@pytest.mark.parametrize(("joined", "reason"), [(4, "never available"), (5, None), (8, None)])
def test_who_has_only_just_come_is_not_left_behind(run: RunData, joined: int, reason: str | None):
    """h5 is never available: of 8 rounds it is here in 5, in 4 or in the last one."""
    clients = run.clients.filter((pl.col("client_id") != "h5") | (pl.col("round") >= joined))
    assert standing(replace(run, clients=clients))["left_behind"].to_list() == [None] * 5 + [reason]


@pytest.mark.parametrize(
    ("selected", "participated", "utility", "reason"),
    [
        (0, 0, 0.0, "never selected"),
        (3, 0, 0.0, "never completed a round"),
        (12, 2, 0.1, "no longer completes rounds"),
        (11, 2, 0.1, None),
        (3, 3, 0.0, "little benefit"),
        (3, 3, 0.1, None),
    ],
)
def test_who_was_left_behind(tmp_path: Path, selected: int, participated: int, utility: float, reason: str | None):
    """h0 has 40 opportunities. It was selected in the first rounds, and completed the first of those."""
    run = load_run(write_run(tmp_path / "run", rounds=40))
    rounds = pl.col("round")
    changed = pl.when(pl.col("client_id") == "h0")
    clients = run.clients.with_columns(
        changed.then((rounds <= selected).cast(pl.Int64)).otherwise(pl.col("selected")).alias("selected"),
        changed.then((rounds <= participated).cast(pl.Int64)).otherwise(pl.col("participated")).alias("participated"),
        changed.then(utility).otherwise(pl.col("normalized_utility")).alias("normalized_utility"),
    )
    table = standing(RunData(run.path, run.config, run.summary, run.rounds, clients))
    assert table["left_behind"][0] == reason


@pytest.mark.parametrize("utility", [0.0, -0.1, None])
def test_nobody_has_little_benefit_where_the_median_is_not_above_zero(run: RunData, utility: float | None):
    """h0, which took part 8 times, has what everybody has."""
    clients = run.clients.with_columns(pl.lit(utility, dtype=pl.Float64).alias("normalized_utility"))
    assert standing(replace(run, clients=clients))["left_behind"].to_list() == [None] * 5 + ["never available"]


def test_an_empty_run_has_nobody(tmp_path: Path):
    run = load_run(write_run(tmp_path / "run", rounds=0, status=None))
    assert standing(run).height == 0
