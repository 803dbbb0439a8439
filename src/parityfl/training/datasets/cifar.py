"""CIFAR-10 and CIFAR-100, from the binary archive, the unpacked binary folder or the Python (pickled) folder."""

import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from parityfl.core.errors import DataError
from parityfl.core.types import IntArray
from parityfl.training.datasets.base import Dataset, DatasetSource, dataset
from parityfl.training.datasets.files import Fetch, RemoteFile, download, places, require_checksum
from parityfl.training.datasets.pickled import read_arrays

PIXELS = 3 * 32 * 32
"""Bytes of an image: the red, the green, then the blue plane, each row-major."""

HOME = "https://www.cs.toronto.edu/~kriz/"

Part = tuple[NDArray[np.uint8], IntArray]
"""Images (n, 3, 32, 32) and labels (n,)."""


@dataclass(frozen=True)
class Edition:
    """How one of the two data sets is filed.

    Attributes:
        name: its name in the configuration.
        archive: the official binary archive.
        archive_size: its size in bytes.
        binary_folder: the folder in it.
        python_folder: the folder of the Python layout.
        train: the training files' stems, in order.
        test: the test file's stem.
        label_bytes: label bytes before each image of a binary file; the last is the label.
        label_key: the labels' key in a pickled file.
        num_classes: number of labels.
        mean: of the training pixels, per channel.
        std: of the training pixels, per channel.
    """

    name: str
    archive: RemoteFile
    archive_size: int
    binary_folder: str
    python_folder: str
    train: tuple[str, ...]
    test: str
    label_bytes: int
    label_key: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


CIFAR10 = Edition(
    name="cifar10",
    archive=RemoteFile("cifar-10-binary.tar.gz", HOME + "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    archive_size=170_052_171,
    binary_folder="cifar-10-batches-bin",
    python_folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    label_bytes=1,
    label_key="labels",
    num_classes=10,
    mean=(125.31, 122.95, 113.87),
    std=(62.99, 62.09, 66.70),
)

CIFAR100 = Edition(
    name="cifar100",
    archive=RemoteFile("cifar-100-binary.tar.gz", HOME + "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    archive_size=168_513_733,
    binary_folder="cifar-100-binary",
    python_folder="cifar-100-python",
    train=("train",),
    test="test",
    label_bytes=2,
    label_key="fine_labels",
    num_classes=100,
    mean=(129.30, 124.07, 112.43),
    std=(68.17, 65.39, 70.42),
)


class Cifar(DatasetSource):
    """Either edition, by its files."""

    source: ClassVar[str] = "Krizhevsky, technical report, University of Toronto 2009"
    edition: ClassVar[Edition]

    def __init__(self, fetch: Fetch | None = None) -> None:
        self._fetch = fetch

    def load(self, root: str | None) -> Dataset:
        """Return the data set from the first place that has it, or download it."""
        return _load(self.edition, root, self._fetch)


@dataset("cifar10")
class Cifar10(Cifar):
    """50,000 + 10,000 colour images of 32 x 32 pixels, 10 labels."""

    edition = CIFAR10


@dataset("cifar100")
class Cifar100(Cifar):
    """50,000 + 10,000 colour images of 32 x 32 pixels, 100 (fine) labels."""

    edition = CIFAR100


def _load(edition: Edition, root: str | None, fetch: Fetch | None) -> Dataset:
    readers = (reader for place in places(edition.name, root) if (reader := _reader(edition, place)) is not None)
    read = next(readers, None) or _reader(edition, download(edition.name, [edition.archive], fetch))
    assert read is not None
    parts = read()
    train = [parts[stem] for stem in edition.train]
    images = np.concatenate([part[0] for part in train])
    labels = np.concatenate([part[1] for part in train])
    return Dataset(images, labels, *parts[edition.test], edition.num_classes, edition.mean, edition.std)


def _reader(edition: Edition, place: Path) -> Callable[[], Mapping[str, Part]] | None:
    """Return what reads the data set from a folder: its binary files, the archive, the pickled files, or None."""
    stems = [*edition.train, edition.test]
    for folder in (place / edition.binary_folder, place):
        if all((folder / f"{stem}.bin").is_file() for stem in stems):
            return lambda: {stem: _read_binary(edition, folder / f"{stem}.bin") for stem in stems}
    if (place / edition.archive.name).is_file():
        return lambda: _read_archive(edition, place / edition.archive.name)
    for folder in (place / edition.python_folder, place):
        if all((folder / stem).is_file() for stem in stems):
            return lambda: {stem: _read_pickled(edition, folder / stem) for stem in stems}
    return None


def _read_binary(edition: Edition, path: Path) -> Part:
    return _decode(edition, path.read_bytes(), str(path))


def _read_archive(edition: Edition, path: Path) -> Mapping[str, Part]:
    """Read the wanted files of an archive in one pass, in memory: nothing is unpacked onto the disk.

    Who packs a folder as `.` gets `./` before every name.
    """
    require_checksum(path, edition.archive_size, edition.archive.md5)
    wanted = {f"{edition.binary_folder}/{stem}.bin": stem for stem in (*edition.train, edition.test)}
    parts = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                stream = archive.extractfile(member) if name in wanted else None
                if stream is not None:
                    parts[wanted[name]] = _decode(edition, stream.read(), f"{path}: {name}")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a tar.gz archive: {error}; download it again") from None
    missing = [name for name, stem in wanted.items() if stem not in parts]
    if missing:
        raise DataError(f"{path} has no {missing[0]}; download {edition.archive.url} again")
    return parts


def _decode(edition: Edition, raw: bytes, where: str) -> Part:
    """Return images and labels of a binary file: records of the label bytes and the image."""
    record = edition.label_bytes + PIXELS
    if len(raw) == 0 or len(raw) % record:
        raise DataError(f"{where} has {len(raw)} bytes, not a multiple of {record}; download it again")
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, record)
    images = records[:, edition.label_bytes :].reshape(-1, 3, 32, 32)
    return images, records[:, edition.label_bytes - 1].astype(np.int64)


def _read_pickled(edition: Edition, path: Path) -> Part:
    content = read_arrays(path)
    images, labels = content.get("data"), content.get(edition.label_key)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (PIXELS,):
        raise DataError(f"{path} has no 'data' of uint8 with shape (n, {PIXELS})")
    known = range(edition.num_classes)
    if not isinstance(labels, list) or not all(isinstance(label, int) and label in known for label in labels):
        raise DataError(f"{path} has no {edition.label_key!r}, a list of labels 0 to {edition.num_classes - 1}")
    return images.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)
