"""Where the gain that was kept has a spread: nowhere where clients lost more than they gained."""

from dataclasses import replace

import polars as pl

from parityfl.reporting.load import RunData

OF_NET_GAIN = ("credited_to_net", "net_gain_cv")
"""Figures that divide by the net gain: where it is a loss, they say nothing."""


def lost_in_the_end(run: RunData) -> bool:
    """Return whether the clients had lost more than they gained in the last round in which that is known."""
    known = run.rounds["mean_net_gain"].drop_nulls()
    return len(known) > 0 and bool(known[-1] < 0)


def without_losses(run: RunData) -> RunData:
    """Return a run without the figures of net gain in the rounds where it was a loss; in all where it ends as one."""
    if not (run.rounds["mean_net_gain"] < 0).any():
        return run
    kept = pl.lit(False) if lost_in_the_end(run) else (pl.col("mean_net_gain") >= 0).fill_null(True)
    known = [pl.when(kept).then(pl.col(column)).alias(column) for column in OF_NET_GAIN]
    return replace(run, rounds=run.rounds.with_columns(known))
