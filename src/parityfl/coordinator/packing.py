"""A round's vectors as they are written, once for all the documents that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from parityfl.core.types import Vector
from parityfl.wire.payload import PLAIN, Form, Packed, pack
from parityfl.wire.schemas import TrainRequest

Forms = Mapping[Form, Packed]
"""A vector in the form that is wanted, and plainly for who cannot read that."""


def pack_both(vector: Vector, form: Form) -> Forms:
    """Return a vector, as it is to arrive, in `form` and plainly."""
    return {each: pack(vector, each) for each in {PLAIN, form}}


@dataclass(frozen=True)
class PackedModel:
    """A model as it is written.

    Attributes:
        forms: its parameters.
    """

    forms: Forms

    @property
    def digest(self) -> str:
        """Its `parityfl.wire.digests.model_digest`."""
        return self.forms[PLAIN].digest

    @staticmethod
    def of(vector: Vector, form: Form) -> PackedModel:
        """Pack a model, as it is to arrive."""
        return PackedModel(pack_both(vector, form))


@dataclass(frozen=True)
class PackedTask:
    """What all documents of a round share.

    Attributes:
        request: the message, without what is a device's own.
        model: the global model.
        control: the server's control variate, or None.
    """

    request: TrainRequest
    model: PackedModel
    control: Forms | None
