"""A network whose parameters are views of one flat tensor, and whose gradients are views of another."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parityfl.core.types import FloatArray, Vector
from parityfl.training.local import Batch
from parityfl.training.models import layout_of, switch


class FlatModel:
    """A network on a device, trained through its flat tensors.

    Inside, the kernels of a network that runs with the channels innermost are stored that way too, so a flat tensor
    holds the numbers of the model vector in another order: `arrange` and `to_vector` translate. All that happens to
    flat tensors in between is elementwise, for which the order does not matter.

    Args:
        module: the network; it is taken over.
        device: where it computes.
        bf16: whether to run its forward pass in bfloat16 where torch deems that safe.

    Attributes:
        module: the network.
        layout: where each parameter lies in the model vector.
        weights: the parameters, float32, shape (d,).
        gradient: the gradient that `backward` left, shape (d,).
        memory_format: of the images that it is given.
        evaluation_batch: examples a pass of `measure`.
    """

    def __init__(self, module: nn.Module, device: torch.device, bf16: bool = False) -> None:
        self.layout = layout_of(module)
        self.module = module
        self._bf16 = bf16
        self.evaluation_batch: int = getattr(module, "evaluation_batch", 64)
        channels_last = getattr(module, "channels_last", False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.weights = torch.empty(self.layout.size, device=device)
        self.gradient = torch.zeros_like(self.weights)
        views = zip(module.parameters(), self._views(self.weights), self._views(self.gradient), strict=True)
        for parameter, value, gradient in views:
            value.copy_(parameter.detach())
            parameter.data = value
            parameter.grad = gradient

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.weights.device

    def arrange(self, vector: Vector) -> Tensor:
        """Return a model vector as a new flat tensor on the device."""
        flat = torch.empty(self.layout.size)
        for view, values in zip(self._views(flat), self.layout.views(vector).values(), strict=True):
            view.numpy()[...] = values  # copied once, and by numpy, which does not mind read-only ones
        return flat.to(self.device)

    def to_vector(self, flat: Tensor) -> Vector:
        """Return a flat tensor as a new model vector."""
        vector: Vector = torch.cat([view.reshape(-1) for view in self._views(flat)]).cpu().numpy()
        return vector

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        """Yield the parameters as views of a flat tensor, kernels with the channels innermost if that is the format."""
        offsets = self.layout.offsets
        for start, stop, shape in zip(offsets, offsets[1:], self.layout.shapes, strict=False):
            if len(shape) == 4 and self.memory_format == torch.channels_last:
                outputs, inputs, height, width = shape
                yield flat[start:stop].view(outputs, height, width, inputs).permute(0, 3, 1, 2)
            else:
                yield flat[start:stop].view(shape)

    def backward(self, batch: Batch) -> Tensor:
        """Set `gradient` to that of the mean cross-entropy of a batch and return this loss, a scalar tensor."""
        switch(self.module, training=True)
        self.gradient.zero_()
        loss = nn.functional.cross_entropy(self._logits(batch.images), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def measure(self, images: Tensor, labels: Tensor) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return each example's cross-entropy and whether it is classified rightly, both of shape (n,)."""
        switch(self.module, training=False)
        if len(labels) == 0:
            return np.empty(0), np.empty(0, dtype=np.bool_)
        with torch.inference_mode():
            logits = torch.cat([self._logits(batch) for batch in torch.split(images, self.evaluation_batch)])
            losses = nn.functional.cross_entropy(logits, labels, reduction="none")
            hits = logits.argmax(dim=1) == labels
        return losses.cpu().numpy().astype(np.float64), hits.cpu().numpy()

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor
        if not self._bf16:
            logits = self.module(images)
            return logits
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits = self.module(images)
        return logits.float()
