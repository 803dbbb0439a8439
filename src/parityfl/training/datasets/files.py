"""Where the files of a data set are looked for, and their download."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

import platformdirs

from parityfl.core.errors import DataError, first_line

DOWNLOAD_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded.

    Attributes:
        name: its name, on disk too.
        url: where it is.
        md5: its checksum in hexadecimal, as its publisher gives it.
    """

    name: str
    url: str
    md5: str


Fetch = Callable[[RemoteFile, Path], None]
"""Downloads a file into a folder and checks it; raises OSError or RuntimeError where it cannot."""


def cache_folder(name: str) -> Path:
    """Return the folder of the user's cache that holds data set `name`."""
    return Path(platformdirs.user_cache_dir("parityfl")) / name


def places(name: str, root: str | None, system: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield the folders in which the files of data set `name` are looked for, the first that has them wins.

    These are `[data] root`, ``$PARITYFL_DATA``, the user's cache and the system's folders; of the first two also the
    folder named as the data set inside them.
    """
    for given in (root, os.environ.get("PARITYFL_DATA")):
        if given:
            yield Path(given).expanduser()
            yield Path(given).expanduser() / name
    yield cache_folder(name)
    yield from system


def download(name: str, files: Sequence[RemoteFile], fetch: Fetch | None = None) -> Path:
    """Download the files of data set `name` into the user's cache and return that folder.

    Files appear in the cache whole or not at all, so several processes may download at once.

    Raises:
        DataError: there is no network, or what came is not the file; says which file to put where.
    """
    folder = cache_folder(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                (fetch or torchvision_fetch)(file, Path(scratch))
                os.replace(Path(scratch) / file.name, folder / file.name)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"data set {name!r} is not on this machine and cannot be downloaded ({first_line(error)}): put "
            f"{', '.join(file.name for file in files)} into {folder}, or name their folder in data.root or "
            "$PARITYFL_DATA"
        ) from None
    return folder


def torchvision_fetch(file: RemoteFile, folder: Path) -> None:
    """Download with torchvision's utilities, which check the MD5."""
    from torchvision.datasets.utils import download_url  # noqa: PLC0415 - takes seconds, and a download is rare

    with _socket_timeout(DOWNLOAD_TIMEOUT_S):
        download_url(file.url, str(folder), file.name, file.md5)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Give up on a dead network: torchvision's download sets no time-out of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def require_checksum(path: Path, size: int, checksum: str) -> None:
    """Refuse an archive that has the official size but not the official content.

    An archive of another size is another archive, such as a subset or one that was packed anew; its content is
    checked as it is read.

    Raises:
        DataError: the size is the official one, the MD5 is not.
    """
    if path.stat().st_size != size:
        return
    with path.open("rb") as stream:
        digest = md5(usedforsecurity=False)
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != checksum:
        raise DataError(f"{path} is damaged: its MD5 is {digest.hexdigest()}, not {checksum}; download it again")
