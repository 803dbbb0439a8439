"""Where each client stands at the end of a run, and who was left behind."""

import polars as pl

from parityfl.core.left_behind import left_behind
from parityfl.reporting.load import RunData


def standing(run: RunData) -> pl.DataFrame:
    """Return a row per client, in client order, with its totals and its last known figures.

    Columns: client_id, opportunities (n_k), availability_estimate, availability_low, availability_high,
    availability_true (mean over the rounds), selected, participated, conditional_rate (selected / n_k; null while
    n_k = 0), utility and normalized_utility (null where nobody ever measured what it gained), eval_accuracy,
    personal_accuracy, and `left_behind`: why, or null.
    """
    completed = pl.col("round").filter(pl.col("participated") == 1).max().fill_null(0)
    totals = run.clients.group_by("client_id", maintain_order=True).agg(
        pl.len().alias("rounds_present"),
        pl.col("available").sum().alias("opportunities"),
        *(_last_known(column) for column in ("availability_estimate", "availability_low", "availability_high")),
        pl.col("availability_true").mean(),
        pl.col("selected", "participated").sum(),
        pl.col("selected").filter(pl.col("round") > completed).sum().alias("missed"),
        pl.col("utility", "normalized_utility").last(),
        *(_last_known(column) for column in ("eval_accuracy", "personal_accuracy")),
    )
    rate = pl.when(pl.col("opportunities") > 0).then(pl.col("selected") / pl.col("opportunities"))
    rows = _client_order(run).join(totals, on="client_id", how="left", maintain_order="left")
    return rows.drop("rounds_present", "missed").with_columns(rate.alias("conditional_rate"), _left_behind(rows))


def _client_order(run: RunData) -> pl.DataFrame:
    """Return the clients in index order: the last round has a row for every client that ever registered."""
    return run.clients.filter(pl.col("round") == pl.col("round").max()).select("client_id")


def _last_known(column: str) -> pl.Expr:
    return pl.col(column).drop_nulls().last()


def _left_behind(clients: pl.DataFrame) -> pl.Series:
    names = ("rounds_present", "selected", "participated", "missed", "normalized_utility")
    known = {name: clients[name].to_numpy() for name in names}
    reasons = left_behind(available=clients["opportunities"].to_numpy(), **known)
    return pl.Series("left_behind", [reason or None for reason in reasons.tolist()], dtype=pl.String)
