"""A round's vectors as they are written, once for all the documents that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

from parityfl.core.types import Vector
from parityfl.wire.payload import PLAIN, Form, Packed, pack
from parityfl.wire.schemas import TrainRequest


class Forms:
    """A vector in the forms that devices take, each written when the first of them is sent it.

    Args:
        vector: as it is to arrive; it must not change until it is sent.
    """

    def __init__(self, vector: Vector) -> None:
        self.nbytes = vector.nbytes
        self._vector = vector
        self._packed: dict[Form, Packed] = {}
        self._lock = Lock()

    def __getitem__(self, form: Form) -> Packed:
        """Return the vector in a form; for a thread, where it is large."""
        with self._lock:
            if form not in self._packed:
                self._packed[form] = pack(self._vector, form)
            return self._packed[form]

    @property
    def digest(self) -> str:
        """Its `parityfl.wire.digests.model_digest`."""
        return self[PLAIN].digest


@dataclass(frozen=True)
class PackedTask:
    """What all documents of a round share.

    Attributes:
        request: the message, without what is a device's own.
        model: the global model.
        control: the server's control variate, or None.
    """

    request: TrainRequest
    model: Forms
    control: Forms | None
