"""Networks, by name: each builds itself for a shape of images and a number of labels.

A network has no buffers: what averages over clients is its parameters. Numbers in the docstrings are parameters for
10 labels.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from parityfl.core.arrays import Layout
from parityfl.core.errors import ConfigError
from parityfl.core.registry import Registry

Shape = tuple[int, int, int]
"""Channels, height, width of an image."""


class Network(nn.Module):
    """A network; its constructor takes the images' shape and the number of labels.

    Attributes:
        source: where it comes from.
        evaluation_batch: examples a pass when it is evaluated; part of what fixes the results to the bit.
        channels_last: whether it runs faster with the channels as the innermost axis, as convolutions on CPUs do.
    """

    source: ClassVar[str] = ""
    evaluation_batch: ClassVar[int] = 64
    channels_last: ClassVar[bool] = False


@runtime_checkable
class Grouped(Protocol):
    """A network that knows how to compute K copies of itself at once.

    A class that changes `forward`, or the `features` that it is made of, brings a `many` of its own.
    """

    def many(self, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the logits of K copies, shape (K, n, C).

        Args:
            parameters: by name, each with K in front of its own shape.
            images: shape (K, n, channels, height, width).
        """
        ...


model: Registry[nn.Module] = Registry("model", "parityfl.models")


@model("mlp")
class Mlp(Network):
    """One hidden layer of 64 units; 4,810 parameters on 8 x 8 x 1, 50,890 on 28 x 28 x 1."""

    source: ClassVar[str] = "Rumelhart et al., Nature 1986"
    evaluation_batch: ClassVar[int] = 256

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(math.prod(shape), 64)
        self.output = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (n, C)."""
        logits: Tensor = self.output(torch.relu(self.hidden(images.flatten(1))))
        return logits

    def many(self, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the logits of K copies, shape (K, n, C)."""
        return _linear(parameters, "output", torch.relu(_linear(parameters, "hidden", images.flatten(2))))


