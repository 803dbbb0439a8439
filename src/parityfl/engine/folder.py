"""A run's folder: its files, who may write into it, and how it is brought back to the state of a checkpoint."""

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from safetensors import SafetensorError, safe_open

from parityfl.core.arrays import Layout
from parityfl.core.columns import CLIENT_COLUMNS, ROUND_COLUMNS, SHORTFALL_COLUMNS, UNHASHED
from parityfl.core.errors import FolderError
from parityfl.core.types import Vector
from parityfl.engine.tables import header
from parityfl.files import make_folder, replace_file, why_no_folder, writing

TABLES = {"rounds": ROUND_COLUMNS, "clients": CLIENT_COLUMNS}

CLIENTS = "clients"
"""Where the clients of a run on one machine keep what they must, in a folder of its own."""

LOCK_PATIENCE_S = 10.0
"""How long to wait for another process that writes into the folder: one that was killed may still be on its way out."""

LOCK_PAUSE_S = 0.1

disk_errors = partial(writing, remedy="make room or mend that, and go on with --resume, or choose another --out")
"""Turns what the disk refuses of a run into one line."""

CHUNK = 1 << 20

_LENGTH_BYTES = 8
"""Of the length that a safetensors document begins with; its tensors are aligned to as many."""


class RunFolder:
    """The files of one run under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal"
        self._model = path / "model.safetensors"
        self._tables = {"rounds": _Table(path / "rounds.csv"), "clients": _Table(path / "clients.csv", len(UNHASHED))}

    def prepare(self, document: Mapping[str, Any], resume: bool) -> bool:
        """Make the folder this configuration's own; return whether there is a finished run in it.

        Args:
            document: the resolved configuration with its versions, its `hash`, and the digests of its `files`.
            resume: whether a run of the same configuration may be there already.

        Raises:
            FolderError: the folder is not empty and may not be continued, or cannot be written.
        """
        if self._is_fresh() and self._begin(document):
            return False
        return self.check(document, resume)  # also where somebody else has begun a run here at the same moment

    def check(self, document: Mapping[str, Any], resume: bool) -> bool:
        """Return whether there is a finished run of this configuration in the folder; change nothing.

        Raises:
            FolderError: the folder is not empty and may not be continued.
        """
        if self._is_fresh():
            return False
        if not resume:
            raise FolderError(
                f"output folder {self.path} is not empty: choose another --out, or continue its run with --resume"
            )
        self._check_same(document)
        return self.summary().get("status") == "done"

    def _is_fresh(self) -> bool:
        """Return whether no run has begun here; client processes of ours may have been quicker than the coordinator."""
        return is_empty(self.path, apart_from=(CLIENTS,))

    def summary(self) -> dict[str, Any]:
        """Return the summary, empty where there is none that can be read: it is made again from the journal."""
        try:
            summary = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return summary if isinstance(summary, dict) else {}

    def drop_end(self) -> None:
        """Remove what is only true of a run that has ended, where it goes on: summary, shortfall and report."""
        for name in ("summary.json", "shortfall.csv", "report.html", "table.csv", "table.md"):
            (self.path / name).unlink(missing_ok=True)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep other processes from writing into the folder; the lock ends with the process, however that ends.

        Raises:
            FolderError: another process writes into it, and has not left within `LOCK_PATIENCE_S`; or there can be no
                lock.
        """
        with disk_errors(self.path):
            handle = (self.path / "config.json").open("r+b")  # on NFS a lock is for who may write, though nobody does
        with handle:
            for _ in range(round(LOCK_PATIENCE_S / LOCK_PAUSE_S)):
                if _lock(handle, self.path):
                    break
                await asyncio.sleep(LOCK_PAUSE_S)
            else:
                raise FolderError(f"{self.path} is being written by another process: wait for it, or stop it first")
            yield

    def marks(self) -> dict[str, dict[str, Any]]:
        """Return how long each table is and what it holds."""
        return {name: table.mark() for name, table in self._tables.items()}

    def append(self, lines: Mapping[str, str], durable: bool = False) -> None:
        """Append a round's lines to the tables, each with one write; `durable`: force them to the disk."""
        content = {name: text.encode() for name, text in lines.items()}
        for name, data in content.items():
            self._tables[name].write(data, durable)
        for name, data in content.items():
            self._tables[name].advance(data)

    def rewind(self, marks: Mapping[str, Mapping[str, Any]], lines: Mapping[str, str], durable: bool = False) -> None:
        """Bring the tables to the end of a checkpoint's round: as they were before it, then its own lines.

        `durable` as for `append`.

        Raises:
            FolderError: a table is not what it was when the checkpoint was written.
        """
        for name, mark in marks.items():
            self._tables[name].rewind(mark)
        self.append(lines, durable)

    def settle(self) -> None:
        """Cut off what a write that failed has left after the last complete round."""
        for table in self._tables.values():
            table.settle()

    def start_tables(self, durable: bool = False) -> None:
        """Write the tables' first lines; `durable` as for `append`."""
        for name, columns in TABLES.items():
            self._tables[name].start(header(columns).encode(), durable)

    def write_shortfall(self, lines: str) -> None:
        """Write shortfall.csv, a row per client."""
        replace_file(self.path / "shortfall.csv", (header(SHORTFALL_COLUMNS) + lines).encode())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json; it is the last file of a finished run."""
        replace_file(self.path / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())

    def write_model(self, weights: Vector, layout: Layout, metadata: Mapping[str, str]) -> None:
        """Write model.safetensors, a tensor per named parameter; they are sorted, so its metadata has their order.

        Equal models with equal metadata are equal bytes.
        """
        about = {**metadata, "parameters": json.dumps(layout.names)}
        replace_file(self._model, _document(layout.views(weights.astype("<f4", copy=False)), about))

    def read_model(self) -> tuple[Layout, Vector]:
        """Return what `write_model` wrote.

        Raises:
            FolderError: it is missing or damaged.
        """
        try:
            with safe_open(self._model, framework="numpy") as handle:
                names = json.loads((handle.metadata() or {})["parameters"])
                tensors = {name: handle.get_tensor(name) for name in names}
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise FolderError(f"{self._model} cannot be read ({error}): restore it") from None
        layout = Layout(tuple(tensors), tuple(tensor.shape for tensor in tensors.values()))
        return layout, layout.flatten(tensors)

    def ledger_hash(self) -> str:
        """Return the SHA-256 over clients.csv without the columns that depend on machine and wire.

        It is that of the table which was started or rewound here, with what was appended since.
        """
        return self._tables["clients"].short_hash()

    def _begin(self, document: Mapping[str, Any]) -> bool:
        """Put config.json there, whole and once: it is what locks are on. Return whether it is this call's.

        The rest is for whoever has the lock.
        """
        make_folder(self.path, f"output folder {self.path}", remedy="choose another --out")
        with writing(f"output folder {self.path}", remedy="choose another --out"):
            return _write_once(self.path / "config.json", json.dumps(document, indent=2) + "\n")

    def _check_same(self, document: Mapping[str, Any]) -> None:
        try:
            found = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            theirs = found["hash"]
        except (OSError, ValueError, KeyError, TypeError):
            raise FolderError(f"{self.path} holds no run of ours to resume: choose an empty folder") from None
        if theirs != document["hash"]:
            another = _another(found, document, self.path / "config.json")
            raise FolderError(f"{self.path} holds a run of another {another}, or choose another folder")
        now = document.get("files", {})
        changed = next((name for name, digest in found.get("files", {}).items() if now.get(name) != digest), None)
        if changed is not None:
            raise FolderError(
                f"{changed} is not what it was when the run in {self.path} began: restore it, or choose another folder"
            )


class _Table:
    """A CSV file that only grows, by whole rounds; its content is remembered as a length and checksums.

    The checksums grow with it: at the end of a run nobody waits until the whole file is read.
    """

    def __init__(self, path: Path, left_out: int = 0) -> None:
        """Take the file at `path`, whose `short_hash` leaves out the last `left_out` columns."""
        self._path = path
        self._left_out = left_out
        self._forget()

    def start(self, data: bytes, durable: bool) -> None:
        replace_file(self._path, data, durable=durable)
        self._forget()
        self.advance(data)

    def write(self, data: bytes, durable: bool) -> None:
        with self._path.open("ab") as handle:
            handle.write(data)
            if durable:
                handle.flush()
                os.fsync(handle.fileno())

    def advance(self, data: bytes) -> None:
        """Count what was written: whole lines."""
        self._size += len(data)
        self._digest.update(data)
        self._short.update(_without_last(data, self._left_out))

    def mark(self) -> dict[str, Any]:
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def short_hash(self) -> str:
        return self._short.hexdigest()

    def rewind(self, mark: Mapping[str, Any]) -> None:
        self._forget()
        try:
            with self._path.open("rb") as handle:
                for lines in _line_blocks(handle, int(mark["bytes"])):
                    self.advance(lines)
        except FileNotFoundError:
            raise FolderError(f"{self._path} is missing: restore it, or start afresh in another folder") from None
        if self.mark() != mark:
            raise FolderError(
                f"{self._path} is not what it was when the journal was written (rows are lost or changed): restore "
                "it, or start afresh in another folder"
            )
        self.settle()

    def settle(self) -> None:
        with self._path.open("r+b") as handle:
            handle.truncate(self._size)

    def _forget(self) -> None:
        self._size, self._digest, self._short = 0, sha256(), sha256()


def _line_blocks(handle: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file, or as many as it has, in blocks that end with a line."""
    while size > 0 and (block := handle.read(min(CHUNK, size))):
        block += handle.readline(size - len(block))
        size -= len(block)
        yield block


