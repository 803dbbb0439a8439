"""What all devices of a run have in common: the classes and images of data that are their own, and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from parityfl.config import Data
from parityfl.core.errors import FleetError, FolderError, first_line
from parityfl.core.wording import listed
from parityfl.files import replace_file, writing
from parityfl.wire.schemas import DataFormat, Registration


@dataclass(frozen=True)
class Agreement:
    """What the next device must fit. None is still open: the first device to say it decides.

    Attributes:
        own: whether devices bring their own data.
        classes: the names of the classes, in the order of the model's outputs.
        shape: channels, height and width of an image.
        dtype: how a pixel is stored.
        layout_hash: names and shapes of the model's parameters, hashed.
    """

    own: bool = False
    classes: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    layout_hash: str | None = None

    @staticmethod
    def of(data: Data) -> Agreement:
        """Return what the configuration settles beforehand."""
        return Agreement(own=data.is_own, classes=data.classes, shape=data.shape)

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of ``[data]`` that the devices have settled."""
        return {"classes": self.classes, "shape": self.shape} if self.own else {}

    def with_device(self, registration: Registration) -> Agreement:
        """Return the agreement once a device has registered.

        Raises:
            FleetError: the device does not fit; one line that names the difference.
        """
        who = f"device {registration.device_id!r}"
        agreed = self.with_layout(who, registration.layout_hash)
        if not self.own:
            if registration.data is not None:
                raise FleetError(f"{who} brings data of its own, but this run shares out a data set: leave out --data")
            return agreed
        if registration.data is None:
            raise FleetError(f"{who} brings no data of its own, as all in this run do: start it with --data DIR")
        agreed = agreed.with_data(who, registration.data)
        counted = len(registration.label_counts)
        if counted not in (0, len(agreed.classes or ())):
            raise FleetError(f"{who} counts {counted} labels, this run has {len(agreed.classes or ())} classes")
        return agreed

    def with_data(self, who: str, data: DataFormat) -> Agreement:
        """Return the agreement once someone's data are known; a device need not have an example of each class.

        Raises:
            FleetError: the data do not fit.
        """
        classes = tuple(data.classes) if self.classes is None else self.classes
        unknown = [name for name in data.classes if name not in classes]
        if unknown:
            known = listed([repr(name) for name in classes])
            raise FleetError(
                f"{who} has the class {unknown[0]!r}, this run's classes are {known}: rename it there, or begin a run "
                "with all classes in data.classes"
            )
        shape = tuple(data.shape) if self.shape is None else self.shape
        if tuple(data.shape) != shape:
            raise FleetError(
                f"{who} has images of {_sizes(data.shape)} (channels, height, width), this run's are {_sizes(shape)}: "
                "convert them there"
            )
        dtype = self.dtype or data.dtype
        if data.dtype != dtype:
            raise FleetError(f"{who} has pixels of {data.dtype}, this run's are {dtype}: convert them there")
        return replace(self, classes=classes, shape=shape, dtype=dtype)

    def with_layout(self, who: str, layout_hash: str | None) -> Agreement:
        """Return the agreement once someone's model is known.

        Raises:
            FleetError: it is another one.
        """
        if self.layout_hash is None or layout_hash is None or layout_hash == self.layout_hash:
            return replace(self, layout_hash=self.layout_hash or layout_hash)
        raise FleetError(
            f"{who} has built a model whose parameters have other names or shapes than this run's: install the same "
            "version of the package that the model comes from on all machines"
        )


def read_agreement(path: Path) -> Agreement | None:
    """Return what a resumed run has agreed before; None where there is no file.

    Raises:
        FolderError: the file is damaged.
    """
    try:
        return TypeAdapter(Agreement).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise FolderError(
            f"{path} cannot be read ({first_line(error)}): restore it, or start the run in a new folder"
        ) from None


def write_agreement(path: Path, agreement: Agreement, *, durable: bool) -> None:
    """Replace the file in one step, `durable` against a loss of power.

    Raises:
        FolderError: it cannot be written.
    """
    with writing(path):
        replace_file(path, TypeAdapter(Mapping[str, Any]).dump_json(asdict(agreement)), durable=durable)


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
