"""What the echo clients of `wire.py` send: models of as many tensors as real ones have, since each of them costs."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

Shape = tuple[int, ...]


def _resnet18() -> Iterator[Shape]:
    """Yield the shapes of ResNet-18 with GroupNorm on 32 x 32 x 3 images, in its order."""
    yield from ((64, 3, 3, 3), (64,), (64,))
    width = 64
    for channels in (64, 64, 128, 128, 256, 256, 512, 512):
        yield from ((channels, width, 3, 3), (channels,), (channels,))
        yield from ((channels, channels, 3, 3), (channels,), (channels,))
        if width != channels:
            yield from ((channels, width, 1, 1), (channels,), (channels,))
        width = channels
    yield from ((10, 512), (10,))


MODELS: dict[str, tuple[Shape, ...]] = {
    "resnet18": tuple(_resnet18()),
    "lenet": ((16, 1, 5, 5), (16,), (32, 16, 5, 5), (32,), (54, 512), (54,), (10, 54), (10,)),
    "mlp": ((64, 64), (64,), (10, 64), (10,)),
}
"""44.7 MB in 62 tensors, 166 KB in 8 (two convolutions and two linear layers), and the digits' 19 KB in 4."""


def named(model: str) -> dict[str, Shape]:
    """Return the shapes of a model's tensors by name, in its order."""
    return {f"layer{number}": shape for number, shape in enumerate(MODELS[model])}


def parameters(model: str) -> int:
    """Return how many numbers a model has."""
    return sum(map(prod, MODELS[model]))
