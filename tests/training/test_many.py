"""Many clients at once learn what each learns alone, but for the order in which floating point adds up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parityfl.config import Config
from parityfl.core.objectives import objective
from parityfl.core.registry import Registry
from parityfl.core.types import Update
from parityfl.training.many import ManyModels, in_turn, kernels, side_by_side
from parityfl.training.models import CnnSmall, Mlp, Shape, build_model, model
from parityfl.training.workbench import Workbench

TOLERANCE = 1e-4
"""Largest difference of a weight after a round, as the documentation states it."""

CLIENTS = [0, 2, 3, 5]


def bench(**changes: Any) -> Workbench:
    """Clients of very different sizes: all ten labels, log-normal quantities."""
    sections = {
        "seed": 5,
        "population": {"clients": 6, "per_round": 4, "partition": "quantity"},
        "model": {"name": "mlp"},
        "training": {"epochs": 2, "batch_size": 16},
    }
    return Workbench(Config(**{**sections, **changes}))


def assert_alike(one: Update, other: Update) -> None:
    assert (one.client, one.num_samples) == (other.client, other.num_samples)
    assert np.allclose(one.delta, other.delta, atol=TOLERANCE, rtol=0)
    assert (one.control is None) == (other.control is None)
    if one.control is not None and other.control is not None:
        assert np.allclose(one.control, other.control, atol=1e-3, rtol=0)
    for name in ("train_loss", "loss_before", "loss_after", "personal_accuracy"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4, nan_ok=True), name


def assert_same_round(work: Workbench, kernel: Any) -> None:
    """Two rounds, the second with what the first left in the clients' memories and a model of each client's own."""
    first = work.initial_weights()
    alone = {client: work.train(1, client, first) for client in CLIENTS}
    for client, (update, _) in zip(CLIENTS, work.train_many(1, CLIENTS, [first] * 4, kernel=kernel), strict=True):
        assert_alike(update, alone[client][0])
    starts = [first + alone[client][0].delta for client in CLIENTS]
    memories = [alone[client][1] for client in CLIENTS]
    kept = [memory for memory in memories if memory is not None] or None
    control = None if alone[0][0].control is None else alone[0][0].control / np.float32(6)
    together = work.train_many(2, CLIENTS, starts, kernel=kernel, control=control, memories=kept)
    for row, client in enumerate(CLIENTS):
        update, memory = work.train(2, client, starts[row], control, memories[row])
        assert_alike(together[row][0], update)
        assert (together[row][1] is None) == (memory is None)
        if memory is not None:
            assert np.allclose(together[row][1], memory, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", [name for name in objective.names() if name != "plain"])  # which is below
def test_every_objective(name: str) -> None:
    assert_same_round(bench(objective={"name": name}), "grouped")


@pytest.mark.parametrize("kernel", ["grouped", "vmap"])
@pytest.mark.parametrize("model", ["mlp", "cnn-small"])
def test_every_kernel(model: str, kernel: str) -> None:
    assert_same_round(bench(model={"name": model}), kernel)


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"weight_decay": 0.1}, {"clip_norm": 0.1}])
def test_every_setting(settings: dict[str, float]) -> None:
    """Who has few examples is done early and stays where it is, momentum or not."""
    assert_same_round(bench(training={"batch_size": 16, **settings}), "vmap")


@pytest.mark.parametrize("model", ["mlp", "cnn-small"])
def test_clients_without_held_out_parts_have_measured_nothing(model: str) -> None:
    work = bench(population={"clients": 6, "holdout": 0.0}, model={"name": model})
    for update, _ in work.train_many(1, CLIENTS, [work.initial_weights()] * 4, kernel="grouped"):
        assert np.isnan([update.loss_before, update.loss_after]).all()


def test_every_model_has_a_kernel() -> None:
    assert kernels(build_model("cnn", (1, 28, 28), 10), (1, 28, 28)) == ["grouped", "vmap"]
    assert kernels(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), (1, 2, 2)) == ["vmap"]


class Tanh(Mlp):
    """Inherits a `many` that has another activation."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.tanh(self.hidden(images.flatten(1))))
        return logits


class Halved(CnnSmall):
    """Inherits a `forward` and a `many`, of which only the first sees other features."""

    def features(self, images: Tensor) -> Tensor:
        return super().features(images) * 0.5


class Spare(Mlp):
    """Has a parameter that it does not use."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(shape, num_classes)
        self.spare = nn.Parameter(torch.ones(3))


class Frozen(Mlp):
    """Trains its last layer only."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(shape, num_classes)
        self.hidden.requires_grad_(False)


class Normalised(CnnSmall):
    """Sees its images through the mean and variance of their batch."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(shape, num_classes)
        self.norm = nn.BatchNorm2d(shape[0], track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.norm(images))


@pytest.mark.parametrize(
    ("network", "offered"),
    [(Tanh, ["vmap"]), (Halved, ["vmap"]), (Spare, ["grouped", "vmap"]), (Frozen, []), (Normalised, [])],
)
def test_kernels_are_those_that_learn_the_same(
    network: type[nn.Module], offered: list[str], restored: Callable[[Registry[Any]], None]
) -> None:
    restored(model)
    model("of-a-test")(network)
    work = bench(model={"name": "of-a-test"})
    assert work.kernels == offered
    for kernel in offered:
        assert_same_round(work, kernel)


def test_what_draws_at_random_is_trained_one_by_one() -> None:
    """Copies of one network cannot drop what each would drop by itself."""
    layers = torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2)
    assert kernels(torch.nn.Sequential(*layers), (1, 2, 2)) == []


def test_copies_train_as_in_training_and_are_measured_as_in_evaluation() -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    many = ManyModels(module, 2, "vmap")
    (batch,) = side_by_side(torch.ones(2, 1, 2, 2), torch.tensor([0, 1]), in_turn([1, 1], 2))
    many.measure([batch])
    assert not module.training
    many.backward(batch)
    assert module.training


def test_batches_lie_side_by_side() -> None:
    """Three examples and one, in twos: (0, 1) beside (3), then (2) beside nothing; padding is example 0."""
    images, labels = torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([5, 6, 7, 8])
    first, second = side_by_side(images, labels, in_turn([3, 1], 2))
    assert first.images.flatten(1).tolist() == [[0, 1], [3, 0]]
    assert first.labels.tolist() == [[5, 6], [8, 5]]
    assert second.labels.tolist() == [[7], [5]]
    assert [batch.counts.tolist() for batch in (first, second)] == [[2, 1], [1, 0]]
