"""Many small clients at once: K copies of a network as one, for models whose steps cost more to start than to compute.

The copies' parameters are the rows of a matrix. Two kernels compute what they predict:

- ``grouped``: a network's own `many`, which knows its layers (grouped convolutions, batched matrix products);
- ``vmap``: torch.func.vmap over the network, which works for any that draws nothing at random (no dropout), sees each
  example by itself (no batch normalisation) and trains all of its parameters.

Results equal those of one client after the other but for the order in which floating point adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from parityfl.config import Training
from parityfl.core.arrays import Layout
from parityfl.core.types import FloatArray
from parityfl.training.local import Batch
from parityfl.training.models import Grouped, Shape, layout_of, switch

Kernel = Literal["grouped", "vmap"]


class ManyModels:
    """K copies of a network, trained together.

    Args:
        module: the network; only its layers' shapes are used.
        count: the number of copies K.
        kernel: how to compute.
        bf16: whether to predict in bfloat16 where torch deems that safe.

    Attributes:
        layout: where each parameter lies in a row.
        weights: the parameters, float32, shape (K, d).
        gradient: the gradient that `backward` left, shape (K, d).
    """

    def __init__(self, module: nn.Module, count: int, kernel: Kernel, bf16: bool = False) -> None:
        self.layout: Layout = layout_of(module)
        self._module = module
        self._forward = _forward(module, kernel)
        self._bf16 = bf16
        self.weights = torch.zeros(count, self.layout.size)
        self.gradient = torch.zeros_like(self.weights)
        self._parameters = {name: view.requires_grad_() for name, view in self._views(self.weights).items()}
        self._gradients = self._views(self.gradient)

    def _views(self, rows: Tensor) -> dict[str, Tensor]:
        offsets = self.layout.offsets
        spans = zip(self.layout.names, offsets, offsets[1:], self.layout.shapes, strict=False)
        return {name: rows[:, start:stop].detach().view(len(rows), *shape) for name, start, stop, shape in spans}

    def backward(self, batch: Batch) -> Tensor:
        """Set `gradient` to that of each client's mean cross-entropy and return this, shape (K,).

        A client without examples in the batch has loss and gradient 0.
        """
        switch(self._module, training=True)
        losses = (_cross_entropy(self._logits(batch.images), batch.labels) * _shares(batch)).sum(dim=1)
        parameters = list(self._parameters.values())
        gradients = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)  # 0 for what is not used
        for view, gradient in zip(self._gradients.values(), gradients, strict=True):
            view.copy_(gradient)
        return losses.detach()

    def measure(self, batches: Iterable[Batch]) -> tuple[FloatArray, FloatArray]:
        """Return each client's mean loss and accuracy, shape (K,), nan where it has no examples."""
        switch(self._module, training=False)
        sums = torch.zeros(3, len(self.weights), dtype=torch.float64)
        with torch.no_grad():
            for batch in batches:
                logits, real = self._logits(batch.images), _real(batch)
                sums[0] += (_cross_entropy(logits, batch.labels) * real).sum(dim=1)
                sums[1] += ((logits.argmax(dim=-1) == batch.labels) * real).sum(dim=1)
                sums[2] += real.sum(dim=1)
        losses, hits, counts = sums.numpy()
        counts = np.where(counts > 0, counts, np.nan)
        return losses / counts, hits / counts

    def _logits(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bf16):
            logits = self._forward(self._parameters, images)
        return logits.float()


