"""Server optimisers: how the model moves along the direction that an aggregator found. They compose with any rule.

d is the number of model parameters; all vectors are float32 of shape (d,). State goes in and comes back as named
arrays, which a step may change in place; the model that went in is never changed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.buffers import empty_vector
from parityfl.core.errors import ConfigError
from parityfl.core.keys import at_least_below
from parityfl.core.types import State, Vector

_unwarned = np.errstate(over="ignore", invalid="ignore")
"""Decorator: what float32 cannot hold is no warning, since a run whose model is no longer finite ends and says so."""


class ServerOptimizer(ABC):
    """A frozen dataclass whose fields are its configuration keys. `source` names the paper."""

    source: ClassVar[str] = ""

    def init(self, size: int) -> State:
        """Return the state before the first step of a model of `size` parameters."""
        return {}

    @abstractmethod
    def step(self, state: State, weights: Vector, direction: Vector, lr: float) -> tuple[Vector, State]:
        """Return the model after a step of size `lr` along `direction`, and the state for the next one."""


@dataclass(frozen=True)
class PlainStep(ServerOptimizer):
    """Add the direction times the server's learning rate."""

    source: ClassVar[str] = "McMahan et al., AISTATS 2017"

    @_unwarned
    def step(self, state: State, weights: Vector, direction: Vector, lr: float) -> tuple[Vector, State]:
        """Return w + lr D."""
        return _advance(weights, direction, lr), state


@dataclass(frozen=True)
class Momentum(ServerOptimizer):
    """Add a decaying sum of all directions so far (FedAvgM): v = momentum v + D, w = w + lr v.

    Attributes:
        momentum: share of the sum that survives a round, in [0, 1).
    """

    source: ClassVar[str] = "Hsu et al., arXiv 1909.06335, 2019"

    momentum: float = 0.9

    def __post_init__(self) -> None:
        at_least_below("server.momentum", self.momentum, 0, 1)

    def init(self, size: int) -> State:
        """Return a velocity of zero."""
        return {"velocity": np.zeros(size, dtype=np.float32)}

    @_unwarned
    def step(self, state: State, weights: Vector, direction: Vector, lr: float) -> tuple[Vector, State]:
        """Return w + lr v with the new velocity v."""
        velocity = state["velocity"]
        velocity *= np.float32(self.momentum)
        velocity += direction
        return _advance(weights, velocity, lr), state


LEAST_TAU, MOST_TAU = 1e-30, 1e15
"""The smallest and the largest `Adam.tau`: float32 holds both, and the square of the largest with room to spare."""


@dataclass(frozen=True)
class Adam(ServerOptimizer):
    """Scale each coordinate by the size of its past directions (FedAdam).

    Algorithm 2 of Reddi et al.: m = b1 m + (1 - b1) D; v = b2 v + (1 - b2) D²; w = w + lr m / (sqrt(v) + tau), without
    bias correction. Their v starts anywhere from tau² up; here it starts at tau².

    Attributes:
        beta1: memory of the mean, in [0, 1).
        beta2: memory of the mean square, in [0, 1).
        tau: adaptivity, `LEAST_TAU` to `MOST_TAU`: coordinates whose directions are well below it move like plain steps
            of lr / tau.
    """

    source: ClassVar[str] = "Reddi et al., ICLR 2021"

    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        at_least_below("server.beta1", self.beta1, 0, 1)
        at_least_below("server.beta2", self.beta2, 0, 1)
        if not LEAST_TAU <= self.tau <= MOST_TAU:
            raise ConfigError(
                f"server.tau = {self.tau:g} must be from {LEAST_TAU:g} to {MOST_TAU:g}: float32 holds no other, or not "
                "its square"
            )

    def init(self, size: int) -> State:
        """Return a mean of zero and a mean square of tau²."""
        return {
            "mean": np.zeros(size, dtype=np.float32),
            "square": np.full(size, self.tau**2, dtype=np.float32),
        }

    @_unwarned
    def step(self, state: State, weights: Vector, direction: Vector, lr: float) -> tuple[Vector, State]:
        """Return w + lr m / (sqrt(v) + tau) with the new moments m and v."""
        mean, square = state["mean"], state["square"]
        _blend(mean, direction, self.beta1)
        _blend(square, np.square(direction), self.beta2)
        scaled = np.sqrt(square)
        scaled += np.float32(self.tau)
        np.divide(mean, scaled, out=scaled)
        return _advance(weights, scaled, lr), state


def _advance(weights: Vector, direction: Vector, lr: float) -> Vector:
    moved = np.multiply(direction, np.float32(lr), out=empty_vector(len(weights)))
    moved += weights
    return moved


def _blend(average: Vector, value: Vector, memory: float) -> None:
    average *= np.float32(memory)
    average += np.float32(1 - memory) * value
