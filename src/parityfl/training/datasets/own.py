"""A device's own data: images in a folder per class, or arrays in one file. Nothing is unpickled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from safetensors import safe_open

from parityfl.core.errors import DataError, first_line
from parityfl.core.types import MAX_CLASS_NAME, MAX_LABELS, IntArray
from parityfl.training.datasets.base import Dataset, DatasetSource, Images, dataset

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
GREY_MODES = frozenset({"1", "L", "LA"})
COLOUR_MODES = frozenset({"P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class OwnData:
    """Labelled images of one device. n examples.

    Attributes:
        images: uint8 or float32, shape (n, channels, height, width).
        labels: positions in `classes`, shape (n,).
        classes: the names of its classes, also of those without an example.
    """

    images: Images
    labels: IntArray
    classes: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """How a pixel is stored."""
        return "uint8" if self.images.dtype == np.uint8 else "float32"

    def labels_in(self, classes: tuple[str, ...]) -> IntArray:
        """Return the labels as positions in the classes of a run.

        Raises:
            DataError: the run does not have all of these classes.
        """
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            raise DataError(f"class {unknown[0]!r} is not among data.classes = {list(classes)}: rename it, or add it")
        positions = np.array([classes.index(name) for name in self.classes], dtype=np.int64)
        return positions[self.labels]


@dataset("local")
class Local(DatasetSource):
    """Each device's own data, named by `parityfl client --data DIR`; it never leaves the device."""

    source: ClassVar[str] = "the devices"

    def load(self, root: str | None) -> Dataset:
        """Raise: there is nothing to share out.

        Raises:
            DataError: always, with the remedy.
        """
        raise DataError("data.name = 'local': this device has to bring data of its own; start it with --data DIR")


def read_own(path: Path) -> OwnData:
    """Read an image folder with a sub-folder per class, an .npz or .safetensors file, or a folder that holds one.

    Raises:
        DataError: there is nothing of the kind, or the images differ in size; one line with the remedy.
    """
    try:
        file = _array_file(path)
        if file is not None:
            return _from_arrays(file)
        return _from_folder(path)
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror or error}): name a folder with a sub-folder of "
            "images per class, or an .npz or .safetensors file"
        ) from None


def _array_file(path: Path) -> Path | None:
    if path.is_file():
        if path.suffix not in _READERS:
            raise DataError(f"{path} is no .npz or .safetensors file: name one, or a folder of images")
        return path
    found = sorted(entry for entry in path.glob("[!.]*") if entry.suffix in _READERS and entry.is_file())
    if len(found) > 1:
        raise DataError(f"{path} holds {found[0].name} and {found[1].name}: name the file that is meant")
    return found[0] if found else None


def _from_folder(path: Path) -> OwnData:
    folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    labelled = [(label, file) for label, name in enumerate(folders) for file in _image_files(path / name)]
    if not labelled:
        raise DataError(f"{path} holds no images: put them into a sub-folder per class, such as {path / 'cat'}/1.png")
    classes = _checked_classes(path, folders)
    images = _read_images([file for _, file in labelled])
    return OwnData(images, np.array([label for label, _ in labelled], dtype=np.int64), classes)


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )


def _read_images(files: Sequence[Path]) -> NDArray[np.uint8]:
    """Return images of one size, shape (n, channels, height, width): one channel where all are grey, else three."""
    pictures = [_read_image(file) for file in files]
    for picture, file in zip(pictures, files, strict=True):
        if picture.shape[1:] != pictures[0].shape[1:]:
            raise DataError(
                f"{file} is {_size(picture)}, but {files[0]} is {_size(pictures[0])}: all images of a run must have "
                "one size; resize them"
            )
    whole = (max(map(len, pictures)), *pictures[0].shape[1:])
    return np.stack([np.broadcast_to(picture, whole) for picture in pictures])


