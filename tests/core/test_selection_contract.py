"""Every registered selector keeps the contract, and the check notices selectors that do not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from simulate import view_of

from parityfl.core.ledger import COMPLETED, Ledger, account
from parityfl.core.seeding import generator
from parityfl.core.selection import Selector, selector
from parityfl.core.selection.index import IndexSelector
from parityfl.core.selection.uniform import Uniform
from parityfl.testing.selection import check_selector, closed_round, small_world

VARIANTS = {
    "inverse-availability": [{"mode": "top-m"}],
    "lnu": [
        {"mode": "deterministic", "parity": "utility"},
        {"parity": "utility", "half_life": 5.0, "strict": 0.1},
        {"parity": "selection", "half_life": 5.0},
    ],
}
BY_THE_CLOCK_OF_THE_RUN = {
    "oort": "its exploration and its staleness bonus, sqrt(.1 log t / last round), are published as functions of the "
    "round, the same for all clients of the same history, whenever they registered"
}
RULES = [(name, keys) for name in selector.names() for keys in [{}, *VARIANTS.get(name, [])]]


@pytest.mark.parametrize("name", selector.names())
def test_registered_selector_keeps_the_contract(name):
    check_selector(selector.get(name)())


def joining(rule, wait):
    """Let clients 3, 4 and 5 of six register after so many rounds without anybody, and only them come from then on.

    Return the indices (where there are any), choices and probabilities of the first twelve rounds to which they come.
    """
    world = replace(small_world((0.5,) * 6, 1), num_samples=np.array([10, 10, 10, 10, 11, 12]))
    late, state, ledger, told = np.arange(6) >= 3, rule.init(world), Ledger.empty(6), []
    for number in range(1 - wait, 13):
        drawn = generator(0, "arrivals", number).random(6) < 0.7 if number > 0 else np.zeros(6)
        available = late & drawn.astype(bool)
        view, outcome = view_of(world, np.flatnonzero(available), number + wait, ledger=ledger), np.zeros(6, dtype=int)
        if available.any():
            index = rule.index(state, view) if isinstance(rule, IndexSelector) else None
            selection = rule.select(state, view, generator(0, "joining", number))
            told.append((index, selection.clients, selection.probability))
            outcome[selection.clients] = COMPLETED
        gain = np.where(outcome > 0, generator(0, "gains", abs(number)).uniform(-0.3, 1.0, 6), 0.0)
        record = replace(
            closed_round(view, available, outcome, gain),
            registered=~late | (number > 0),
            train_loss=np.where(outcome > 0, 1 - gain, np.nan),
            local_gain=np.where(outcome > 0, gain, np.nan),
        )
        state, ledger = rule.observe(state, record, world), account(ledger, record)
    return told


@pytest.mark.parametrize(("name", "keys"), [rule for rule in RULES if rule[0] not in BY_THE_CLOCK_OF_THE_RUN])
def test_rounds_before_a_client_registers_do_not_count(name, keys):
    """Late-comers are chosen, and for the same reasons, as if the run had begun when they registered."""
    rule = selector.get(name)(**keys)
    waited, at_once = joining(rule, 300), joining(rule, 0)
    assert len(waited) == len(at_once) > 8
    for one, other in zip(waited, at_once, strict=True):
        for got, want in zip(one, other, strict=True):
            assert (got is None) == (want is None)
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", BY_THE_CLOCK_OF_THE_RUN)
def test_when_a_client_registered_is_nothing_to_rules_by_the_clock_of_the_run(name):
    """Two clients took part in round 8, two never: who of each two registered first changes no probability."""
    world, rule = small_world((0.5,) * 4, 2), selector.get(name)()
    last = np.array([8, 8, 0, 0])
    seen = {"train_loss": np.array([1.0, 2.0, np.nan, np.nan]), "last_participated": last, "last_selected": last}
    seen["selected"] = np.minimum(last, 1)
    answers = [
        rule.select(
            rule.init(world),
            view_of(
                world, range(4), 10, ledger=replace(Ledger.empty(4), rounds=9, first_round=np.array(first), **seen)
            ),
            generator(0, "clock"),
        ).probability
        for first in ([1, 8, 1, 9], [8, 1, 9, 1])
    ]
    np.testing.assert_array_equal(*answers)


def test_any_world_can_be_given():
    check_selector(Uniform(), replace(small_world((0.4, 0.6), 1), availability=None))


@dataclass(frozen=True)
class Broken(Selector):
    """Uniform selection with one fault."""

    fault: str

    def init(self, world):
        return {"counter": [0] if self.fault == "list state" else np.zeros(2)}

    def select(self, state, view, rng):
        honest = Uniform().select(state, view, rng)
        clients, probability = honest.clients, honest.probability
        if self.fault == "changes state":
            state["counter"] += 1
        if self.fault == "changes ledger":
            view.ledger.available[:] += 1
        if self.fault == "tuple":
            return clients, probability
        if self.fault == "bare array":
            return clients
        unseeded, first = np.random.default_rng(), view.available[: view.count]
        faults = {
            "own randomness": lambda: (np.sort(unseeded.permutation(view.available)[: view.count]), probability),
            "descending": lambda: (clients[::-1], probability),
            "stranger": lambda: (np.arange(view.world.num_clients)[: view.count], probability),
            "idle": lambda: (clients[1:], probability),
            "too small": lambda: (clients, probability / 2),
            "greedy": lambda: (first, probability),
            "no chance": lambda: (first, np.isin(np.arange(view.world.num_clients), first).astype(float)),
            "untold": lambda: (clients, None),
            "short": lambda: (clients, probability[1:]),
            "list": lambda: (clients.tolist(), probability),
            "floats": lambda: (clients.astype(float), probability),
            "text": lambda: (clients.astype(str), probability),
            "list of probabilities": lambda: (clients, probability.tolist()),
            "nan": lambda: (clients, np.full_like(probability, np.nan)),
        }
        return replace(honest, **dict(zip(("clients", "probability"), faults.get(self.fault, tuple)(), strict=False)))

    def observe(self, state, record, world):
        if self.fault == "observes in place":
            state["counter"] += 1
        if self.fault == "forgets":
            return None
        return {"counter": np.full(2, np.nan)} if self.fault == "nan state" else state

    def notes(self, state):
        return {"text notes": {"rate": "high"}, "no notes": None}.get(self.fault, {"rate": np.float32(0.5)})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("list state", "not an array"),
        ("nan state", "not finite"),
        ("changes state", "select, state: changed 'counter'"),
        ("changes ledger", "select, ledger: changed"),
        ("observes in place", "observe, state: changed 'counter'"),
        ("own randomness", "two answers"),
        ("descending", "not ascending"),
        ("stranger", "not among the available"),
        ("idle", "`may_idle` is False"),
        ("too small", "sum to"),
        ("greedy", "are drawn"),
        ("no chance", "are available with probability 0; `positive` is True"),
        ("untold", "no probabilities; `has_probability` is True"),
        ("short", "shape"),
        ("tuple", "select: tuple is no Selection"),
        ("bare array", "select: ndarray is no Selection"),
        ("list", "clients is a list, not an array"),
        ("floats", "clients is float64, not int64"),
        ("text", "clients is <U21, not int64"),
        ("list of probabilities", "probability is a list, not an array"),
        ("nan", r"probabilities outside \[0, 1\]"),
        ("forgets", r"observe \(round 1\): the state is a NoneType, not named arrays"),
        ("text notes", "notes: note 'rate' is 'high', not a number"),
        ("no notes", "notes: the notes are a NoneType"),
    ],
)
def test_the_check_notices(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_selector(Broken(fault))


def test_the_check_passes_what_is_not_broken_and_what_the_selector_raises():
    check_selector(Broken("none"))

    class Raises(Uniform):
        def notes(self, state):
            raise KeyError("rate")

    with pytest.raises(KeyError, match="rate"):
        check_selector(Raises())
