"""What an experiment was asked for, beside what came out."""

from dataclasses import replace
from pathlib import Path

import polars as pl
from folders import write_run

from parityfl.reporting.load import RunData, load_run
from parityfl.reporting.requested import availability_line, dropout_line
from parityfl.reporting.standing import standing


def knowing(run: RunData, truth: pl.Expr) -> RunData:
    return replace(run, clients=run.clients.with_columns(truth.alias("availability_true")))


def test_availability_by_hand(run: RunData):
    """True 1/(k + 1) of five clients and 0: mean .381; seen 8, 4, 2, 2, 1, 0 of 8: mean .354; h2 1/3 against 1/4."""
    assert availability_line(run) == "0.381 requested on average, 0.354 realised; largest gap 0.083, h2"
    assert availability_line(knowing(run, pl.lit(None, dtype=pl.Float64))) is None


def test_a_recording_that_ends_is_judged_in_the_rounds_that_it_covers(run: RunData):
    """What came out in rounds 1 and 2, h0 2 of 2, h1 1 of 2 and the others as chance had it, is what was asked."""
    early = pl.when(pl.col("round") <= 2).then(pl.mean("available").over("client_id", pl.col("round") <= 2))
    line = availability_line(knowing(run, early))
    assert line is not None
    assert "largest gap 0," in line.replace("0.000", "0")


def test_dropout_by_hand(tmp_path: Path):
    """h0 was selected 8 times, h1 4, h2 and h4 once: requested (8 x .1 + 6 x .5) / 14; one outcome made `failed`."""
    rates = [0.1, 0.5, 0.5, 0.5, 0.5, 0.5]
    run = load_run(write_run(tmp_path / "run", changes={"dropout": {"rate": rates}}))
    failing = pl.when(pl.col("outcome") == "timed_out").then(pl.lit("failed")).otherwise(pl.col("outcome"))
    changed = RunData(run.path, run.config, run.summary, run.rounds, run.clients.with_columns(failing.alias("outcome")))
    assert dropout_line(changed, standing(run)) == "0.271 requested, 0.071 realised, of 14 selections"


def test_dropout_is_unknown_where_not_everybody_came(tmp_path: Path):
    run = load_run(write_run(tmp_path / "run", changes={"dropout": {"rate": [0.5] * 6}}))
    some = replace(run, clients=run.clients.filter(pl.col("client_id").is_in(["h0", "h2"])))
    assert dropout_line(some, standing(some)) is None


def test_no_dropout_is_no_line(tmp_path: Path, run: RunData):
    assert dropout_line(run, standing(run)) is None
    empty = load_run(write_run(tmp_path / "empty", rounds=0, status=None, changes={"dropout": {"rate": 0.5}}))
    assert dropout_line(empty, standing(empty)) is None
