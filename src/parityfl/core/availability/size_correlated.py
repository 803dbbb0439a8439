"""Availability that depends on how much data a client holds."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from parityfl.core.availability.base import AvailabilityModel, availability, stationary
from parityfl.core.availability.coins import CoinProcess, constant, fresh_coins, kept_coins, renewal_of
from parityfl.core.availability.coupling import handed_out
from parityfl.core.distributions import PerClient
from parityfl.core.keys import one_of
from parityfl.core.types import World

_Direction = Literal["increasing", "decreasing"]


@availability("size-correlated")
@dataclass(frozen=True)
class SizeCorrelated(AvailabilityModel):
    """The more training examples a client holds, the more (or the less) it is available.

    The values of pi are those of any other model, handed out in the order of the clients' number of examples, equal
    numbers in an order drawn by the seed: n_i < n_j implies pi_i <= pi_j (or >=). So a comparison with `bernoulli`
    or `gilbert-elliott` changes who has which pi, and nothing else.

    Attributes:
        pi: P(available); a number per client or a distribution, of which each client gets one value.
        direction: `increasing` or `decreasing`.
        stability: probability that a client keeps its coin from one slot to the next, in [0, 1); more makes bursts.
    """

    source: ClassVar[str] = "this project"

    pi: PerClient = "beta(1,2)"
    direction: _Direction = "increasing"
    stability: float = 0.0

    def __post_init__(self) -> None:
        renewal_of(self.stability)
        one_of("availability.direction", self.direction, _Direction)

    def bind(self, world: World) -> CoinProcess:
        """Return the process with the values of pi in the order of `world.num_samples`."""
        sign = 1.0 if self.direction == "increasing" else -1.0
        pi = stationary(self.pi, world.num_clients, world.seed)
        pi = handed_out(pi, sign * np.asarray(world.num_samples, dtype=np.float64), world.seed)
        coins = kept_coins(fresh_coins(world), self.stability, world.num_clients)
        return CoinProcess(coins, constant(pi), world.interval_s)