def _forward(module: nn.Module, kernel: Kernel) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    """Return what computes logits, shape (K, n, C), from parameters with K in front and images (K, n, c, h, w)."""
    if kernel == "grouped":
        assert isinstance(module, Grouped)
        return module.many

    def one(parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(module, dict(parameters), (images,))
        return logits

    return torch.func.vmap(one)


def kernels(module: nn.Module, shape: Shape) -> list[Kernel]:
    """Return the kernels that a network has for images of a shape; none where copies of it cannot train as one."""
    if not _trains_as_one(module):
        return []
    if isinstance(module, Grouped) and _brings_many(module):
        return ["grouped", "vmap"]
    copies = {name: parameter.detach()[None] for name, parameter in module.named_parameters()}
    try:
        with torch.no_grad():
            _forward(module.train(), "vmap")(copies, torch.zeros(1, 1, *shape))
    except RuntimeError:  # it draws at random, or branches on what it sees
        return []
    return ["vmap"]


def _trains_as_one(module: nn.Module) -> bool:
    """Whether all of a network learns and it treats each example by itself, so that padding does not matter."""
    frozen = any(not parameter.requires_grad for parameter in module.parameters())
    mixed = any(isinstance(layer, _BatchNorm) for layer in module.modules())
    return not (frozen or mixed)


def _brings_many(module: nn.Module) -> bool:
    """Whether `many` computes what `forward` does: the last class to change either or `features` brings both."""
    for kind in type(module).__mro__:
        changed = {"forward", "features", "many"} & vars(kind).keys()
        if changed:
            return {"forward", "many"} <= changed
    return False


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each example's cross-entropy, shape (K, n)."""
    flat = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


def _real(batch: Batch) -> Tensor:
    """Return which examples are no padding, shape (K, n)."""
    assert batch.counts is not None
    return torch.arange(batch.labels.shape[1]) < batch.counts[:, None]


def _shares(batch: Batch) -> Tensor:
    """Return what each example counts in its client's mean, shape (K, n): 0 for padding."""
    assert batch.counts is not None
    return _real(batch) / batch.counts[:, None].clamp(min=1)


@dataclass(frozen=True)
class ManyTask:
    """What K clients train on in a round: as `LocalTask`, with a row for each client.

    Attributes:
        images: all examples, normalised, one client's after the other's.
        labels: their labels.
        sizes: how many examples are each client's, shape (K,).
        settings: epochs, batch size and step.
        batches: for each client what makes the generator of its epochs' shuffles.
        weights: the models that they were sent, shape (K, d), not to be changed.
        control: the server's control variate, shape (d,), or None.
        memory: what they kept, shape (K, d), or None where none kept anything.
        travels: as in `LocalTask`.
    """

    images: Tensor
    labels: Tensor
    sizes: Sequence[int]
    settings: Training
    batches: Sequence[Callable[[], np.random.Generator]]
    weights: Tensor
    control: Tensor | None
    memory: Tensor | None
    travels: torch.dtype = torch.float32

    @property
    def steps(self) -> Tensor:
        """Gradient steps of each client's whole local training, shape (K, 1)."""
        return torch.tensor([[len(chunks)] for chunks in self._chunks])

    def minibatches(self) -> Iterator[Batch]:
        """Yield the steps: each client's next batch, padded to the longest of them; nothing where it is done."""
        return side_by_side(self.images, self.labels, self._chunks)

    @cached_property
    def _chunks(self) -> list[list[Tensor]]:
        """For each client the batches of its epochs, as indices."""
        starts = np.cumsum([0, *self.sizes]).tolist()
        clients = zip(starts, self.sizes, self.batches, strict=False)
        return [self._shuffled(start, size, batches()) for start, size, batches in clients]

    def _shuffled(self, start: int, size: int, rng: np.random.Generator) -> list[Tensor]:
        orders = (torch.from_numpy(rng.permutation(size)) + start for _ in range(self.settings.epochs))
        return [chunk for order in orders for chunk in torch.split(order, self.settings.batch_size)]


def side_by_side(images: Tensor, labels: Tensor, chunks: Sequence[Sequence[Tensor]]) -> Iterator[Batch]:
    """Yield batches of the examples that each client's next indices name, padded with the first example of all."""
    for picked in zip_longest(*chunks, fillvalue=torch.empty(0, dtype=torch.int64)):
        indices = nn.utils.rnn.pad_sequence(list(picked), batch_first=True)
        flat, shape = indices.flatten(), indices.shape
        yield Batch(
            images=images.index_select(0, flat).view(*shape, *images.shape[1:]),
            labels=labels.index_select(0, flat).view(shape),
            counts=torch.tensor([len(chosen) for chosen in picked]),
        )


def in_turn(sizes: Sequence[int], batch: int) -> list[list[Tensor]]:
    """Return the indices of each client's examples, which lie one client's after the other's, cut into batches."""
    starts = np.cumsum([0, *sizes]).tolist()
    ranges = (torch.arange(start, start + size) for start, size in zip(starts, sizes, strict=False))
    return [list(torch.split(indices, batch)) for indices in ranges]
