"""Files: replaced in one step or longer by whole lines, so that whoever reads one finds it whole.

And what the disk refuses, in one line.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from uuid import uuid4

from parityfl.core.errors import FolderError, ParityflError

_NOT_SYNCED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
"""What file systems say that do not sync folders."""


def replace_file(path: Path, data: bytes, mode: int = 0o666, *, durable: bool = False, shared: bool = False) -> None:
    """Write a file under another name and move it into place.

    Args:
        path: the file; its folder is there.
        data: what it is to hold.
        mode: who may read and write it, less what the process's umask takes away.
        durable: whether to wait until a loss of power cannot take it, nor its name. A process that is killed takes
            nothing either way.
        shared: whether others may replace the file at the same moment. Where a process is killed as it writes a shared
            file, what it had written stays beside it, under a name that ends in `.part`.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    draft = path.with_name(f"{path.name}.{uuid4().hex}.part" if shared else f"{path.name}.part")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
            handle.write(data)
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)  # a disk that is full has room again, for what is smaller
        raise
    if durable:
        _sync_folder(path.parent)


def append_line(path: Path, line: bytes, mode: int = 0o666, *, durable: bool = False) -> None:
    """Make a file longer by a line, and the file where there is none; nobody else writes to it meanwhile.

    What a process that was killed had written of a line is cut off first: see `whole_lines`.

    Args:
        path: the file; its folder is there.
        line: what to append, without its end.
        mode: who may read and write a file that is made, less what the process's umask takes away.
        durable: whether to wait until a loss of power cannot take it.

    Raises:
        OSError: it cannot be written; the file's lines are what they were.
    """
    data = line + b"\n"
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, mode), "r+b", buffering=0) as handle:
        end = _end_of_lines(handle)
        try:
            handle.truncate(end)
            handle.seek(end)
            if handle.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                os.fsync(handle.fileno())
                if end == 0:
                    _sync_folder(path.parent)
        except BaseException:
            handle.truncate(end)
            raise


def whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that `append_line` writes, but for a last one that is not whole: it never counted.

    Raises:
        OSError: it cannot be read.
    """
    return path.read_bytes().split(b"\n")[:-1]


@contextmanager
def writing(
    what: Path | str,
    kind: type[ParityflError] = FolderError,
    *,
    remedy: str = "make room, or let this process write there",
) -> Iterator[None]:
    """Turn what the disk refuses inside into one line, an error of this `kind`, that names `what` and a remedy."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what} cannot be written ({error.strerror or error}): {remedy}") from error


def make_folder(path: Path, what: str = "", *, remedy: str = "name another folder") -> None:
    """Make a folder, and those that it lies in, where there is none.

    Raises:
        FolderError: it cannot be made; the line names it, as `what` if that is given, and a remedy.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = why_no_folder(path) or f"cannot be made ({error.strerror or error})"
        raise FolderError(f"{what or path} {fault}: {remedy}") from None


def why_no_folder(path: Path) -> str:
    """Return why there can be no folder at a path, '' where no file is in the way."""
    file = file_in_the_way(path)
    if file is None:
        return ""
    return "is a file" if file == path else f"cannot be made, because {file} is a file"


def file_in_the_way(folder: Path) -> Path | None:
    """Return the file that stands where a folder, or one that it lies in, should be; None where there is none."""
    return next((place for place in (folder, *folder.parents) if os.path.exists(place) and not place.is_dir()), None)


def _end_of_lines(handle: FileIO) -> int:
    """Return where the last whole line of a file ends."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(max(size - 1, 0))
    if handle.read(1) in {b"", b"\n"}:
        return size
    handle.seek(0)
    return handle.readall().rfind(b"\n") + 1


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, where the file system can tell."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SYNCED:
            raise
    finally:
        os.close(descriptor)
