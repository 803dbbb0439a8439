"""What an experiment's seeded world was asked for, and what came out: availability and drop-out."""

import numpy as np
import polars as pl

from parityfl.core.distributions import probabilities
from parityfl.core.types import Outcome
from parityfl.reporting.load import RunData
from parityfl.reporting.tables import number


def availability_line(run: RunData) -> str | None:
    """Return requested and realised availability, and the client with the largest gap; None where no truth is known.

    Both are over the rounds of which the truth is known: a recording may end before the run does.
    """
    known = run.clients.drop_nulls("availability_true").group_by("client_id", maintain_order=True)
    gaps = known.agg(pl.mean("availability_true"), realised=pl.mean("available"))
    if gaps.is_empty():
        return None
    gaps = gaps.with_columns(gap=(pl.col("realised") - pl.col("availability_true")).abs())
    widest = gaps.sort("gap", descending=True, maintain_order=True).row(0, named=True)
    return (
        f"{number(gaps['availability_true'].mean())} requested on average, "  # type: ignore[arg-type]
        f"{number(gaps['realised'].mean())} realised; largest gap {number(widest['gap'])}, "  # type: ignore[arg-type]
        f"{widest['client_id']}"
    )


def dropout_line(run: RunData, clients: pl.DataFrame) -> str | None:
    """Return the requested and the realised drop-out rate of the selected; None where none was requested.

    None also where some of the population never came: which of its rates are theirs who did is not in the folder.

    Requested is the mean of the clients' rates, each as often as it was selected; realised the share of selections
    whose outcome is `failed`, whatever made them fail.

    Args:
        run: the run.
        clients: its `standing`.
    """
    rate = run.config.get("dropout", {}).get("rate", 0.0)
    if rate == 0.0 or run.live or clients.height != run.config["population"]["clients"]:
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
