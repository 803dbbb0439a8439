"""The stationary two-state Markov chain."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.availability.base import AvailabilityModel, availability, stationary
from parityfl.core.availability.coins import CoinProcess, KeptCoins, constant, fresh_coins, renewal_of
from parityfl.core.distributions import PerClient, per_client
from parityfl.core.errors import ConfigError
from parityfl.core.types import FloatArray, World

DEFAULT_MEAN_ON = 12.0


@availability("gilbert-elliott")
@dataclass(frozen=True)
class GilbertElliott(AvailabilityModel):
    """Each client follows a stationary on-off Markov chain: the same pi as coins, but in bursts.

    P(on -> off) = a = 1 / mean_on_rounds and P(off -> on) = b = a pi / (1 - pi). The chain is written as a renewal
    process, which makes it a pure function of time: in each slot the client throws a new coin of pi with probability
    a + b = a / (1 - pi), and keeps its state otherwise. Its lag-1 autocorrelation is 1 - a - b. Where a + b would pass
    1, that is where mean_on_rounds < 1 / (1 - pi), the mean on-run is raised to 1 / (1 - pi): independent coins.

    Attributes:
        pi: P(available) per client.
        mean_on_rounds: mean length of an on-run per client, in rounds, at least 1.
        stability: the lag-1 autocorrelation, in [0, 1), in place of mean_on_rounds; exactly one of the two counts,
            so with it mean_on_rounds is left out.
    """

    source: ClassVar[str] = "Gilbert, Bell Syst. Tech. J. 1960; Elliott, Bell Syst. Tech. J. 1963"

    pi: PerClient = "beta(1,2)"
    mean_on_rounds: PerClient = DEFAULT_MEAN_ON
    stability: float | None = None

    def __post_init__(self) -> None:
        if self.stability is None:
            return
        renewal_of(self.stability)
        if self.mean_on_rounds != DEFAULT_MEAN_ON:
            raise ConfigError(
                f"availability has both mean_on_rounds = {self.mean_on_rounds} and stability = {self.stability:g}: "
                "give one of the two"
            )

    def bind(self, world: World) -> CoinProcess:
        """Return the process with coins kept between renewals."""
        pi = stationary(self.pi, world.num_clients, world.seed)
        coins = KeptCoins(fresh_coins(world), self._renewal(pi, world))
        return CoinProcess(coins, constant(pi), world.interval_s)

    def _renewal(self, pi: FloatArray, world: World) -> FloatArray:
        if self.stability is not None:
            return np.full(world.num_clients, renewal_of(self.stability))
        mean_on = per_client("availability.mean_on_rounds", self.mean_on_rounds, world.num_clients, world.seed)
        wrong = mean_on[mean_on < 1]
        if len(wrong):
            raise ConfigError(f"availability.mean_on_rounds holds {wrong[0]:g}: give at least 1 round")
        return 1.0 / np.maximum(mean_on * (1.0 - pi), 1.0)
