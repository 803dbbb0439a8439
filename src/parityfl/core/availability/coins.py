"""Coins: a client is available in a time slot when its coin, uniform in [0, 1), falls below its probability.

Every synthetic model is made of two parts: how coins depend on each other over time and across clients, and how the
probability moves. Whatever the coins' dependence, each one alone is uniform, so P(available) is exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parityfl.core.keys import require
from parityfl.core.seeding import uniforms
from parityfl.core.types import BoolArray, FloatArray, World

Coins = Callable[[int], FloatArray]
"""From a slot to one coin per client, shape (N,)."""


def slot_at(time_s: float, interval_s: float) -> int:
    """Return the slot that holds `time_s`, floor(time_s / interval_s).

    A time that is a whole number of intervals but for rounding belongs to the slot that it begins.
    """
    slots = time_s / interval_s
    nearest = round(slots)
    return nearest if abs(slots - nearest) <= 1e-9 * max(1, nearest) else math.floor(slots)


def fresh_coins(world: World, purpose: str = "availability") -> Coins:
    """Return coins that are independent over clients and slots."""
    return lambda slot: uniforms(world.seed, purpose, slot, world.num_clients)


class KeptCoins:
    """Coins that a client throws anew in a slot with probability `renewal`, and keeps otherwise.

    Slot 0 always throws. The coin of a slot is the one of its last renewal, which is looked for backwards, so the
    answer depends on the slot alone; the last answer is remembered only to cut the search of a forward walk short.

    Args:
        thrown: the numbers behind the coins.
        renewal: each client's probability of renewal, in (0, 1], shape (N,).
        deciding: numbers of their own that decide who renews, where u < renewal; None: the number u behind the coin
            decides as well, and u / renewal is then uniform again.
    """

    def __init__(self, thrown: Coins, renewal: FloatArray, deciding: Coins | None = None) -> None:
        self._thrown = thrown
        self._renewal = renewal
        self._deciding = deciding
        self._remembered: tuple[int, FloatArray] = (0, thrown(0))

    def __call__(self, slot: int) -> FloatArray:
        """Return the coins of `slot`, shape (N,)."""
        start, coins = self._known_before(slot)
        coins = coins.copy()
        searched = np.ones(len(coins), dtype=np.bool_)
        for earlier in range(slot, start, -1):
            renews, thrown = self._renewed(earlier)
            renews &= searched
            coins[renews] = thrown[renews]
            searched &= ~renews
            if not searched.any():
                break
        self._remembered = (slot, coins)
        return coins

    def _renewed(self, slot: int) -> tuple[BoolArray, FloatArray]:
        """Return who renews in a slot, and the coins of those who do."""
        thrown = self._thrown(slot)
        if self._deciding is None:
            return thrown < self._renewal, thrown / self._renewal
        return self._deciding(slot) < self._renewal, thrown

    def _known_before(self, slot: int) -> tuple[int, FloatArray]:
        remembered = self._remembered
        return remembered if remembered[0] <= slot else (0, self._thrown(0))


@dataclass(frozen=True)
class CoinProcess:
    """Availability by coins.

    Attributes:
        coins: the coins of a slot.
        chance: P(available) of each client in the slot that begins at a time in seconds, shape (N,).
        interval_s: seconds of a slot.
    """

    coins: Coins
    chance: Callable[[float], FloatArray]
    interval_s: float

    def available(self, time_s: float) -> BoolArray:
        """Return whose coin falls below its probability, shape (N,)."""
        slot = slot_at(time_s, self.interval_s)
        return self.coins(slot) < self.chance(slot * self.interval_s)

    def probability(self, time_s: float) -> FloatArray:
        """Return the exact P(available) in the slot of `time_s`, shape (N,)."""
        return self.chance(slot_at(time_s, self.interval_s) * self.interval_s).copy()


def kept_coins(coins: Coins, stability: float, num_clients: int, deciding: Coins | None = None) -> Coins:
    """Return coins that everybody keeps from one slot to the next with probability `stability`; see `KeptCoins`."""
    if stability == 0:
        return coins
    return KeptCoins(coins, np.full(num_clients, renewal_of(stability)), deciding)


def constant(chance: FloatArray) -> Callable[[float], FloatArray]:
    """Return a probability that does not move with time."""
    return lambda _: chance


def renewal_of(stability: float) -> float:
    """Return the probability of renewal 1 - stability.

    Raises:
        ConfigError: `stability` is not in [0, 1).
    """
    remedy = "give at least 0 (independent slots) and less than 1 (frozen)"
    require(0 <= stability < 1, "availability.stability", stability, remedy)
    return 1.0 - stability
