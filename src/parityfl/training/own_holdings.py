"""Who holds which examples where each device has its own: split on the device, kept on the device. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np

from parityfl.config import Config
from parityfl.core.errors import DataError
from parityfl.core.partition import holdout, label_counts
from parityfl.training.datasets.own import OwnData
from parityfl.training.holdings import Holdings, Part

HALF_RANGE = 127.5
"""An 8-bit image is scaled to [-1, 1] by (image - 127.5) / 127.5 unless the configuration says otherwise."""


def own_holdings(config: Config, own: Mapping[str, OwnData], devices: Mapping[int, str]) -> Holdings:
    """Return the data of the devices of one process, each split into what it trains on and what it holds out.

    Args:
        config: the run's configuration, its classes and shape agreed.
        own: each device's data by its name; the split depends on this name and the seed.
        devices: the devices' names by their index.

    Raises:
        DataError: a device does not have the agreed classes, or too few examples to split.
    """
    splits = {index: _split(config, name, own[name]) for index, name in devices.items()}
    train, held = ({index: parts[side] for index, parts in splits.items()} for side in (0, 1))
    empty = OwnData(next(iter(own.values())).images[:0], np.zeros(0, dtype=np.int64), ())
    return _holdings(config, _gather(config, empty, train), _gather(config, empty, held), _gather(config, empty, {}))


def judging_holdings(config: Config, test: OwnData) -> Holdings:
    """Return holdings of nobody, with a test set.

    Raises:
        DataError: the test set does not have the agreed classes.
    """
    empty = OwnData(test.images[:0], test.labels[:0], ())
    nothing = _gather(config, empty, {})
    whole = Part(test.images, test.labels_in(_classes(config)), np.array([0, len(test.labels)]))
    return _holdings(config, nothing, nothing, whole)


def _holdings(config: Config, train: Part, held: Part, test: Part) -> Holdings:
    channels, scaled = train.images.shape[1], train.images.dtype == np.uint8
    shards = np.split(np.arange(len(train.labels)), train.bounds[1:-1])
    usual = HALF_RANGE if scaled else 0.0, HALF_RANGE if scaled else 1.0
    return Holdings(
        train=train,
        held=held,
        test=test,
        hosted=frozenset(np.flatnonzero(train.sizes).tolist()),
        num_samples=train.sizes,
        label_counts=label_counts(train.labels, shards, len(_classes(config))),
        mean=config.data.mean or (usual[0],) * channels,
        std=config.data.std or (usual[1],) * channels,
    )


def _split(config: Config, device_id: str, data: OwnData) -> tuple[OwnData, OwnData]:
    """Return what a device trains on and what it holds out."""
    fraction = config.population.holdout
    if fraction > 0 and len(data.labels) < 2:
        raise DataError(f"device {device_id!r} has one example, which cannot be split: add more, or set holdout = 0")
    everything = np.arange(len(data.labels))
    parts = holdout(data.labels, everything, fraction, config.seed, _number_of(device_id))
    train, held = (OwnData(data.images[part], data.labels[part], data.classes) for part in parts)
    return train, held


def _gather(config: Config, empty: OwnData, parts: Mapping[int, OwnData]) -> Part:
    """Return the examples of all clients of the population, one after the other; most have none here."""
    each = [parts.get(index, empty) for index in range(config.population.clients)]
    bounds = np.concatenate([[0], np.cumsum([len(data.labels) for data in each])])
    present = [data for data in each if len(data.labels)] or [empty]
    labels = [data.labels_in(_classes(config)) for data in present]
    return Part(np.concatenate([data.images for data in present]), np.concatenate(labels), bounds)


def _classes(config: Config) -> tuple[str, ...]:
    assert config.data.classes is not None, "the coordinator sends the agreed classes"
    return config.data.classes


def _number_of(device_id: str) -> int:
    """Return a number of 62 bits that stands for a name, whatever place it has in a run."""
    return int.from_bytes(blake2b(device_id.encode(), digest_size=8).digest(), "little") >> 2
