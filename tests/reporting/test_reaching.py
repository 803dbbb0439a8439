from math import inf
from pathlib import Path

import polars as pl
import pytest
from folders import write_run

from parityfl.reporting.compare import compare
from parityfl.reporting.comparison import Comparison
from parityfl.reporting.load import RunData, load_run
from parityfl.reporting.reaching import TARGETS, Pace, paces, round_of
from parityfl.reporting.report import write_report
from parityfl.reporting.tables import comparison_frame, markdown, pace_cells

ACCURACY, GAP = TARGETS
MINE = {"method": "mine", "selector": "lnu", "aggregator": "mifa", "selects": "last"}


def rounds_with(column: str, values: list[float | None]) -> pl.DataFrame:
    numbers = range(1, len(values) + 1)
    return pl.DataFrame({"round": numbers, column: values}, schema_overrides={column: pl.Float64}).drop_nulls()


def comparison(tmp_path: Path, mine: list[float], baseline: str = "fedavg") -> Comparison:
    runs = []
    for seed, base in enumerate(mine):
        runs.append(load_run(write_run(tmp_path / f"fedavg-{seed}", seed=seed, base=0.5)))
        runs.append(load_run(write_run(tmp_path / f"mine-{seed}", seed=seed, base=base, **MINE)))
    return compare(runs, baseline)


def pace(found: Comparison, method: str, column: str) -> Pace:
    return next(p for p in paces(found) if p.method == method and p.target.column == column)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.1, 0.5, 0.4, 0.6], 2),  # the first that is as accurate, though it falls back
        ([0.1, None, 0.5], 3),  # a round without the test set does not count
        ([0.1, 0.2], inf),
        ([None, None], inf),
    ],
)
def test_the_round_that_is_as_accurate(values: list[float | None], found: float):
    assert round_of(rounds_with("global_accuracy", values), ACCURACY, 0.5) == found


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.0, 0.9, 0.3, 0.5, 0.4], 3),  # all are alike before anybody was chosen: that does not last
        ([0.3, 0.2], 1),
        ([0.3, 0.6], inf),
    ],
)
def test_the_round_from_which_on_a_gap_is_as_narrow(values: list[float | None], found: float):
    assert round_of(rounds_with("conditional_selection_gap", values), GAP, 0.5) == found


def test_methods_by_the_round_in_which_they_are_where_the_baseline_ends(tmp_path: Path):
    """FedAvg ends with .5 + .16 = .66 in round 8; .61 + .02 t is there from round 3, .57 from 5, .49 never."""
    found = comparison(tmp_path, [0.61, 0.57, 0.49])
    mine, theirs = pace(found, "mine", "global_accuracy"), pace(found, "fedavg", "global_accuracy")
    assert mine.value.mean == pytest.approx(0.66)
    assert (mine.rounds, mine.median, mine.reached, mine.within) == ((3, 5, inf), 5, 2, 8)
    assert theirs.rounds == (8, 8, 8)


def test_the_baseline_ends_with_the_mean_of_its_last_fifth(tmp_path: Path):
    """Of ten rounds the last two: .5 + .02 x 9.5 = .69, where .61 + .02 t is from round 4 on."""
    folders = [write_run(tmp_path / "f", rounds=10), write_run(tmp_path / "m", rounds=10, base=0.61, **MINE)]
    found = compare([load_run(folder) for folder in folders], "fedavg")
    assert pace(found, "mine", "global_accuracy").value.mean == pytest.approx(0.69)
    assert [pace(found, name, "global_accuracy").rounds for name in ("mine", "fedavg")] == [(4,), (10,)]


def test_where_half_do_not_get_there_the_median_is_not_a_number(tmp_path: Path):
    """The gap of `last` ends at .375, that of `first` at 1: see `folders`."""
    found = comparison(tmp_path, [0.61, 0.49], baseline="mine")
    theirs = pace(found, "fedavg", "conditional_selection_gap")
    assert (theirs.rounds, theirs.median, theirs.reached) == ((inf, inf), inf, 0)
    row = next(row for row in comparison_frame(found).iter_rows(named=True) if row["method"] == "fedavg")
    assert row["conditional_selection_gap_reached_round"] is None
    assert row["conditional_selection_gap_reached_runs"] == 0


def test_a_method_alone_has_nothing_to_reach(run: RunData, tmp_path: Path):
    assert paces(compare([run])) == []
    elsewhere = {"availability": {"name": "bernoulli"}}
    other = load_run(write_run(tmp_path / "other", changes=elsewhere))
    assert len(compare([run, other]).rows) == 2
    assert paces(compare([run, other])) == []


def test_runs_without_a_partner_do_not_count(tmp_path: Path):
    runs = [load_run(write_run(tmp_path / "fedavg")), load_run(write_run(tmp_path / "mine", seed=1, **MINE))]
    assert {(found.method, len(found.rounds)) for found in paces(compare(runs))} == {("fedavg", 1)}


def test_a_baseline_that_is_tested_less_often_is_compared_in_the_rounds_that_both_know(tmp_path: Path):
    """.55 + .02 t is at .66, where the baseline ends in round 8, from round 6 on; both know 4 and 8 only."""
    often, seldom = write_run(tmp_path / "mine", base=0.55, **MINE), write_run(tmp_path / "fedavg")
    frame = pl.read_csv(seldom / "rounds.csv")
    tested = pl.when(pl.col("round") % 4 == 0).then(pl.col("global_accuracy"))
    frame.with_columns(tested.alias("global_accuracy")).write_csv(seldom / "rounds.csv")
    found = compare([load_run(often), load_run(seldom)], "fedavg")
    assert pace(found, "mine", "global_accuracy").rounds == (8,)


def test_tables(tmp_path: Path):
    found = comparison(tmp_path, [0.61, 0.57, 0.49])
    header, *rows = pace_cells(paces(found))
    assert header == ["Method", "Figure", "To reach", "Median round", "Rounds", "Reached in"]
    assert rows[1] == ["mine", "Global accuracy", "0.660", "5", "3 to > 8", "2 of 3"]
    assert "How soon they are where fedavg ends:" in markdown(found)
    row = next(row for row in comparison_frame(found).iter_rows(named=True) if row["method"] == "mine")
    assert (row["global_accuracy_reached_round"], row["global_accuracy_reached_runs"]) == (5, 2)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<h2>How soon</h2>" in page
    assert "3 to &gt; 8" in page
