"""Availability that follows the time of day."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.availability.base import AvailabilityModel, availability, stationary
from parityfl.core.availability.coins import CoinProcess, fresh_coins, kept_coins, renewal_of
from parityfl.core.availability.cycle import check_cycle, swing, wave
from parityfl.core.distributions import PerClient, per_client, probabilities
from parityfl.core.keys import require
from parityfl.core.seeding import uniforms
from parityfl.core.types import FloatArray, World


@availability("diurnal")
@dataclass(frozen=True)
class Diurnal(AvailabilityModel):
    """Each client's probability is a sinusoid in the time of day around pi_k, with a peak of its own or its zone.

    P_k(t) = pi_k + amplitude_k min(pi_k, 1 - pi_k) cos(2 pi (h(t) - peak_k - zone_k) / period_h) with the hour
    h(t) = start_h + t / 3600, so that it stays in [0, 1] and its mean over a period is exactly pi_k. Coins are
    independent over clients, and over slots too unless `stability` keeps them: P_k(t) is exact either way.

    Ribero et al. (their code, and FLGo after it) take P_k(t) = q_k (0.5 + 0.4 sin 2 pi t / 23), t the round modulo 24,
    q_k lognormal and scaled to a maximum of 1: one peak for all, and a mean of about q_k / 2. Here the mean is the key.

    Attributes:
        pi: mean P(available) over a period, per client.
        amplitude: how much of the room around pi_k the swing takes, per client, in [0, 1].
        peak_h: the hour at which a client of zone 0 is most available, per client.
        time_zones: how many zones, spread evenly over a period; a seeded coin puts each client in one.
        start_h: the hour of the first round.
        period_h: hours of a cycle.
        stability: probability that a client keeps its coin from one slot to the next, in [0, 1); more makes bursts.
    """

    source: ClassVar[str] = "after the sine of Ribero et al., arXiv 2205.06730 (F3AST)"

    pi: PerClient = "beta(1,2)"
    amplitude: PerClient = 0.8
    peak_h: PerClient = 21.0
    time_zones: int = 1
    start_h: float = 0.0
    period_h: float = 24.0
    stability: float = 0.0

    def __post_init__(self) -> None:
        check_cycle(self.start_h, self.period_h)
        renewal_of(self.stability)
        require(self.time_zones >= 1, "availability.time_zones", self.time_zones, "give at least 1")

    def bind(self, world: World) -> CoinProcess:
        """Return the process with each client's mean, swing and peak."""
        clients, seed = world.num_clients, world.seed
        pi = stationary(self.pi, clients, seed)
        swings = swing(pi, probabilities("availability.amplitude", self.amplitude, clients, seed))
        zone = np.floor(uniforms(seed, "time zone", 0, clients) * self.time_zones)
        peak_h = per_client("availability.peak_h", self.peak_h, clients, seed) + zone * self.period_h / self.time_zones

        def chance(time_s: float) -> FloatArray:
            return pi + swings * wave(time_s, self.start_h, peak_h, self.period_h)

        return CoinProcess(kept_coins(fresh_coins(world), self.stability, clients), chance, world.interval_s)