def _read_image(path: Path) -> NDArray[np.uint8]:
    """Return an image, shape (channels, height, width): one channel where it is stored in grey, else three."""
    from PIL import Image  # noqa: PLC0415 - only image folders need it

    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode not in GREY_MODES | COLOUR_MODES:
                raise DataError(f"{path} has pixels of mode {mode!r}: save it as 8-bit grey or RGB")
            pixels = np.asarray(image.convert("L" if mode in GREY_MODES else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({first_line(error)}): repair or remove it") from None
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def _size(picture: NDArray[np.uint8]) -> str:
    _, height, width = picture.shape
    return f"{width} x {height} pixels"


def _from_arrays(path: Path) -> OwnData:
    try:
        content = _READERS[path.suffix](path)
    except Exception as error:  # whatever its archive, its compression or its headers raise where they are damaged
        raise DataError(
            f"{path} cannot be read ({first_line(error)}): it must hold arrays images and labels, no pickled objects"
        ) from None
    images, labels = _checked_images(path, content["images"]), _checked_labels(path, content["labels"])
    if len(images) != len(labels) or len(labels) == 0:
        raise DataError(f"{path} has {len(images)} images and {len(labels)} labels: it needs one label per image")
    names = content["classes"] if "classes" in content else [str(label) for label in range(int(labels.max()) + 1)]
    classes = _checked_classes(path, names)
    if labels.max() >= len(classes):
        raise DataError(f"{path} has label {labels.max()}, but names {len(classes)} classes: labels count from 0")
    return OwnData(images, labels, classes)


def _read_npz(path: Path) -> dict[str, Any]:
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, NpzFile):
        raise TypeError("it is a single array and no archive of several")
    with archive:
        content: dict[str, Any] = {name: np.asarray(archive[name]) for name in ("images", "labels")}
        if "classes" in archive:
            content["classes"] = _texts(np.asarray(archive["classes"]))
    return content


def _texts(names: NDArray[Any]) -> object:
    """Return an array of texts as the list that JSON has for them, and anything else as it is."""
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    return names.tolist() if names.dtype.kind == "U" else names


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, "numpy") as archive:
        content: dict[str, Any] = {name: archive.get_tensor(name) for name in ("images", "labels")}
        metadata = archive.metadata() or {}
    if "classes" in metadata:
        content["classes"] = json.loads(metadata["classes"])
    return content


_READERS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}
"""What reads images, labels and, where it has them, the names of the classes out of a file; none of it is checked."""


def _checked_images(path: Path, images: NDArray[Any]) -> Images:
    if images.ndim == 3:
        images = images[:, np.newaxis]
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32) or 0 in images.shape[1:]:
        raise DataError(
            f"{path} has images of {images.dtype} and shape {images.shape}: use uint8 or float32 of shape "
            "(n, height, width) or (n, channels, height, width)"
        )
    if images.shape[3] in (1, 3, 4) and images.shape[1] not in (1, 3, 4):
        raise DataError(f"{path} has images of shape {images.shape}: put the channels before height and width")
    if not np.all(np.isfinite(images)):
        raise DataError(f"{path} has pixels that are not finite: repair or remove these images")
    return np.ascontiguousarray(images)


def _checked_labels(path: Path, labels: NDArray[Any]) -> IntArray:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise DataError(f"{path} has labels of {labels.dtype} and shape {labels.shape}: use whole numbers from 0, (n,)")
    if len(labels) and labels.max() >= MAX_LABELS:
        raise DataError(f"{path} has label {labels.max()}: there can be {MAX_LABELS} classes; number them from 0")
    return labels.astype(np.int64)


def _checked_classes(path: Path, names: object) -> tuple[str, ...]:
    """Return the names of the classes if they are such that the coordinator takes them."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{path} has classes that are no list of texts: give the name of each class, in the order of the labels"
        )
    if len(names) > MAX_LABELS:
        raise DataError(f"{path} has {len(names)} classes: there can be {MAX_LABELS}")
    for name, count in Counter(names).items():
        if not _is_name(name):
            raise DataError(
                f"{path} has a class called {name[:20]!r}: a name is 1 to {MAX_CLASS_NAME} characters of Unicode"
            )
        if count > 1:
            raise DataError(f"{path} has {count} classes called {name!r}: give each a name of its own")
    return tuple(names)


def _is_name(text: str) -> bool:
    """Whether a text can be sent as a class's name; what is no Unicode, such as half of a pair, cannot."""
    return 0 < len(text) <= MAX_CLASS_NAME and text.encode(errors="ignore").decode() == text
