"""Clients that come and go together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from parityfl.core.availability.base import AvailabilityModel, availability, stationary
from parityfl.core.availability.coins import CoinProcess, Coins, constant, fresh_coins, kept_coins, renewal_of
from parityfl.core.distributions import PerClient
from parityfl.core.errors import ConfigError
from parityfl.core.keys import require
from parityfl.core.seeding import uniforms
from parityfl.core.types import FloatArray, IntArray, World


@availability("groups")
@dataclass(frozen=True)
class Groups(AvailabilityModel):
    """The members of a group share one coin, as devices behind one router or power supply do.

    In each slot a member uses its group's coin with probability sqrt(correlation), and its own otherwise; two members
    use the same coin with probability `correlation`, and are independent else, so that the correlation of their
    availabilities is exactly `correlation`. Slots are independent unless `stability` keeps what a group has thrown:
    then its members also come and go at the same time, as in an outage that lasts.

    Attributes:
        pi: P(available) per client. Members of a group must agree; from a distribution each group draws one value.
        groups: the groups as lists of client indices; a client in none is alone.
        correlation: of two members' availabilities, in [0, 1].
        stability: probability that a group keeps all its coins from one slot to the next, in [0, 1): the lag-1
            autocorrelation of each client.
    """

    source: ClassVar[str] = "this project"

    pi: PerClient = "beta(1,2)"
    groups: list[list[int]] = field(default_factory=list)
    correlation: float = 1.0
    stability: float = 0.0

    def __post_init__(self) -> None:
        valid = 0 <= self.correlation <= 1
        require(valid, "availability.correlation", self.correlation, "give a value between 0 and 1")
        renewal_of(self.stability)
        times = Counter(client for group in self.groups for client in group)
        twice = [client for client, count in times.items() if count > 1]
        if twice:
            raise ConfigError(f"availability.groups lists client {min(twice)} twice: a client is in one group at most")

    def bind(self, world: World) -> CoinProcess:
        """Return the process with one coin per group and slot."""
        leader = _leaders(self.groups, world.num_clients)
        pi = self._pi(leader, world)
        coins, renewals = _shared_coins(world, leader, self.correlation), fresh_coins(world, "availability renewal")
        kept = kept_coins(coins, self.stability, world.num_clients, lambda slot: renewals(slot)[leader])
        return CoinProcess(kept, constant(pi), world.interval_s)

    def _pi(self, leader: IntArray, world: World) -> FloatArray:
        pi = stationary(self.pi, world.num_clients, world.seed)
        if isinstance(self.pi, str):
            return pi[leader]
        odd = np.flatnonzero(pi != pi[leader])
        if len(odd):
            client, other = int(odd[0]), int(leader[odd[0]])
            raise ConfigError(
                f"availability.pi is {pi[client]:g} for client {client} and {pi[other]:g} for client {other} of the "
                "same group: give the members of a group the same value"
            )
        return pi


def _leaders(groups: Sequence[Sequence[int]], num_clients: int) -> IntArray:
    """Return the smallest index in each client's group, its own where it is alone, shape (N,)."""
    leader = np.arange(num_clients)
    for group in groups:
        outside = [client for client in group if not 0 <= client < num_clients]
        if outside:
            raise ConfigError(
                f"availability.groups names client {outside[0]}: the {num_clients} clients are 0 to {num_clients - 1}"
            )
        leader[list(group)] = min(group, default=0)
    return leader


def _shared_coins(world: World, leader: IntArray, correlation: float) -> Coins:
    own = fresh_coins(world)
    adherence = np.where(np.bincount(leader, minlength=world.num_clients)[leader] > 1, np.sqrt(correlation), 0.0)

    def coins(slot: int) -> FloatArray:
        shared = uniforms(world.seed, "availability group", slot, world.num_clients)[leader]
        joins = uniforms(world.seed, "availability joins", slot, world.num_clients) < adherence
        return np.where(joins, shared, own(slot))

    return coins
