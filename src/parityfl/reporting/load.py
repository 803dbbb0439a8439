"""Reading run folders: the files of a run as typed tables."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
ROUNDS = "rounds.csv"

OWN = ("journal", "clients")
"""Folders in that of a run that hold no runs."""

NO_SUMMARY = "running, or ended without a summary"
"""What is known of a run without a summary: one that was killed could write none."""


@dataclass(frozen=True)
class RunOutline:
    """What the small files of a run folder hold.

    Attributes:
        path: the folder.
        config: the resolved configuration, with `versions` and `hash`.
        summary: the final figures; empty while the run has not ended.
        rounds: rounds.csv, a row per round; unknown values are null.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    rounds: pl.DataFrame

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


@dataclass(frozen=True)
class RunData(RunOutline):
    """What a run folder holds, all of it.

    Attributes:
        clients: clients.csv, a row per round and client; unknown values are null.
        shortfall: shortfall.csv, a row per client; None while the run has not ended.
    """

    clients: pl.DataFrame
    shortfall: pl.DataFrame | None = None


def load_run(path: str | Path) -> RunData:
    """Read a run folder; a run still in progress is read up to its last complete round.

    Raises:
        FolderError: a file is missing or is not what it should be; the message names it.
    """
    outline = load_outline(path)
    folder = outline.path
    clients = _read_csv(folder, "clients.csv", CLIENT_COLUMNS)
    ended = (folder / "shortfall.csv").exists()
    complete = _complete(outline.rounds, clients)
    return RunData(
        folder,
        outline.config,
        outline.summary,
        complete,
        _up_to(clients, complete.height),
        _read_csv(folder, "shortfall.csv", SHORTFALL_COLUMNS) if ended else None,
    )


def load_outline(path: str | Path) -> RunOutline:
    """Read all of a run folder but what has rows per client: however large the run is, that is quick.

    Of a run still in progress the last round may be one whose clients are not written yet.

    Raises:
        FolderError: a file is missing or is not what it should be; the message names it.
    """
    folder = Path(path)
    config = _read_json(folder, CONFIG)
    if "seed" not in config:
        raise FolderError(f"{folder / CONFIG} has no key 'seed': it is not the configuration of a run")
    rounds = _read_csv(folder, ROUNDS, ROUND_COLUMNS)
    _require_every_round(folder / ROUNDS, rounds["round"])
    return RunOutline(folder, config, _read_json(folder, SUMMARY) if (folder / SUMMARY).exists() else {}, rounds)


def unfinished(run: RunOutline) -> str:
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
    numbers = clients["round"].drop_nulls().to_numpy()  # to group millions of rows would take as much memory as they do
    if len(numbers) == 0:
        return rounds
    last = int(numbers.max())
    before = numbers[numbers < last]
    torn = len(before) > 0 and np.sum(numbers == last) < np.sum(before == before.max())
    return rounds.filter(pl.col("round") <= (int(before.max()) if torn else last))


def _up_to(clients: pl.DataFrame, last: int) -> pl.DataFrame:
    """Return the clients' rows of the rounds up to the last, without a copy where these are all."""
    within = clients["round"] <= last
    return clients if within.all() else clients.filter(within)


def _require_every_round(path: Path, numbers: pl.Series) -> None:
    for index, number in enumerate(numbers.to_list()):
        if number != index + 1:
            raise FolderError(f"{path}, line {index + 2}: round = {number}: {index + 1} follows; restore the file")


def find_runs(path: str | Path) -> list[Path]:
    """Return the folders at and below `path` that hold a summary.json, sorted."""
    return sorted(folder for folder, files in _folders(path) if SUMMARY in files)


def run_folders(path: str | Path) -> list[Path]:
    """Return the run folders at and below `path`, sorted; of a run that has no summary.json yet too."""
    return sorted(folder for folder, files in _folders(path) if SUMMARY in files or {CONFIG, ROUNDS} <= set(files))


def _folders(path: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders at and below `path` with the names of their files, but what a run keeps for itself.

    Its journal has a folder per client: to look into those of many runs takes seconds.
    """
    for folder, below, files in os.walk(path):
        if CONFIG in files:
            below[:] = [name for name in below if name not in OWN]
        yield Path(folder), files


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
    # Integers pass through floats, so that 3 and 3.0 are the same count.
    reading = {column: pl.String if kind is str else pl.Float64 for column, kind in columns.items()}
    try:
        frame = pl.read_csv(_whole_lines(folder, name), schema_overrides=reading)
    except pl.exceptions.PolarsError as error:
        raise FolderError(f"{folder / name} cannot be read: {first_line(error)}") from None
    absent = [column for column in columns if column not in frame.columns]
    required = [column for column in absent if column not in OPTIONAL]
    if required:
        raise FolderError(f"{folder / name} has no column {required[0]!r}: it was not written by this version")
    frame = frame.with_columns(pl.lit(None).alias(column) for column in absent)
    return frame.with_columns(pl.col(column).cast(kind) for column, kind in columns.items())


def _whole_lines(folder: Path, name: str) -> bytes:
    """Return a file up to its last line break; nobody holds on to it, since it may be as large as the memory allows."""
    content = _read_bytes(folder, name)
    return content[: content.rfind(b"\n") + 1]  # where no line is torn that is no copy
