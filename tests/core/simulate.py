"""A round loop without training, for tests of selectors."""

from dataclasses import dataclass

import numpy as np

from parityfl.core.ledger import COMPLETED, OUTCOME_CODES, Ledger, account
from parityfl.core.seeding import generator
from parityfl.core.types import Outcome, View
from parityfl.testing.selection import closed_round

FAILED = OUTCOME_CODES.index(Outcome.FAILED)


@dataclass(frozen=True)
class Known:
    """A process of which only the truth matters."""

    pi: tuple[float, ...]

    def available(self, time_s):
        return np.ones(len(self.pi), dtype=bool)

    def probability(self, time_s):
        return np.array(self.pi)


@dataclass(frozen=True)
class History:
    """What a simulation ends with."""

    ledger: Ledger
    state: dict

    @property
    def conditional_rate(self):
        return self.ledger.selected / np.maximum(self.ledger.available, 1)


def view_of(world, available, round=1, count=None, ledger=None):
    """Return what a selector sees when `available` (indices) are there."""
    available = np.asarray(available, dtype=np.int64)
    count = min(world.per_round, len(available)) if count is None else count
    ledger = Ledger.empty(world.num_clients) if ledger is None else ledger
    return View(round, (round - 1) * world.interval_s, available, count, ledger, world)


def play_round(selector, world, state, ledger, available, *, credit=1.0, dropouts=()):
    """Play one round with the given arrivals (a mask); return the new state, the new ledger and the selection."""
    view = view_of(world, np.flatnonzero(available), ledger.rounds + 1, ledger=ledger)
    chosen = np.zeros(0, dtype=np.int64)
    if available.any():
        chosen = selector.select(state, view, generator(world.seed, "select", view.round)).clients
    outcome = np.zeros(world.num_clients, dtype=np.int64)
    outcome[chosen] = np.where(np.isin(chosen, dropouts), FAILED, COMPLETED)
    record = closed_round(view, available, outcome, np.where(outcome == COMPLETED, credit, 0.0))
    return selector.observe(state, record, world), account(ledger, record), chosen


def simulate(selector, world, rounds, *, arrivals=None, mu=1.0, dropouts=()):
    """Play `rounds` rounds; `arrivals` is a function from the round to a mask, else the world's availability."""
    state, ledger = selector.init(world), Ledger.empty(world.num_clients)
    arrivals = arrivals or (lambda number: world.availability.available((number - 1) * world.interval_s))
    for number in range(1, rounds + 1):
        state, ledger, _ = play_round(selector, world, state, ledger, arrivals(number), credit=mu, dropouts=dropouts)
    return History(ledger, state)
