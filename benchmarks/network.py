"""What a user of another framework would write: the same networks, resident tensors, plain SGD. No parityfl in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BATCH, LR = 32, 0.05
TEST_BATCH = 256


def build(name: str) -> nn.Module:
    """Return `cnn-small` or `cnn` for 28 x 28 x 1 images and 10 labels, channels last."""
    first, second, kernel, hidden = {"cnn-small": (16, 32, 3, 0), "cnn": (32, 64, 5, 512)}[name]
    convolutions = [
        nn.Conv2d(1, first, kernel, padding=kernel // 2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel, padding=kernel // 2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    ]
    width = second * 7 * 7
    head = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 10)] if hidden else [nn.Linear(width, 10)]
    return nn.Sequential(*convolutions, *head).to(memory_format=torch.channels_last)


def _normalised(stored: Mapping[str, NDArray[Any]], name: str) -> Tensor:
    images = ((stored[name] - stored["mean"]) / stored["std"]).astype(np.float32)
    return torch.from_numpy(images).contiguous(memory_format=torch.channels_last)


class Shards:
    """Every client's training examples as normalised tensors, from the file that `peers.py` writes."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as stored:
            self.images = _normalised(stored, "images")
            self.labels = torch.from_numpy(stored["labels"])
            self.bounds = stored["bounds"].tolist()

    def of(self, client: int) -> tuple[Tensor, Tensor]:
        """Return a client's images and labels."""
        span = slice(self.bounds[client], self.bounds[client + 1])
        return self.images[span], self.labels[span]


def train(net: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Train one epoch in shuffled batches."""
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    net.train()
    for batch in torch.randperm(len(labels)).split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()


def tested(path: Path) -> tuple[Tensor, Tensor]:
    """Return the images and labels of the test set, normalised, from the same file."""
    with np.load(path) as stored:
        return _normalised(stored, "test_images"), torch.from_numpy(stored["test_labels"])


@torch.no_grad()
def hits(net: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Return how many labels the network finds."""
    net.eval()
    batches = zip(images.split(TEST_BATCH), labels.split(TEST_BATCH), strict=True)
    return sum(int((net(some).argmax(1) == right).sum()) for some, right in batches)


@cache
def resident(path: Path) -> Shards:
    """Return the data, read once a process, which computes on one thread."""
    torch.set_num_threads(1)
    return Shards(path)
