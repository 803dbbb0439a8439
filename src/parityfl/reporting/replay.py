"""When a run's clients were there, as intervals that the availability model `trace` replays."""

from pathlib import Path

import polars as pl

from parityfl.core.availability.intervals import HEADER
from parityfl.core.errors import FolderError
from parityfl.files import replace_file, writing
from parityfl.reporting.load import load_run


def write_intervals(run: Path, file: Path) -> None:
    """Write a CSV client_id,start_s,end_s of a run: who was available as a round began counts until the next begins.

    Seconds are those since the run began. The last round lasts as long as the median one, or `rounds.interval_s` where
    it is the only one. Clients come in the order of clients.csv; each also has an empty interval at either end of the
    run, so that those that were never there are in the file, and the whole run is observed.

    Raises:
        FolderError: the folder holds no run or no round, or the file is there already or cannot be written.
    """
    if file.exists():
        raise FolderError(f"{file} is there already: name another file, or remove it")
    data = load_run(run)
    if data.rounds.is_empty():
        raise FolderError(f"{run} has no round yet: wait until one has closed")
    rounds = data.rounds.select("round", start_s=pl.col("time_s").cast(pl.Float64))
    usual = rounds["start_s"].diff().median()
    usual_s = data.config["rounds"]["interval_s"] if usual is None else usual
    begin_s, end_s = rounds["start_s"][0], rounds["start_s"][-1] + usual_s
    spans = rounds.with_columns(end_s=pl.col("start_s").shift(-1, fill_value=end_s))
    everyone = data.clients.select(pl.col("client_id").unique(maintain_order=True))
    edges = [everyone.with_columns(start_s=pl.lit(edge), end_s=pl.lit(edge)) for edge in (begin_s, end_s)]
    there = data.clients.filter(pl.col("available") == 1).join(spans, on="round", maintain_order="left")
    rows = pl.concat([*edges, there.select(HEADER.split(","))])
    with writing(file):
        replace_file(file, rows.write_csv().encode())
