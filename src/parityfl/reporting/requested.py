"""What an experiment's seeded world was asked for, and what came out: availability and drop-out."""

import numpy as np
import polars as pl

from parityfl.core.distributions import probabilities
from parityfl.core.types import Outcome
from parityfl.reporting.load import RunData
from parityfl.reporting.tables import number


def availability_line(clients: pl.DataFrame) -> str | None:
    """Return requested and realised availability over the rounds, and the client with the largest gap.

    None where no truth is known.

    Args:
        clients: the run's `standing`.
    """
    gaps = clients.with_columns(gap=(pl.col("availability_estimate") - pl.col("availability_true")).abs()).drop_nulls(
        "gap"
    )
    if gaps.is_empty():
        return None
    widest = gaps.sort("gap", descending=True, maintain_order=True).row(0, named=True)
    return (
        f"{number(gaps['availability_true'].mean())} requested on average, "  # type: ignore[arg-type]
        f"{number(gaps['availability_estimate'].mean())} realised; largest gap {number(widest['gap'])}, "  # type: ignore[arg-type]
        f"{widest['client_id']}"
    )


def dropout_line(run: RunData, clients: pl.DataFrame) -> str | None:
    """Return the requested and the realised drop-out rate of the selected; None where none was requested.

    Requested is the mean of the clients' rates, each as often as it was selected; realised the share of selections
    whose outcome is `failed`, whatever made them fail.

    Args:
        run: the run.
        clients: its `standing`.
    """
    rate = run.config.get("dropout", {}).get("rate", 0.0)
    if rate == 0.0 or run.live:
        return None
    selected = clients["selected"].to_numpy()
    total = int(selected.sum())
    if total == 0:
        return None
    requested = probabilities("dropout.rate", rate, clients.height, run.seed)
    failed = int((run.clients["outcome"] == Outcome.FAILED.value).sum())
    return (
        f"{number(float(np.dot(requested, selected)) / total)} requested, {number(failed / total)} realised, of "
        f"{total} selections"
    )
