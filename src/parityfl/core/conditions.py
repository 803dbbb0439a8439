"""Latency and mid-round drop-out of an experiment: pure functions of (seed, round, client)."""

from dataclasses import dataclass, fields

import numpy as np

from parityfl.core.distributions import PerClient, probabilities
from parityfl.core.keys import at_least
from parityfl.core.seeding import generator, uniforms
from parityfl.core.types import BoolArray, FloatArray, World


@dataclass(frozen=True)
class Latency:
    """How long a client takes from the request to the reply, in virtual seconds.

    latency_k(round) = (median_s + per_sample_s n_k) exp(spread z_k + jitter e_k(round)) with standard normal z and e
    and n_k training examples: a slow device is slow in every round.

    Attributes:
        median_s: seconds of the median client without data; 0 with per_sample_s 0 is no latency at all.
        spread: sigma of the log-normal factor of each client.
        jitter: sigma of the log-normal factor of each client and round.
        per_sample_s: seconds for each training example.
    """

    median_s: float = 0.0
    spread: float = 0.5
    jitter: float = 0.2
    per_sample_s: float = 0.0

    def __post_init__(self) -> None:
        for key in fields(self):
            at_least(f"latency.{key.name}", getattr(self, key.name), 0)


@dataclass(frozen=True)
class Dropout:
    """How often a selected client leaves in the middle of a round.

    Attributes:
        rate: P(no reply | selected) per client, independent over clients and rounds.
    """

    rate: PerClient = 0.0


def latencies(latency: Latency, world: World, round: int) -> FloatArray:
    """Return the seconds that each client takes in `round`, whether it is selected or not, shape (N,)."""
    slowness = latency.spread * generator(world.seed, "latency").standard_normal(world.num_clients)
    jitter = latency.jitter * generator(world.seed, "latency jitter", round).standard_normal(world.num_clients)
    seconds = latency.median_s + latency.per_sample_s * world.num_samples.astype(np.float64)
    return np.multiply(seconds, np.exp(slowness + jitter))


def drop_rates(dropout: Dropout, world: World) -> FloatArray:
    """Return how often each client leaves in the middle of a round, shape (N,).

    Raises:
        ConfigError: a rate is not in [0, 1], or there is not one for each client.
    """
    return probabilities("dropout.rate", dropout.rate, world.num_clients, world.seed)


def dropouts(dropout: Dropout, world: World, round: int) -> BoolArray:
    """Return who would leave in the middle of `round` if it were selected, shape (N,).

    Raises:
        ConfigError: see `drop_rates`.
    """
    return uniforms(world.seed, "dropout", round, world.num_clients) < drop_rates(dropout, world)