def _without_last(lines: bytes, columns: int) -> bytes:
    """Return whole lines without their last columns; no cell holds a comma."""
    return b"\n".join([line.rsplit(b",", columns)[0] for line in lines.split(b"\n")])


def _lock(handle: BinaryIO, folder: Path) -> bool:
    """Return whether nobody else has the lock, which then is ours.

    Raises:
        FolderError: the folder's file system has no locks, or none left.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be kept from other processes ({error.strerror or error}): choose an --out on a file "
            "system that has locks, such as a disk of this machine"
        ) from error
    return True


def is_empty(path: Path, apart_from: Collection[str] = ()) -> bool:
    """Return whether an output folder is absent, or holds nothing but unfinished drafts and what is named.

    Raises:
        FolderError: it is a file, or lies in one, or the system does not let it be looked at.
    """
    try:
        return all(entry.suffix == ".part" or entry.name in apart_from for entry in path.iterdir())
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        raise FolderError(
            f"output folder {path} {why_no_folder(path) or 'is no folder'}: choose another --out"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise FolderError(f"output folder {path} cannot be read ({reason}): choose another --out") from None


def _document(tensors: Mapping[str, Vector], metadata: Mapping[str, str]) -> bytes:
    """Return little-endian float32 tensors as a safetensors document, with its metadata sorted, in one copy.

    The library writes metadata in an order of chance, makes several copies, and may end the process where it lacks the
    memory for them: this is also done when a run has ended for want of memory.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    names, start = sorted(tensors), 0
    for name in names:
        stop = start + tensors[name].nbytes
        header[name] = {"dtype": "F32", "shape": tensors[name].shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # so that the tensors are aligned
    return b"".join([len(text).to_bytes(_LENGTH_BYTES, "little"), text, *(tensors[name].data for name in names)])


def _write_once(path: Path, text: str) -> bool:
    """Write a text under a name that nobody else uses and move it to where nothing is; return whether nothing was."""
    draft = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with draft.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())  # what a live run forces to the disk later is worth nothing without it
        return _moved(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _moved(draft: Path, path: Path) -> bool:
    """Move a file to where nothing is; return whether nothing was.

    On a file system without hard links, two that do so at the same moment are not told apart.
    """
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:
        draft.replace(path)
    return True


def _another(found: Mapping[str, Any], document: Mapping[str, Any], file: Path) -> str:
    """Return what differs between two configurations that are not the same, and with what the one found goes on."""
    differences = dict(_differences(found, document))
    keys = ", ".join(sorted(differences)[:3]) or "its hash"
    if differences and not any(differences.values()):
        return f"version of parityfl (only one of the two knows {keys}): resume it with that version"
    return f"configuration (it differs in {keys}): resume it with {file}"


def _differences(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the keys that differ, and whether both sides have them."""
    for key in {*left, *right} - ({"hash", "versions", "files"} if not prefix else set()):
        ours, theirs = left.get(key), right.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _differences(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            yield f"{prefix}{key}", key in left and key in right
