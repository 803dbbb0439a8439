"""The contract that every selector keeps, as a check to run over one's own."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace

import numpy as np

from parityfl.core.answers import notes_fault, state_fault
from parityfl.core.availability import Bernoulli
from parityfl.core.ledger import COMPLETED, LATE, OUTCOME_CODES, Ledger, RoundRecord, account
from parityfl.core.seeding import generator, uniforms
from parityfl.core.selection.answer import selection_fault
from parityfl.core.selection.base import Selector
from parityfl.core.types import BoolArray, FloatArray, IntArray, Outcome, Selection, State, View, World

_ROUNDS = 20
_REPEATS = 600
_FAILED = OUTCOME_CODES.index(Outcome.FAILED)


def small_world(pi: tuple[float, ...], per_round: int, seed: int = 0, mu: tuple[float, ...] | None = None) -> World:
    """Return a world of independent coins with one-second rounds, three labels, and unequal shards."""
    size = len(pi)
    labels = np.arange(3) == (np.arange(size) % 3)[:, None]
    num_samples = 10 + np.arange(size, dtype=np.int64)
    bare = World(
        seed=seed,
        num_clients=size,
        per_round=per_round,
        interval_s=1.0,
        num_samples=num_samples,
        label_counts=labels * num_samples[:, None],
        mean_utility=None if mu is None else np.asarray(mu, dtype=np.float64),
    )
    return replace(bare, availability=Bernoulli(list(pi)).bind(bare))


def closed_round(view: View, available: BoolArray, outcome: IntArray, credit: FloatArray) -> RoundRecord:
    """Return the record of a round in which nothing was measured but who came, what became of them, and the credit.

    Args:
        view: what the selector saw, or would have seen had anybody been available.
        available: who was available, shape (N,).
        outcome: `OUTCOME_CODES` positions, 0 for those not selected, shape (N,).
        credit: utility credited, shape (N,).
    """
    return RoundRecord.unmeasured(
        np.full(view.world.num_clients, np.nan),
        round=view.round,
        time_s=view.time_s,
        registered=np.ones(view.world.num_clients, dtype=bool),
        available=available,
        selected=outcome > 0,
        outcome=outcome,
        credit=credit,
    )


def check_selector(selector: Selector, world: World | None = None) -> None:
    """Check that a selector keeps the contract; the same check runs over every selector that ships.

    Plays rounds with everybody, one client and nobody available, with drop-outs and with rounds in which nothing is
    measured, and checks every answer: a distinct, ascending, available choice of the size asked for; inclusion
    probabilities that are consistent, are met by the frequencies and, for a `positive` rule, are never 0; the same
    answer to the same question; nothing changed in place; a state of finite arrays; notes that are numbers. What the
    selector raises passes as it is.

    Args:
        selector: the selector, with its hyper-parameters.
        world: the population to play with; None for three small ones (six clients, one client, all always there).

    Raises:
        AssertionError: the contract is broken; the message says where.
    """
    worlds = [world] if world is not None else _default_worlds()
    for each in worlds:
        _check_in(selector, each)


def _default_worlds() -> list[World]:
    mu = (1.0, 0.5, 2.0, 1.0, 0.3, 1.5)
    return [
        small_world((0.9, 0.6, 0.5, 0.3, 0.2, 0.8), 2, mu=mu),
        small_world((0.7,), 1),
        small_world((1.0, 1.0, 1.0, 1.0), 2),
    ]


def _check_in(selector: Selector, world: World) -> None:
    state, ledger = selector.init(world), Ledger.empty(world.num_clients)
    _check_state(state, "init")
    _check_notes(selector, state)
    for number, available in enumerate(_arrivals(world), start=1):
        view = _view(world, ledger, number, available)
        chosen = np.zeros(0, dtype=np.int64)
        if available.any():
            chosen = _checked_select(selector, state, view).clients
        record = _measured(view, available, chosen)
        state = _checked_observe(selector, state, record, world)
        ledger = account(ledger, record)
    _check_notes(selector, state)
    everybody = np.ones(world.num_clients, dtype=bool)
    for available in (everybody, _coins(world, _ROUNDS + 1)):
        if available.any():
            _check_frequencies(selector, state, _view(world, ledger, _ROUNDS + 1, available))


def _arrivals(world: World) -> Iterator[BoolArray]:
    """Yield who is available in each round: drawn, but for an early round with all, with one and with none."""
    size = world.num_clients
    fixed = {2: np.zeros(size, dtype=bool), 3: np.ones(size, dtype=bool), 4: np.arange(size) == size - 1}
    for number in range(1, _ROUNDS + 1):
        yield fixed.get(number, _coins(world, number))


def _coins(world: World, round: int) -> BoolArray:
    if world.availability is not None:
        return world.availability.available((round - 1) * world.interval_s)
    return uniforms(world.seed, "testing.arrivals", round, world.num_clients) < 0.5


def _view(world: World, ledger: Ledger, round: int, available: BoolArray) -> View:
    indices = np.flatnonzero(available)
    wanted = world.per_round + (round % 5 == 0)  # over-selection asks for more than m
    return View(round, (round - 1) * world.interval_s, indices, min(wanted, len(indices)), ledger, world)


def _measured(view: View, available: BoolArray, chosen: IntArray) -> RoundRecord:
    """Return a record with drop-outs, negative utilities and, every third round, no evaluation."""
    size, rng = view.world.num_clients, generator(view.world.seed, "testing.record", view.round)
    outcome = np.zeros(size, dtype=np.int64)
    fates = np.array([COMPLETED, COMPLETED, COMPLETED, LATE, _FAILED])
    outcome[chosen] = _FAILED if view.round == 6 else rng.choice(fates, size=len(chosen))
    took = outcome == COMPLETED
    loss = rng.uniform(0.1, 3.0, size)
    measured = np.where(view.round % 3 == 0, np.nan, loss)
    return replace(
        closed_round(view, available, outcome, np.where(took, rng.uniform(-0.3, 1.0, size), 0.0)),
        eval_loss=measured,
        eval_accuracy=np.exp(-measured),
        train_loss=np.where(took, loss, np.nan),
        local_gain=np.where(took, rng.uniform(-0.1, 0.5, size), np.nan),
        latency_s=np.where(outcome > 0, rng.exponential(2.0, size), np.nan),
        num_samples=view.world.num_samples.astype(np.float64),
    )


def _checked_select(selector: Selector, state: State, view: View) -> Selection:
    """Select twice with the same numbers; check the answer, and that nothing else changed."""
    before = deepcopy((dict(state), vars(view.ledger)))
    first, second = (_answer(selector, state, view, _rng(view)) for _ in range(2))
    _unchanged(state, before[0], "select, state")
    _unchanged(vars(view.ledger), before[1], "select, ledger")
    same = np.array_equal(first.clients, second.clients) and _equal(first.probability, second.probability)
    assert same, f"select: two answers to the same state, view and generator: {first.clients} and {second.clients}"
    told = first.probability is not None or not selector.has_probability
    assert told, "select: no probabilities; `has_probability` is True"
    if selector.deterministic and first.probability is not None:
        sure = np.all(np.isin(first.probability, (0, 1)))
        assert sure, f"select: deterministic, but with probabilities {first.probability}"
    if selector.positive and not selector.deterministic and first.probability is not None:
        left_out = view.available[first.probability[view.available] == 0]
        assert len(left_out) == 0, f"select: clients {left_out} are available with probability 0; `positive` is True"
    return first


def _answer(selector: Selector, state: State, view: View, rng: np.random.Generator) -> Selection:
    answer = selector.select(state, view, rng)
    fault = selection_fault(answer, view, may_idle=selector.may_idle)
    assert not fault, f"select: {fault}"
    return answer


def _checked_observe(selector: Selector, state: State, record: RoundRecord, world: World) -> State:
    before = deepcopy((dict(state), vars(record)))
    after = selector.observe(state, record, world)
    _unchanged(state, before[0], "observe, state")
    _unchanged(vars(record), before[1], "observe, record")
    _check_state(after, f"observe (round {record.round})")
    assert set(after) == set(state), f"observe: the state's names changed from {sorted(state)} to {sorted(after)}"
    return after


def _check_state(state: State, where: str) -> None:
    fault = state_fault(state)
    assert not fault, f"{where}: {fault}"
    for name, value in state.items():
        assert np.all(np.isfinite(value)), f"{where}: state {name!r} is not finite: {value}"


def _check_notes(selector: Selector, state: State) -> None:
    fault = notes_fault(selector.notes(state))
    assert not fault, f"notes: {fault}"


def _check_frequencies(selector: Selector, state: State, view: View) -> None:
    """Compare how often each client is drawn with its stated probability, at five standard errors."""
    stated = _answer(selector, state, view, _rng(view)).probability
    if stated is None or selector.deterministic:
        return
    drawn = np.zeros(view.world.num_clients)
    for repeat in range(_REPEATS):
        selection = _answer(selector, state, view, generator(view.world.seed, "testing.repeat", view.round, repeat))
        assert _equal(selection.probability, stated), "select: the stated probabilities depend on the draw"
        drawn[selection.clients] += 1
    frequency = drawn / _REPEATS
    tolerance = 5 * np.sqrt(stated * (1 - np.minimum(stated, 1)) / _REPEATS) + 3 / _REPEATS
    far = np.abs(frequency - stated) > tolerance
    assert not far.any(), f"select: clients {np.flatnonzero(far)} are drawn {frequency[far]}, stated is {stated[far]}"


def _unchanged(arrays: Mapping[str, object], before: Mapping[str, object], where: str) -> None:
    for name, value in before.items():
        same = np.array_equal(np.asarray(value), np.asarray(arrays[name]), equal_nan=True)
        assert same, f"{where}: changed {name!r} in place, from {value} to {arrays[name]}"


def _rng(view: View) -> np.random.Generator:
    return generator(view.world.seed, "testing.select", view.round)


def _equal(first: FloatArray | None, second: FloatArray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)
