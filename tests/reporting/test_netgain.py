"""Where clients lost more than they gained, figures that divide by their net gain say nothing."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from folders import ROUNDS, write_run

from parityfl.reporting.compare import compare
from parityfl.reporting.load import RunData, load_run
from parityfl.reporting.netgain import lost_in_the_end, without_losses
from parityfl.reporting.report import run_page
from parityfl.reporting.tables import markdown


def with_gains(run: RunData, gains: list[float | None]) -> RunData:
    return replace(run, rounds=run.rounds.with_columns(pl.Series("mean_net_gain", gains, dtype=pl.Float64)))


@pytest.mark.parametrize(
    ("gains", "lost", "known"),
    [
        ([0.2] * ROUNDS, False, ROUNDS),
        ([-0.1, -0.1, *[0.2] * (ROUNDS - 2)], False, ROUNDS - 2),
        ([*[0.2] * (ROUNDS - 1), -0.01], True, 0),
        ([*[0.2] * (ROUNDS - 2), -0.01, None], True, 0),
        ([*[None] * (ROUNDS - 1), -0.01], True, 0),
        ([0.0] * ROUNDS, False, ROUNDS),
        ([None] * ROUNDS, False, ROUNDS),
    ],
)
def test_the_spread_of_a_loss_is_left_out(run: RunData, gains: list[float | None], lost: bool, known: int):
    """A round in which the net gain is unknown tells nothing, and the last in which it is known decides."""
    judged = with_gains(run, gains)
    assert lost_in_the_end(judged) == lost
    assert without_losses(judged).rounds["net_gain_cv"].count() == known
    assert without_losses(judged).rounds["credited_to_net"].count() == known


def test_the_page_of_a_run_says_so_and_shows_no_such_figure(run: RunData):
    page = run_page(with_gains(run, [-0.25] * ROUNDS))
    assert "The clients lost more than they gained" in page
    assert "-0.250 nats on average" in page
    assert "credited / net –, net-gain CV –;" in page
    assert "lost more than they gained</" not in run_page(run)


def test_a_comparison_counts_the_runs_whose_net_gain_is_a_loss(tmp_path: Path):
    """Of two seeds of mine one ends in a loss: its net-gain CV is neither in the mean nor in a pair."""
    mine = {"method": "mine", "selector": "lnu"}
    runs = [load_run(write_run(tmp_path / f"f{seed}", seed=seed)) for seed in range(2)]
    runs += [load_run(write_run(tmp_path / f"m{seed}", seed=seed, **mine)) for seed in range(2)]
    runs[2] = with_gains(runs[2], [-0.1] * ROUNDS)
    comparison = compare(runs)
    assert comparison.rows[1].estimates["net_gain_cv"].n == 1
    assert [d.estimate.n for d in comparison.differences if d.metric.column == "net_gain_cv"] == [1]
    assert [d.estimate.n for d in comparison.differences if d.metric.column == "utility_cv"] == [2]
    (note,) = comparison.notes
    assert note.startswith("Net-gain CV and credited / net leave out 1 of 4 finished runs")
    assert note.endswith(str(runs[2].path))
    assert "(n = 1)" in markdown(comparison)
