"""What every process of a configuration knows of its data: who holds which examples, as they were decoded. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from parityfl.config import Config
from parityfl.core.fairness import ratio
from parityfl.core.partition import Shards, holdout, label_counts, partition
from parityfl.core.types import BoolArray, FloatArray, IntArray
from parityfl.training.datasets import load_dataset
from parityfl.training.datasets.base import Dataset, Images

BATCHES_A_PIECE = 16
"""Enough that handing a piece to a worker costs little beside it, and so few that all workers end almost together."""

PartName = Literal["held", "test"]
"""The parts that are measured."""


@dataclass(frozen=True)
class Part:
    """Examples, one client's after the other's. n examples, N clients.

    Attributes:
        images: uint8 or float32, as decoded, shape (n, channels, height, width).
        labels: shape (n,).
        bounds: where each client's examples begin and, last, the end, shape (N + 1,).
    """

    images: Images
    labels: IntArray
    bounds: IntArray

    @staticmethod
    def gather(images: Images, labels: IntArray, shards: Sequence[IntArray]) -> Part:
        """Return the examples that `shards` index, one shard a client."""
        indices = np.concatenate(shards)
        bounds = np.concatenate([[0], np.cumsum([len(shard) for shard in shards])])
        return Part(images[indices], labels[indices], bounds)

    @property
    def sizes(self) -> IntArray:
        """How many examples each client has, shape (N,)."""
        return np.diff(self.bounds)

    def means(self, values: FloatArray | BoolArray) -> FloatArray:
        """Return the mean over each client's examples of a value per example, shape (N,); nan where it has none."""
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return ratio(np.bincount(owner, weights=values, minlength=len(self.sizes)), self.sizes)


@dataclass(frozen=True)
class Holdings:
    """The data of a configuration. N clients, C labels.

    Attributes:
        train: what the hosted clients train on.
        held: what they hold out.
        test: the test set, as one client's.
        hosted: whose examples are here.
        num_samples: training examples of every client, hosted or not, without its held-out part, shape (N,).
        label_counts: the same by label, shape (N, C).
        mean: per channel, in the units of the images; a network is given (image - mean) / std.
        std: per channel, above 0.
    """

    train: Part
    held: Part
    test: Part
    hosted: frozenset[int]
    num_samples: IntArray
    label_counts: IntArray
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def part(self, name: PartName) -> Part:
        """Return a part by its name."""
        return self.held if name == "held" else self.test

    def with_parts(self, parts: Sequence[Part]) -> Holdings:
        """Return the same with other training, held-out and test parts."""
        train, held, test = parts
        return replace(self, train=train, held=held, test=test)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.test.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """The number of labels C."""
        return int(self.label_counts.shape[1])


def load_holdings(config: Config, clients: Iterable[int] | None = None) -> Holdings:
    """Load a configuration's data set and deal it out.

    Args:
        config: the resolved configuration.
        clients: whose examples to keep, None for all.

    Raises:
        ParityflError: the data are missing, or the configuration does not fit them.
    """
    data = load_dataset(config.data.name, config.data.root)
    train, held = _split(data.train_labels, config)  # first of all: it refuses more clients than there are examples
    hosted = frozenset(range(config.population.clients) if clients is None else clients)
    return Holdings(
        train=_hosted_part(data, train, hosted),
        held=_hosted_part(data, held, hosted),
        test=Part.gather(data.test_images, data.test_labels, [np.arange(len(data.test_labels))]),
        hosted=hosted,
        num_samples=np.array([len(shard) for shard in train], dtype=np.int64),
        label_counts=label_counts(data.train_labels, train, data.num_classes),
        mean=data.mean,
        std=data.std,
    )


def _hosted_part(data: Dataset, shards: Shards, hosted: frozenset[int]) -> Part:
    mine = [shard if client in hosted else shard[:0] for client, shard in enumerate(shards)]
    return Part.gather(data.train_images, data.train_labels, mine)


def _split(labels: IntArray, config: Config) -> tuple[Shards, Shards]:
    """Return what each client trains on and what it holds out, as indices, by the configuration's partition."""
    population = config.population
    shards = partition(
        population.partition,
        labels,
        population.clients,
        config.seed,
        labels_per_client=population.labels_per_client,
        samples_per_client=population.samples_per_client,
        alpha=population.alpha,
    )
    parts = [holdout(labels, shard, population.holdout, config.seed, k) for k, shard in enumerate(shards)]
    return [train for train, _ in parts], [held for _, held in parts]


def spans(total: int, batch: int) -> Iterator[tuple[int, int]]:
    """Cut `total` examples into pieces of sixteen batches, whoever evaluates them; at least one, which may be empty."""
    step = BATCHES_A_PIECE * batch
    for start in range(0, max(total, 1), step):
        yield start, min(start + step, total)
