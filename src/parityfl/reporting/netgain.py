"""Where the gain that was kept has a spread: nowhere where clients lost more than they gained."""

from dataclasses import replace

import polars as pl

from parityfl.reporting.load import RunData

OF_NET_GAIN = ("credited_to_net", "net_gain_cv")
"""Figures that divide by the net gain: where it is a loss, they say nothing."""


def lost_in_the_end(run: RunData) -> bool:
    """Return whether the clients had lost more than they gained in the last round in which that is known."""
    known = run.rounds.select("credited_to_net", _losses(run)).drop_nulls()["lost"]
    return len(known) > 0 and bool(known[-1])


def without_losses(run: RunData) -> RunData:
    """Return a run without the figures of net gain in the rounds where it was a loss; in all where it ends as one."""
    losses = _losses(run)
    if not losses.any():
        return run
    hidden = pl.lit(True) if lost_in_the_end(run) else losses
    known = [pl.when(~hidden).then(pl.col(column)).alias(column) for column in OF_NET_GAIN]
    return replace(run, rounds=run.rounds.with_columns(known))


def _losses(run: RunData) -> pl.Series:
    """Return, for each round, whether net gain is known to be negative: credited utility and credited / net tell."""
    measured = run.clients.filter(pl.col("eval_loss").is_not_null())
    credited = measured.group_by("round").agg(pl.col("utility").sum().alias("credited"))
    rounds = run.rounds.join(credited, on="round", how="left", maintain_order="left")
    return (rounds["credited"] * rounds["credited_to_net"] < 0).fill_null(False).alias("lost")
