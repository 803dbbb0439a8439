"""Fashion-MNIST, from its four IDX files."""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from parityfl.core.errors import DataError
from parityfl.training.datasets.base import Dataset, DatasetSource, dataset
from parityfl.training.datasets.files import Fetch, RemoteFile, download, places

SYSTEM = (Path("/usr/share/datasets/fashion-mnist"),)
"""Where Debian's package `dataset-fashion-mnist` puts the files."""

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

FILES = tuple(
    RemoteFile(name, MIRROR + name, checksum)
    for name, checksum in (
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    )
)

UNSIGNED_BYTE = 8
"""IDX's code for the element type uint8."""


@dataset("fashion-mnist")
class FashionMnist(DatasetSource):
    """60,000 + 10,000 grey images of clothes of 28 x 28 pixels, 10 labels."""

    source: ClassVar[str] = "Xiao et al., arXiv:1708.07747"

    def __init__(self, fetch: Fetch | None = None) -> None:
        self._fetch = fetch

    def load(self, root: str | None) -> Dataset:
        """Return the data set from the first place that has its four files, or download them."""
        found = (place for place in places("fashion-mnist", root, SYSTEM) if _complete(place))
        folder = next(found, None) or download("fashion-mnist", FILES, self._fetch)
        train_images, train_labels, test_images, test_labels = (
            read_idx(folder / file.name, num_axes) for file, num_axes in zip(FILES, (3, 1, 3, 1), strict=True)
        )
        return Dataset(
            train_images[:, np.newaxis],
            train_labels.astype(np.int64),
            test_images[:, np.newaxis],
            test_labels.astype(np.int64),
            num_classes=10,
            mean=(72.94,),
            std=(90.02,),
        )


def _complete(folder: Path) -> bool:
    return all((folder / file.name).is_file() for file in FILES)


def read_idx(path: Path, num_axes: int) -> NDArray[np.uint8]:
    """Return the array of a gzipped IDX file of unsigned bytes with so many axes.

    The format (LeCun et al., the MNIST page): two zero bytes, the element type, the number of axes, the length of
    each axis as a big-endian 32-bit integer, then the elements, row-major.

    Raises:
        DataError: the file cannot be read or is no such file.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as gzip: {error}; download it again") from None
    start = 4 + 4 * num_axes
    if raw[:4] != bytes((0, 0, UNSIGNED_BYTE, num_axes)) or len(raw) < start:
        raise DataError(
            f"{path} is no IDX file of unsigned bytes with {num_axes} axes: it begins with {raw[:4].hex(' ')}"
        )
    shape = struct.unpack(f">{num_axes}I", raw[4:start])
    if len(raw) - start != prod(shape):
        raise DataError(
            f"{path} announces {' x '.join(map(str, shape))} bytes and holds {len(raw) - start}; download it again"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
