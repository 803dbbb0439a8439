"""What a data set is, and the registry of those there are."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from parityfl.core.errors import DataError, PartError
from parityfl.core.registry import Registry
from parityfl.core.types import IntArray

Images = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class Dataset:
    """Labelled images, decoded. n examples, C labels.

    Attributes:
        train_images: uint8 or float32, shape (n, channels, height, width).
        train_labels: 0 .. C - 1, shape (n,).
        test_images: as the training images.
        test_labels: as the training labels.
        num_classes: C.
        mean: per channel, in the units of the images; a network is given (image - mean) / std.
        std: per channel, above 0.
    """

    train_images: Images
    train_labels: IntArray
    test_images: Images
    test_labels: IntArray
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            _check_part(part, getattr(self, f"{part}_images"), getattr(self, f"{part}_labels"), self.num_classes)
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"training images are {self.train_images.shape[1:]}, test images {self.test_images.shape[1:]}: "
                "both must have one shape (channels, height, width)"
            )


def _check_part(part: str, images: Images, labels: IntArray, num_classes: int) -> None:
    if images.ndim != 4 or labels.shape != images.shape[:1] or len(labels) == 0:
        raise DataError(
            f"the {part} part has images {images.shape} and labels {labels.shape}: "
            "there must be images of shape (n, channels, height, width) with n labels, n at least 1"
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        first = int(np.argmin(np.isfinite(images).all(axis=(1, 2, 3))))
        raise DataError(f"image {first} of the {part} part holds a number that is not finite: mend it, or leave it out")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise DataError(f"the {part} part has label {wrong}: labels must be 0 to {num_classes - 1}")


class DatasetSource(ABC):
    """Where a data set comes from: a class without arguments, registered by name. `source` names its paper."""

    source: ClassVar[str] = ""

    @abstractmethod
    def load(self, root: str | None) -> Dataset:
        """Return the data set.

        Args:
            root: the folder of `[data] root`, to be looked into first.

        Raises:
            DataError: the files are missing or malformed; the message says which file to put where.
        """


dataset: Registry[DatasetSource] = Registry("dataset", "parityfl.datasets")


def load_dataset(name: str, root: str | None) -> Dataset:
    """Return the data set of that name.

    Args:
        name: as it is registered.
        root: the folder of `[data] root`.

    Raises:
        ConfigError: no such name.
        DataError: the files are missing or malformed.
        PartError: it is one of another package, and failed.
    """
    entry = dataset.get(name)
    with dataset.blaming(entry):
        data = entry().load(root)
    if not isinstance(data, Dataset):
        raise PartError(f"{dataset.label(entry)}: load() returned a {type(data).__name__}, not a Dataset")
    return data
