"""Data sets, one file a family; read with numpy, no torch."""

from parityfl.training.datasets import cifar, digits, fashion_mnist, own
from parityfl.training.datasets.base import Dataset, DatasetSource, dataset, load_dataset

__all__ = ["Dataset", "DatasetSource", "cifar", "dataset", "digits", "fashion_mnist", "load_dataset", "own"]
