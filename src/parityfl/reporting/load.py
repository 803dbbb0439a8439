"""Reading run folders: the files of a run as typed tables."""

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from parityfl.core.columns import CLIENT_COLUMNS, ROUND_COLUMNS, SHORTFALL_COLUMNS, Columns
from parityfl.core.errors import FolderError, first_line

OPTIONAL = (
    "personal_accuracy",
    "deadline_s",
    "late",
    "weighted_client_accuracy",
    "client_accuracy_std",
    "weighted_client_accuracy_std",
    "mean_personal_accuracy",
    "worst10_personal_accuracy",
    "saturation",
    "mean_net_gain",
)
"""Columns that a folder may lack: they came later."""

SUMMARY = "summary.json"
CONFIG = "config.json"

NO_SUMMARY = "running, or ended without a summary"
"""What is known of a run without a summary: one that was killed could write none."""


@dataclass(frozen=True)
class RunData:
    """What a run folder holds.

    Attributes:
        path: the folder.
        config: the resolved configuration, with `versions` and `hash`.
        summary: the final figures; empty while the run has not ended.
        rounds: rounds.csv, a row per round; unknown values are null.
        clients: clients.csv, a row per round and client; unknown values are null.
        shortfall: shortfall.csv, a row per client; None while the run has not ended.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    rounds: pl.DataFrame
    clients: pl.DataFrame
    shortfall: pl.DataFrame | None = None

    @property
    def status(self) -> str:
        """How the run ended: `done`, `interrupted` or `failed`; `NO_SUMMARY` while there is none."""
        return str(self.summary.get("status", NO_SUMMARY))

    @property
    def finished(self) -> bool:
        """Whether the run did all its rounds and recorded them."""
        return self.status == "done" and self.rounds.height > 0

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed"])

    @property
    def rounds_planned(self) -> int | None:
        """How many rounds the configuration asks for; None where it does not say."""
        count = self.config.get("rounds", {}).get("count")
        return None if count is None else int(count)

    @property
    def live(self) -> bool:
        """Whether the rounds were on the wall clock, with devices that come and go as they do."""
        return bool(self.config.get("rounds", {}).get("clock") == "wall")


def load_run(path: str | Path) -> RunData:
    """Read a run folder; a run still in progress is read up to its last complete round.

    Raises:
        FolderError: a file is missing or is not what it should be; the message names it.
    """
    folder = Path(path)
    config = _read_json(folder, CONFIG)
    if "seed" not in config:
        raise FolderError(f"{folder / CONFIG} has no key 'seed': it is not the configuration of a run")
    rounds = _read_csv(folder, "rounds.csv", ROUND_COLUMNS)
    clients = _read_csv(folder, "clients.csv", CLIENT_COLUMNS)
    _require_every_round(folder / "rounds.csv", rounds["round"])
    summary = _read_json(folder, SUMMARY) if (folder / SUMMARY).exists() else {}
    ended = (folder / "shortfall.csv").exists()
    complete = _complete(rounds, clients)
    return RunData(
        folder,
        config,
        summary,
        complete,
        clients.join(complete, on="round", how="semi", maintain_order="left"),
        _read_csv(folder, "shortfall.csv", SHORTFALL_COLUMNS) if ended else None,
    )


def unfinished(run: RunData) -> str:
    """Return how far a run got that did not finish, '' where it did."""
    planned = "" if run.rounds_planned is None else f" of {run.rounds_planned}"
    return "" if run.finished else f"{run.status} after {run.rounds.height}{planned} rounds"


def last_known(frame: pl.DataFrame, column: str) -> float | None:
    """Return the column's last value that is known, None where there is none."""
    values = frame[column].drop_nulls()
    return float(values[-1]) if len(values) else None


def _complete(rounds: pl.DataFrame, clients: pl.DataFrame) -> pl.DataFrame:
    """Return the rounds up to the last that has all its clients.

    No client ever leaves the table, so a last round with fewer of them than the one before is still being written. The
    first rounds may have none: no device had registered.
    """
    sizes = clients.group_by("round").len().sort("round").tail(2)
    if sizes.is_empty():
        return rounds
    torn = sizes.height == 2 and sizes["len"][1] < sizes["len"][0]
    return rounds.filter(pl.col("round") <= sizes["round"][0 if torn else -1])


def _require_every_round(path: Path, numbers: pl.Series) -> None:
    for index, number in enumerate(numbers.to_list()):
        if number != index + 1:
            raise FolderError(f"{path}, line {index + 2}: round = {number}: {index + 1} follows; restore the file")


def find_runs(path: str | Path) -> list[Path]:
    """Return the folders at and below `path` that hold a summary.json, sorted."""
    return sorted(found.parent for found in Path(path).rglob(SUMMARY))


def find_unfinished(path: str | Path) -> list[Path]:
    """Return the folders at and below `path` that hold a run's config.json but no summary.json yet, sorted."""
    folders = (found.parent for found in Path(path).rglob(CONFIG))
    return sorted(f for f in folders if (f / "rounds.csv").exists() and not (f / SUMMARY).exists())


def _read_bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FolderError(f"{folder} is not a run folder: {name} is missing") from None
    except OSError as error:
        reason = error.strerror or error
        raise FolderError(f"{folder / name} cannot be read ({reason}): restore the file, or make it readable") from None


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(_read_bytes(folder, name))
    except ValueError as error:
        raise FolderError(f"{folder / name} is not JSON ({error}): restore the file or run again") from None
    if not isinstance(value, dict):
        raise FolderError(f"{folder / name} holds no JSON object: restore the file or run again")
    return value


def _read_csv(folder: Path, name: str, columns: Columns) -> pl.DataFrame:
    """Read a CSV file without its last line where that is torn; columns that are not ours keep the type they show."""
    content = _read_bytes(folder, name)
    whole_lines = content[: content.rfind(b"\n") + 1]
    # Integers pass through floats, so that 3 and 3.0 are the same count.
    reading = {column: pl.String if kind is str else pl.Float64 for column, kind in columns.items()}
    try:
        frame = pl.read_csv(BytesIO(whole_lines), schema_overrides=reading)
    except pl.exceptions.PolarsError as error:
        raise FolderError(f"{folder / name} cannot be read: {first_line(error)}") from None
    absent = [column for column in columns if column not in frame.columns]
    required = [column for column in absent if column not in OPTIONAL]
    if required:
        raise FolderError(f"{folder / name} has no column {required[0]!r}: it was not written by this version")
    frame = frame.with_columns(pl.lit(None).alias(column) for column in absent)
    return frame.with_columns(pl.col(column).cast(kind) for column, kind in columns.items())
