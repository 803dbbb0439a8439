"""Watching runs that are processes of their own."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 120.0


def until(holds: Callable[[], bool], what: str) -> None:
    """Return once it holds; fail where it does not come about."""
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up, f"after {PATIENCE_S:g} s still not: {what}"
        time.sleep(0.02)


def has_closed(folder: Path, rounds: int) -> bool:
    """Return whether the run in a folder has closed so many rounds."""
    table = folder / "rounds.csv"
    return table.is_file() and table.read_bytes().count(b"\n") > rounds
