"""The journal: all that the next round depends on, on disk before anybody is told that a round is over.

After every round a checkpoint `round-<number>.safetensors` is written beside its predecessor, so that a damaged newest
one costs a round and not the run. What belongs to single clients and changes only when they take part (the memory of
MIFA is N x d) is not in it: each participant's rows go to a file of their own, `rows/<client>/<round>.safetensors`, and
the checkpoint says of which round each client's rows are. So a round costs O(participants x d + N). Once the run is
over no round depends on the rows, most of the folder's bytes: one checkpoint without them is left.

A torn or flipped file is never taken for a good one: see `array_files`.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parityfl.array_files import Arrays, DamagedError, read_arrays, write_arrays
from parityfl.core.errors import FolderError
from parityfl.core.types import IntArray

KEPT = 2
"""How many checkpoints are kept: the newest and the good one before it."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round.

    Attributes:
        round: the round's number; 0 before the first.
        arrays: named arrays; those whose last name part begins with ``row_`` have a row per client.
        document: what is no array, as JSON values.
    """

    round: int
    arrays: Arrays
    document: dict[str, Any]


class Journal:
    """Writes checkpoints to a folder and finds the newest good one.

    Args:
        folder: made when missing.
        num_clients: N.
        durable: also force every file to the disk, for a live run that cannot be repeated; a killed process loses
            nothing either way.
    """

    def __init__(self, folder: Path, num_clients: int, durable: bool = False) -> None:
        self._folder = folder
        self._rows = folder / "rows"
        self._durable = durable
        self._row_round: IntArray = np.zeros(num_clients, dtype=np.int64)

    def write(self, checkpoint: Checkpoint, touched: IntArray) -> None:
        """Write a checkpoint; `touched` are the clients whose rows changed since the one before.

        Raises:
            OSError: the disk is full or cannot be written; what was written before is still good.
        """
        rows, rest = _split(checkpoint.arrays)
        touched = touched if rows else touched[:0]
        before = self._row_round
        after = before.copy()
        after[touched] = checkpoint.round
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write_rows(rows, touched, checkpoint.round)
        self._write_rest(rest, after, checkpoint)
        self._prune(touched, checkpoint.round, before)

    def close(self, checkpoint: Checkpoint) -> None:
        """Keep of a run that is over nothing but its last checkpoint, in which all rows are as before the first round.

        Raises:
            OSError: the disk is full or cannot be written; what was written before is still good, or no longer needed.
        """
        _, rest = _split(checkpoint.arrays)
        self._write_rest(rest, np.zeros_like(self._row_round), checkpoint)
        for path in self._checkpoints()[:-1]:
            path.unlink()
        shutil.rmtree(self._rows, ignore_errors=True)

    def read(self, initial: Callable[[], Arrays]) -> Checkpoint | None:
        """Return the newest good checkpoint, or None where there is none at all.

        Args:
            initial: makes the state before the first round; the rows of clients that never took part stay as they
                are there, the others are filled in.

        Raises:
            FolderError: there are checkpoints and none of them can be used; the message says what is wrong with each.
        """
        faults = []
        for path in self._checkpoints()[::-1]:
            try:
                return self._restore(path, *_split(initial()))
            except _UnusableError as error:
                faults.append(str(error))
        if faults:
            raise FolderError(f"{self._folder}: no usable checkpoint: {'; '.join(faults)}. Start afresh elsewhere")
        return None

    def _restore(self, path: Path, rows: Arrays, expected: Arrays) -> Checkpoint:
        arrays, document = _read(path)
        lacking = sorted(expected.keys() - arrays.keys())
        if lacking:
            raise _UnusableError(f"{path.name} lacks {lacking[0]}: another version of parityfl wrote it")
        row_round = arrays.pop("row_round")
        for client in np.flatnonzero(row_round).tolist():
            stored, _ = _read(self._row_path(client, int(row_round[client])))
            for name, row in stored.items():
                rows[name][client] = row
        self._row_round = row_round
        return Checkpoint(int(document.pop("round")), {**arrays, **rows}, document)

    def _write_rest(self, rest: Arrays, row_round: IntArray, checkpoint: Checkpoint) -> None:
        """Write a checkpoint's file, which says of which round each client's rows are."""
        document = {**checkpoint.document, "round": checkpoint.round}
        arrays = {**rest, "row_round": row_round}
        write_arrays(self._path(checkpoint.round), arrays, document, durable=self._durable)
        self._row_round = row_round

    def _write_rows(self, rows: Arrays, touched: IntArray, round: int) -> None:
        for client in touched.tolist():
            path = self._row_path(client, round)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_arrays(path, {name: rows[name][client] for name in rows}, durable=self._durable)

    def _prune(self, touched: IntArray, round: int, row_round_before: IntArray) -> None:
        """Remove what neither this checkpoint nor the one before it names."""
        for path in self._checkpoints()[:-KEPT]:
            path.unlink()
        for client in touched.tolist():
            needed = {self._row_path(client, round), self._row_path(client, int(row_round_before[client]))}
            for path in set((self._rows / str(client)).iterdir()) - needed:
                path.unlink()

    def _checkpoints(self) -> list[Path]:
        return sorted(self._folder.glob("round-*.safetensors"))

    def _path(self, round: int) -> Path:
        return self._folder / f"round-{round:08d}.safetensors"

    def _row_path(self, client: int, round: int) -> Path:
        return self._rows / str(client) / f"{round}.safetensors"


class _UnusableError(Exception):
    """A checkpoint that cannot be gone on from."""


def _split(arrays: Arrays) -> tuple[Arrays, Arrays]:
    rows = {name: array for name, array in arrays.items() if name.rpartition("/")[2].startswith("row_")}
    return rows, {name: array for name, array in arrays.items() if name not in rows}


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    try:
        return read_arrays(path)
    except DamagedError as error:
        raise _UnusableError(f"{path.name} {error}") from None
