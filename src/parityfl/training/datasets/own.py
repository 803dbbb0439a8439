"""A device's own data: images in a folder per class, or arrays in one file. Nothing is unpickled."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from parityfl.core.errors import DataError
from parityfl.core.types import IntArray
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
    found = sorted(entry for entry in path.glob("*") if entry.suffix in _READERS and entry.is_file())
    if len(found) > 1:
        raise DataError(f"{path} holds {found[0].name} and {found[1].name}: name the file that is meant")
    return found[0] if found else None


def _from_folder(path: Path) -> OwnData:
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [(label, file) for label, name in enumerate(classes) for file in _image_files(path / name)]
    if not files:
        raise DataError(f"{path} holds no images: put them into a sub-folder per class, such as {path / 'cat'}/1.png")
    pictures = [_read_image(file) for _, file in files]
    for picture, (_, file) in zip(pictures, files, strict=True):
        if picture.shape != pictures[0].shape:
            raise DataError(
                f"{file} is {_size(picture)}, but {files[0][1]} is {_size(pictures[0])}: all images of a run must "
                "have one size and one number of channels; resize or convert them"
            )
    return OwnData(np.stack(pictures), np.array([label for label, _ in files], dtype=np.int64), tuple(classes))


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )


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
        raise DataError(f"{path} cannot be read as an image ({_line(error)}): repair or remove it") from None
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def _size(picture: NDArray[np.uint8]) -> str:
    channels, height, width = picture.shape
    return f"{width} x {height} pixels of {channels} channel{'s' if channels > 1 else ''}"


def _from_arrays(path: Path) -> OwnData:
    try:
        arrays, names = _READERS[path.suffix](path)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, SafetensorError) as error:
        raise DataError(
            f"{path} cannot be read ({_line(error)}): it must hold arrays images and labels, no pickled objects"
        ) from None
    images, labels = _checked_images(path, arrays["images"]), _checked_labels(path, arrays["labels"])
    if len(images) != len(labels) or len(labels) == 0:
        raise DataError(f"{path} has {len(images)} images and {len(labels)} labels: it needs one label per image")
    classes = tuple(map(str, range(int(labels.max()) + 1))) if names is None else tuple(names)
    if labels.max() >= len(classes):
        raise DataError(f"{path} has label {labels.max()}, but names {len(classes)} classes: labels count from 0")
    return OwnData(images, labels, classes)


def _read_npz(path: Path) -> tuple[dict[str, NDArray[Any]], list[str] | None]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in ("images", "labels")}
        return arrays, list(map(str, archive["classes"])) if "classes" in archive else None


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], list[str] | None]:
    with safe_open(path, "numpy") as archive:
        arrays = {name: archive.get_tensor(name) for name in ("images", "labels")}
        names = (archive.metadata() or {}).get("classes")
    return arrays, None if names is None else list(map(str, json.loads(names)))


_READERS: Mapping[str, Callable[[Path], tuple[dict[str, NDArray[Any]], list[str] | None]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}


def _checked_images(path: Path, images: NDArray[Any]) -> Images:
    if images.ndim == 3:
        images = images[:, np.newaxis]
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
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
    return labels.astype(np.int64)


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]
