"""The rows of rounds.csv and clients.csv: which columns, in which order, and how a number is written."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from parityfl.core.fairness import availability_interval, ratio
from parityfl.core.ledger import OUTCOME_CODES, Ledger, RoundRecord
from parityfl.core.rounds import staleness
from parityfl.core.shortfall import shortfall

ROUND_COLUMNS = (
    "round", "time_s", "num_available", "num_selected", "num_participated", "num_late", "num_failed", "deadline_s",
    "global_accuracy", "global_loss", "mean_client_accuracy", "worst10_client_accuracy", "accuracy_jain",
    "weighted_client_accuracy", "client_accuracy_std", "weighted_client_accuracy_std", "mean_personal_accuracy",
    "worst10_personal_accuracy",
    "utility_cv", "utility_jain", "utility_gini", "worst10_normalized_utility", "selection_gap",
    "conditional_selection_gap", "participation_gini", "label_coverage", "label_kl", "unseen_label_rate",
    "low_availability_accuracy", "ema_global_accuracy", "net_gain_cv", "credited_to_net", "bytes_down", "bytes_up",
    "select_s", "train_s", "aggregate_s", "evaluate_s", "round_s", "rss_bytes",
)  # fmt: skip
"""The columns of rounds.csv; docs/metrics.md defines each."""

CLIENT_COLUMNS = (
    "round", "client_id", "available", "selected", "participated", "outcome", "availability_true",
    "availability_estimate", "availability_low", "availability_high", "inclusion_probability", "loss_gain",
    "accuracy_gain", "local_gain", "utility", "normalized_utility", "eval_loss", "eval_accuracy", "local_loss_before",
    "local_loss_after", "num_samples", "staleness", "surrogate_weight", "personal_accuracy", "latency_s", "bytes_up",
    "bytes_down",
)  # fmt: skip
"""The columns of clients.csv; docs/metrics.md defines each."""

SHORTFALL_COLUMNS = (
    "client_id", "rounds", "available", "selected", "participated", "late", "utility", "share", "shortfall",
    "physical", "scheduling", "execution", "learning",
)  # fmt: skip
"""The columns of shortfall.csv; docs/metrics.md defines each."""

UNHASHED = ("latency_s", "bytes_up", "bytes_down")
"""Columns that depend on the machine and the wire; `ledger_hash` leaves them out. They are the last ones."""

COUNTS = ("num_samples", "staleness", "bytes_up", "bytes_down")
"""Columns of clients.csv that are whole numbers where they are known."""

Values = NDArray[np.generic]


def header(columns: Sequence[str]) -> str:
    """Return the first line of a table."""
    return ",".join(columns) + "\n"


def lines(columns: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table from its columns of written cells, each of the same length."""
    return "".join(",".join(cells) + "\n" for cells in zip(*columns, strict=True))


def round_line(figures: Mapping[str, float]) -> str:
    """Return the line of rounds.csv; nan is written as nothing."""
    return ",".join(text(figures[column]) for column in ROUND_COLUMNS) + "\n"


def client_lines(record: RoundRecord, ledger: Ledger, device_ids: Sequence[str]) -> str:
    """Return the lines of clients.csv of a round, a line per registered client; `ledger` includes the round."""
    here = np.flatnonzero(record.registered)
    columns = _client_columns(record, ledger)
    cells = [[str(record.round)] * len(here), [device_ids[index] for index in here.tolist()]]
    cells += [_texts(name, np.asarray(columns[name])[here]) for name in CLIENT_COLUMNS[2:]]
    return lines(cells)


def shortfall_lines(ledger: Ledger, device_ids: Sequence[str]) -> str:
    """Return the lines of shortfall.csv, a line per registered client."""
    here = np.flatnonzero(ledger.first_round > 0)
    parts = shortfall(ledger)
    columns: list[Values] = [
        ledger.rounds_present,
        ledger.available,
        ledger.selected,
        ledger.participated,
        ledger.late,
        ledger.utility,
        parts.share,
        parts.total,
        parts.physical,
        parts.scheduling,
        parts.execution,
        parts.learning,
    ]
    cells = [[device_ids[index] for index in here.tolist()]]
    cells += [[text(value) for value in column[here].tolist()] for column in columns]
    return lines(cells)


def _client_columns(record: RoundRecord, ledger: Ledger) -> dict[str, Values]:
    rounds = ledger.rounds_present
    low, high = availability_interval(ledger.available, rounds, ledger.switched_on, ledger.switched_off)
    derived: dict[str, Values] = {
        "participated": record.participated,
        "outcome": np.asarray(OUTCOME_CODES)[record.outcome],
        "availability_estimate": ratio(ledger.available, rounds),
        "availability_low": low,
        "availability_high": high,
        "utility": ledger.utility,
        "normalized_utility": ledger.normalized_utility,
        "staleness": staleness(ledger),
    }
    return derived | {name: getattr(record, name) for name in CLIENT_COLUMNS[2:] if name not in derived}


def _texts(name: str, values: Values) -> list[str]:
    if values.dtype == np.bool_ or name in COUNTS:
        return ["" if math.isnan(value) else str(int(value)) for value in values.tolist()]
    return [text(value) for value in values.tolist()]


def text(value: float | str) -> str:
    """Write a float in its shortest round-trip form, a count as a whole number, what is not finite as nothing."""
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""
    return str(value)
