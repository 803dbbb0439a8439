"""Independent coins."""

from dataclasses import dataclass
from typing import ClassVar

from parityfl.core.availability.base import AvailabilityModel, availability, stationary
from parityfl.core.availability.coins import CoinProcess, constant, fresh_coins
from parityfl.core.distributions import PerClient
from parityfl.core.types import World


@availability("bernoulli")
@dataclass(frozen=True)
class Bernoulli(AvailabilityModel):
    """Each client is available with probability pi_k, independently over clients and rounds.

    Gu et al. let pi_k rise with the client's smallest label, as `label-correlated` with `rare_labels` and an amplitude
    of 0 nearly does.

    Attributes:
        pi: P(available) per client.
    """

    source: ClassVar[str] = "independent arrivals as in Gu et al., NeurIPS 2021 (MIFA)"

    pi: PerClient = "beta(1,2)"

    def bind(self, world: World) -> CoinProcess:
        """Return the process with one fresh coin per client and slot."""
        pi = stationary(self.pi, world.num_clients, world.seed)
        return CoinProcess(fresh_coins(world), constant(pi), world.interval_s)
