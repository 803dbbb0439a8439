"""Federated averaging in pfl-research's simulation, in its own environment; called by `peers.py`.

    CACHE/pfl/bin/python -m torch.distributed.run --nproc-per-node 2 benchmarks/peer_pfl.py DATA.npz cnn-small 20

Two processes of one thread each, resident tensors. They share the test set when the model is measured, after the last
round. Prints the seconds of each round and the last accuracy as one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from types import MethodType

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from network import BATCH, LR, build, hits, resident, tested

PATH, MODEL, ROUNDS = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
CLIENTS, PER_ROUND = 100, 10
RANK, PROCESSES = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Watch(TrainingProcessCallback):
    """Notes when each round ended, and measures the model after the last one."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._images, self._labels = tested(PATH)
        self.accuracy = 0.0
        self.times = [perf_counter()]

    def _measured(self) -> float:
        """Return the accuracy on the test set, of which each process measures its part."""
        share = slice(RANK, None, PROCESSES)
        found = torch.tensor(hits(self._net, self._images[share], self._labels[share]))
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(found)
        return float(found) / len(self._labels)

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Note the time, and what came of it all."""
        self.times.append(perf_counter())
        if central_iteration == ROUNDS - 1:
            self.accuracy = self._measured()
        return False, Metrics()


def loss(self: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of a batch, as pfl wants a network to."""
    return nn.functional.cross_entropy(self(images), labels)


def network() -> nn.Module:
    """Return a network with the methods that pfl looks for, the same in both processes."""
    torch.manual_seed(0)
    net = build(MODEL)
    net.loss = MethodType(loss, net)
    net.metrics = MethodType(lambda self, images, labels: {}, net)
    return net


def dataset(client: int) -> PyTorchTensorDataset:
    """Return a client's examples in an order of this round."""
    images, labels = resident(PATH).of(client)
    order = torch.randperm(len(labels))
    return PyTorchTensorDataset((images[order], labels[order]), user_id=str(client))


def main() -> None:
    """Run the rounds and print how long each took."""
    np.random.seed(0)  # noqa: NPY002 - what pfl draws from
    resident(PATH)
    net = network()
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    data = FederatedDataset(dataset, get_user_sampler("random", list(range(CLIENTS))))
    backend = SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()])
    watch = Watch(net)
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=ROUNDS,
            evaluation_frequency=ROUNDS + 1,
            train_cohort_size=PER_ROUND,
            val_cohort_size=0,
        ),
        backend,
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LR, local_batch_size=BATCH),
        callbacks=[watch],
    )
    if RANK == 0:
        rounds = [after - before for before, after in pairwise(watch.times)]
        print(json.dumps({"rounds": rounds, "accuracy": watch.accuracy}), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    os._exit(0)  # gloo's threads abort the process when it ends as usual


if __name__ == "__main__":
    main()
