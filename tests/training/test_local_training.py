"""Local SGD and the objectives, on a network small enough to follow by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parityfl.config import Training
from parityfl.core.errors import ConfigError
from parityfl.core.objectives import Ditto, FedProx, Objective, Plain, Scaffold
from parityfl.core.seeding import generator
from parityfl.training import objectives
from parityfl.training.flat import FlatModel
from parityfl.training.local import LocalTask, descend, minimise

assert objectives.__all__


class Linear(nn.Module):
    """Two pixels, two labels, no bias; logits = images @ weight.T."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


IMAGES = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).view(3, 1, 1, 2)
LABELS = torch.tensor([0, 1, 0])


def task(*, weights=None, control=None, memory=None, num=3, **settings) -> LocalTask:
    return LocalTask(
        IMAGES[:num],
        LABELS[:num],
        Training(**{"batch_size": 2, "lr": 0.5, **settings}),
        partial(generator, 0, "batches", 1, 0),
        torch.zeros(4) if weights is None else weights,
        control,
        memory,
    )


def net() -> FlatModel:
    return FlatModel(Linear(), torch.device("cpu"))


def reference(given: LocalTask, optimizer: torch.optim.Optimizer, module: nn.Module, clip=None) -> float:
    """The textbook loop with torch's own optimiser; returns the mean loss."""
    rng, total, count = given.batches(), 0.0, 0
    for _ in range(given.settings.epochs):
        order = torch.from_numpy(rng.permutation(len(given.labels)))
        for batch in order.split(given.settings.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(given.images[batch]), given.labels[batch])
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            total, count = total + loss.item() * len(batch), count + len(batch)
    return total / count


def test_training_stops_before_the_batch_that_it_may_not_begin():
    """Three examples in batches of two, three epochs: six batches, of which the third may not begin."""
    begun = []

    def proceed() -> None:
        if len(begun) == 2:
            raise TimeoutError
        begun.append(len(begun))

    given = replace(task(epochs=3), proceed=proceed)
    with pytest.raises(TimeoutError):
        descend(net(), given, given.weights)
    assert len(begun) == 2


def test_one_step_by_hand():
    """Image (1, 0), label 0, weights zero: p = (.5, .5), gradient (p - onehot) x image = (-.5, 0, .5, 0), lr 0.5.

    The weights become (.25, 0, -.25, 0), and the loss before the step was log 2.
    """
    weights, loss = descend(net(), task(num=1), torch.zeros(4))
    assert weights.tolist() == [0.25, 0.0, -0.25, 0.0]
    assert loss == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 3},
        {"epochs": 3, "momentum": 0.9},
        {"epochs": 2, "weight_decay": 0.1},
        {"epochs": 2, "momentum": 0.5, "weight_decay": 0.1},
        {"epochs": 2, "clip_norm": 0.1},
    ],
)
def test_sgd_is_that_of_torch(settings):
    given, module = task(**settings), Linear()
    known = {key: value for key, value in settings.items() if key in ("momentum", "weight_decay")}
    mean = reference(given, torch.optim.SGD(module.parameters(), lr=0.5, **known), module, settings.get("clip_norm"))
    weights, loss = descend(net(), given, torch.zeros(4))
    assert torch.allclose(weights, module.weight.detach().reshape(-1), atol=1e-6)
    assert loss == pytest.approx(mean, rel=1e-6)


def test_nothing_that_is_given_changes():
    given = task(weights=torch.ones(4), control=torch.ones(4), memory=torch.ones(4), epochs=2)
    for objective in (Plain(), FedProx(0.1), Ditto(0.1), Scaffold()):
        minimise(objective, net(), given)
    assert torch.equal(given.weights, torch.ones(4))
    assert torch.equal(given.control, torch.ones(4))
    assert torch.equal(given.memory, torch.ones(4))


def test_fedprox_without_pull_is_plain_to_the_bit():
    given = task(epochs=4, momentum=0.9, weights=torch.tensor([0.1, -0.2, 0.3, -0.0]))
    plain, prox = minimise(Plain(), net(), given), minimise(FedProx(0.0), net(), given)
    assert plain.weights.numpy().tobytes() == prox.weights.numpy().tobytes()
    assert plain.train_loss == prox.train_loss


def test_fedprox_by_hand():
    """One example, two epochs, mu = 2, lr = 0.5: the second step's gradient gains mu (w1 - w0) = 2 w1.

    w1 = (.25, 0, -.25, 0) and p = sigmoid(.5) for label 0, so
    w2 = w1 - .5 ((p - 1, 0, 1 - p, 0) + 2 w1) = .5 (1 - p) (1, 0, -1, 0).
    """
    learned = minimise(FedProx(2.0), net(), task(num=1, epochs=2))
    p = 1 / (1 + np.exp(-0.5))
    assert np.allclose(learned.weights, 0.5 * (1 - p) * np.array([1, 0, -1, 0]))


def test_ditto_leaves_the_global_path_alone_and_keeps_a_personal_model():
    plain = minimise(Plain(), net(), task(epochs=2))
    learned = minimise(Ditto(0.0), net(), task(epochs=2))
    assert torch.equal(learned.weights, plain.weights)
    assert torch.equal(learned.personal, plain.weights), "the first personal model starts from the global one"
    assert learned.memory is learned.personal


def test_ditto_by_hand():
    """One example, one step, lr = 0.5, lambda = 2, w = 0, v = (1, 0, 1, 0): p = (.5, .5) again.

    v - .5 ((-.5, 0, .5, 0) + 2 v) = (.25, 0, -.25, 0).
    """
    learned = minimise(Ditto(2.0), net(), task(num=1, memory=torch.tensor([1.0, 0.0, 1.0, 0.0])))
    assert learned.personal.tolist() == [0.25, 0.0, -0.25, 0.0]
    assert learned.weights.tolist() == [0.25, 0.0, -0.25, 0.0]


def test_scaffold_without_controls_moves_as_plain_and_learns_the_mean_gradient():
    """c = c_k = 0: c_k+ = (w - y) / (steps lr), here 4 steps of 0.5."""
    given = task(epochs=2)
    plain, learned = minimise(Plain(), net(), given), minimise(Scaffold(), net(), given)
    assert torch.equal(learned.weights, plain.weights)
    assert torch.allclose(learned.control, -plain.weights / (4 * 0.5))
    assert torch.equal(learned.memory, learned.control)


def test_scaffold_by_hand():
    """One example, one step, lr = 0.5, c = (1, 1, 1, 1), c_k = (0, 1, 0, 1): the step is g - c_k + c = (.5, 0, 1.5, 0).

    y = -(.25, 0, .75, 0); c_k+ = c_k - c + (w - y) / lr = (-1, 0, -1, 0) + (.5, 0, 1.5, 0) = (-.5, 0, .5, 0) = g.
    """
    control, own = torch.ones(4), torch.tensor([0.0, 1.0, 0.0, 1.0])
    learned = minimise(Scaffold(), net(), task(num=1, control=control, memory=own))
    assert learned.weights.tolist() == [-0.25, 0.0, -0.75, 0.0]
    assert learned.memory.tolist() == [-0.5, 0.0, 0.5, 0.0]
    assert torch.equal(learned.control, learned.memory - own)


def test_an_objective_without_training_is_refused():
    class Mine(Objective):
        pass

    with pytest.raises(ConfigError, match="objective Mine has no local training"):
        minimise(Mine(), net(), task())