class _TwoConvolutions(Network):
    """Twice a convolution, 2 x 2 max pooling and ReLU; a subclass adds the layers after them.

    These see height, width, channel, in this order: see `features`. Bias and ReLU come after the pooling, which gives
    the same numbers as before it for a quarter of the work.
    """

    channels_last: ClassVar[bool] = True

    def __init__(self, shape: Shape, widths: tuple[int, int], kernel: int) -> None:
        super().__init__()
        first, second = widths
        self.conv1 = nn.Conv2d(shape[0], first, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(first, second, kernel, padding=kernel // 2)
        self.num_features = second * (shape[1] // 4) * (shape[2] // 4)

    def features(self, images: Tensor) -> Tensor:
        """Return what the convolutions see, shape (n, num_features), the channels innermost."""
        seen = images
        for layer in (self.conv1, self.conv2):
            assert layer.bias is not None
            seen = _pool(nn.functional.conv2d(seen, layer.weight, padding=layer.padding))
            seen = seen.add_(layer.bias.view(-1, 1, 1)).relu_()
        return seen.permute(0, 2, 3, 1).flatten(1)  # as they lie: reordering them and their gradients takes a tenth

    def many_features(self, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return what K copies of the convolutions see, shape (K, n, num_features), the channels innermost."""
        copies, padding = len(images), self.conv1.padding
        stacked = images.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        for name in ("conv1", "conv2"):
            kernels, biases = (parameters[f"{name}.{part}"].flatten(0, 1) for part in ("weight", "bias"))
            seen = nn.functional.conv2d(stacked, kernels, padding=padding, groups=copies)
            stacked = nn.functional.max_pool2d(seen, 2).add_(biases.view(-1, 1, 1)).relu_()
        examples, channels, height, width = stacked.shape
        apart = stacked.permute(0, 2, 3, 1).reshape(examples, height, width, copies, channels // copies)
        return apart.permute(3, 0, 1, 2, 4).flatten(2)


@model("cnn-small")
class CnnSmall(_TwoConvolutions):
    """Two 3 x 3 convolutions of 16 and 32 channels; 20,490 parameters on 28 x 28 x 1, 25,578 on 32 x 32 x 3."""

    source: ClassVar[str] = "after LeCun et al., Proceedings of the IEEE 1998"

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(shape, (16, 32), kernel=3)
        self.output = nn.Linear(self.num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (n, C)."""
        logits: Tensor = self.output(self.features(images))
        return logits

    def many(self, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the logits of K copies, shape (K, n, C)."""
        return _linear(parameters, "output", self.many_features(parameters, images))


@model("cnn")
class Cnn(_TwoConvolutions):
    """Two 5 x 5 convolutions of 32 and 64 channels and 512 hidden units; 1,663,370 parameters on 28 x 28 x 1."""

    source: ClassVar[str] = "McMahan et al., AISTATS 2017"

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(shape, (32, 64), kernel=5)
        self.hidden = nn.Linear(self.num_features, 512)
        self.output = nn.Linear(512, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (n, C)."""
        logits: Tensor = self.output(torch.relu(self.hidden(self.features(images))))
        return logits

    def many(self, parameters: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return the logits of K copies, shape (K, n, C)."""
        features = self.many_features(parameters, images)
        return _linear(parameters, "output", torch.relu(_linear(parameters, "hidden", features)))


@model("resnet18")
class ResNet18(Network):
    """ResNet-18 with GroupNorm (two groups) and a stem for small images; 11,173,962 parameters on 32 x 32 x 3.

    The code of Reddi et al. has two groups as the default of TensorFlow Addons at that time; their blocks normalise
    before each convolution and their stem is 7 x 7 of stride 2, where these are torchvision's blocks with a 3 x 3 stem.
    """

    source: ClassVar[str] = "He et al., CVPR 2016; GroupNorm as in the code of Reddi et al., ICLR 2021"
    channels_last: ClassVar[bool] = True

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock, ResNet  # noqa: PLC0415 - takes seconds, only needed here

        self.net = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, norm_layer=_two_groups)
        self.net.conv1 = nn.Conv2d(shape[0], 64, kernel_size=3, padding=1, bias=False)
        self.net.maxpool = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (n, C)."""
        logits: Tensor = self.net(images)
        return logits


def _pool(images: Tensor) -> Tensor:
    """Return 2 x 2 max pooling, shape (n, c, h // 2, w // 2)."""
    if not torch.is_inference_mode_enabled():
        return nn.functional.max_pool2d(images, 2)
    # the same numbers sooner; in training it would share the gradient out where two pixels are equal
    height, width = (side // 2 * 2 for side in images.shape[2:])
    rows = torch.maximum(images[:, :, 0:height:2], images[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


def _linear(parameters: Mapping[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    """Return what K linear layers make of inputs of shape (K, n, features)."""
    weights, biases = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    return torch.baddbmm(biases.unsqueeze(1), inputs, weights.transpose(1, 2))


def _two_groups(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(2, channels)


def build_model(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """Return the network called `name`, its parameters drawn from torch's own generator.

    Raises:
        ConfigError: no such network, it does not fit the images, or it has buffers.
        PartError: it is one of another package, and failed.
    """
    entry = model.get(name)
    if min(shape[1:]) < 4:
        raise ConfigError(f"model.name = {name!r}: images of {shape[1]} x {shape[2]} are too small; 4 x 4 is the least")
    with model.blaming(entry):
        module = entry(shape, num_classes)
        buffers = [buffer for buffer, _ in module.named_buffers()]
    if buffers:
        raise ConfigError(
            f"model.name = {name!r} has the buffer {buffers[0]!r}, which averaging would leave behind: "
            "use layers without buffers, such as GroupNorm for BatchNorm"
        )
    return module


def switch(module: nn.Module, *, training: bool) -> None:
    """Have layers behave as in training, or as in evaluation."""
    if module.training != training:  # asking is cheaper than a walk over the layers for every batch
        module.train(training)


def layout_of(module: nn.Module) -> Layout:
    """Return where each parameter lies in the flat vector, in the order of ``named_parameters``."""
    named = list(module.named_parameters())
    return Layout(tuple(name for name, _ in named), tuple(tuple(parameter.shape) for _, parameter in named))
