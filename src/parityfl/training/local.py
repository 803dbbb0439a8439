"""Local training: plain SGD on flat tensors, and what a local objective changes about it.

The same code trains one client, whose flat tensors have shape (d,), or K clients at once, with flat tensors of shape
(K, d): see `parityfl.training.many`. An objective's training is the implementation of `minimise` that is registered
for its class; the objectives that ship have a file each in `parityfl.training.objectives`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from parityfl.config import Training
from parityfl.core.errors import ConfigError, first_line
from parityfl.core.objectives import Objective

Proceed = Callable[[], object]
"""Raises where training need not go on."""


def always() -> None:
    """Go on."""


Correction = Callable[[Tensor, Tensor], object]
"""Changes the gradient in place: (weights, gradient), both flat."""


class Batch(NamedTuple):
    """The examples of one gradient step, of one client or of K.

    Attributes:
        images: normalised, shape (n, c, h, w), or (K, n, c, h, w).
        labels: shape (n,), or (K, n).
        counts: how many of the n examples are each client's, the others being padding, shape (K,), 0 where the client
            is done already; None for one client, all of whose examples count.
    """

    images: Tensor
    labels: Tensor
    counts: Tensor | None = None


class Net(Protocol):
    """A network, or K copies of it, that can be trained.

    Attributes:
        weights: the parameters, shape (d,) or (K, d).
        gradient: what `backward` left, of the same shape.
    """

    weights: Tensor
    gradient: Tensor

    def backward(self, batch: Batch) -> Tensor:
        """Set `gradient` to that of each client's mean cross-entropy and return this, shape () or (K,)."""
        ...


class Task(Protocol):
    """What is trained on: a `LocalTask`, or that of K clients."""

    @property
    def settings(self) -> Training:
        """Epochs, batch size and step."""
        ...

    @property
    def weights(self) -> Tensor:
        """The model that was sent, not to be changed."""
        ...

    @property
    def control(self) -> Tensor | None:
        """The server's control variate, or None."""
        ...

    @property
    def memory(self) -> Tensor | None:
        """What was kept from the last completed round, or None."""
        ...

    @property
    def travels(self) -> torch.dtype:
        """What the numbers of a control variate's change are when they arrive."""
        ...

    @property
    def steps(self) -> int | Tensor:
        """Gradient steps of the whole local training."""
        ...

    def minibatches(self) -> Iterator[Batch]:
        """Yield the batches of all epochs, the same ones at each call."""
        ...


@dataclass(frozen=True)
class LocalTask:
    """What a client trains on in a round. All flat tensors are arranged as the model's, shape (d,).

    Attributes:
        images: the client's training examples, normalised.
        labels: their labels.
        settings: epochs, batch size and step.
        batches: makes the generator of the epochs' shuffles, the same one at each call.
        weights: the model that the client was sent, not to be changed.
        control: the server's control variate, or None.
        memory: what the client kept, or None.
        travels: what the numbers of a control variate's change are when they arrive.
        proceed: called before each batch; raises where nobody waits for the result any more.
    """

    images: Tensor
    labels: Tensor
    settings: Training
    batches: Callable[[], np.random.Generator]
    weights: Tensor
    control: Tensor | None
    memory: Tensor | None
    travels: torch.dtype = torch.float32
    proceed: Proceed = always

    @property
    def steps(self) -> int:
        """Gradient steps of the whole local training."""
        return self.settings.epochs * math.ceil(len(self.labels) / self.settings.batch_size)

    def minibatches(self) -> Iterator[Batch]:
        """Yield the batches: each epoch is one shuffle, cut into batches, the last of which may be smaller."""
        size, rng = self.settings.batch_size, self.batches()
        for _ in range(self.settings.epochs):
            order = torch.from_numpy(rng.permutation(len(self.labels))).to(self.labels.device)
            images, labels = self.images.index_select(0, order), self.labels.index_select(0, order)
            for first in range(0, len(labels), size):
                self.proceed()
                yield Batch(images[first : first + size], labels[first : first + size])


@dataclass(frozen=True)
class Learned:
    """What local training made. All flat tensors are arranged as the model's, shape (d,), or (K, d) for K clients.

    Attributes:
        weights: the client's model.
        train_loss: mean cross-entropy over all examples of all epochs, each before the step that it led to, float64,
            shape () or (K,).
        control: change of the client's control variate, or None.
        memory: what the client keeps for its next round, or None.
        personal: the client's personal model, or None.
    """

    weights: Tensor
    train_loss: Tensor
    control: Tensor | None = None
    memory: Tensor | None = None
    personal: Tensor | None = None


@singledispatch
def minimise(objective: Objective, net: Net, task: Task) -> Learned:
    """Train on a task's examples by the objective's rule.

    Raises:
        ConfigError: no training is registered for this class of objective.
    """
    raise ConfigError(
        f"objective {type(objective).__name__} has no local training: register a function for it with "
        "parityfl.training.local.minimise.register, in the module that its attribute `training` names"
    )


def load_training(objective: Objective) -> None:
    """Import the module that registers an objective's training, where it names one.

    Raises:
        ConfigError: the module cannot be imported.
    """
    if not objective.training:
        return
    try:
        import_module(objective.training)
    except Exception as error:  # whatever the import of a stranger's module raises
        about = f"objective {type(objective).__name__}: its training, {objective.training}, cannot be imported"
        raise ConfigError(f"{about}: {first_line(error)}; repair or uninstall the package") from None


def descend(net: Net, task: Task, start: Tensor, correct: Correction | None = None) -> tuple[Tensor, Tensor]:
    """Run SGD from `start` over the task's batches and return the weights and the mean training loss.

    A step takes the gradient of the batch's mean cross-entropy, clips it to `clip_norm`, applies `correct`, adds
    `weight_decay` times the weights, and moves along it or, with `momentum`, along its running sum, which begins at
    zero.
    """
    net.weights.copy_(start)
    velocity = torch.zeros_like(start) if task.settings.momentum else None
    losses, counts = [], []
    for batch in task.minibatches():
        losses.append(net.backward(batch))
        counts.append(len(batch.labels) if batch.counts is None else batch.counts.tolist())
        _step(net, task.settings, velocity, correct, batch.counts)
    shares = torch.tensor(counts, dtype=torch.float64)
    mean_loss = (torch.stack(losses).cpu().double() * shares).sum(dim=0) / shares.sum(dim=0)
    return net.weights.clone(), mean_loss


def _step(
    net: Net, settings: Training, velocity: Tensor | None, correct: Correction | None, counts: Tensor | None
) -> None:
    gradient, weights = net.gradient, net.weights
    if settings.clip_norm is not None:
        norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        gradient.mul_((settings.clip_norm / (norm + 1e-6)).clamp(max=1.0))
    if correct is not None:
        correct(weights, gradient)
    if settings.weight_decay:
        gradient.add_(weights, alpha=settings.weight_decay)
    if velocity is not None:
        gradient = velocity.mul_(settings.momentum).add_(gradient)
    if counts is not None and not counts.all():  # who is done already stays where it is
        gradient = gradient * (counts > 0).unsqueeze(1)
    weights.add_(gradient, alpha=-settings.lr)


def pull_to(anchor: Tensor, strength: float) -> Correction | None:
    """Return what adds the gradient of (strength / 2) ||w - anchor||^2; None for strength 0."""
    if strength == 0:
        return None
    return lambda weights, gradient: gradient.add_(weights - anchor, alpha=strength)
