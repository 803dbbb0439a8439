"""The contract of an aggregation rule, as checks that any rule can be put through."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from parityfl.core.aggregation.answer import start_fault, step_fault
from parityfl.core.aggregation.base import Aggregator
from parityfl.core.aggregation.combine import pool
from parityfl.core.answers import state_fault
from parityfl.core.ledger import Ledger
from parityfl.core.seeding import generator
from parityfl.core.types import BoolArray, IntArray, RoundContext, State, Step, Update, Vector, World

SIZE = 12
"""The number of model parameters in the checks."""


@dataclass(frozen=True)
class ExampleRound:
    """The input of a rule in one round."""

    context: RoundContext
    updates: tuple[Update, ...]

    @property
    def participants(self) -> IntArray:
        """Whose updates there are, ascending."""
        return np.array([update.client for update in self.updates], dtype=np.int64)


@dataclass(frozen=True)
class Played:
    """What a rule answered in one round, with a copy of the state it left."""

    step: Step
    state: State


def check_aggregator(aggregator: Aggregator, world: World | None = None) -> None:
    """Put a rule through the contract that the round loop and the journal rely on.

    Directions are finite float32 vectors, None without updates; nothing that was passed in changes, the state aside;
    the state is named arrays of stable shapes and dtypes, from whose copies the rule goes on identically; arrays named
    `row_...` change only in participants' rows; the same input gives the same bytes; renumbering the clients leaves
    the direction as it is, up to rounding; so does adding up updates beforehand, for a rule that says their `weight`.
    What the rule raises passes as it is.

    Args:
        aggregator: the rule, with its keys.
        world: what it is told; by default six clients, three a round.

    Raises:
        AssertionError: the rule breaks the contract; the message says where and how.
    """
    world = example_world() if world is None else world
    rounds = example_rounds(world)
    check_passive(aggregator, world, rounds)
    played = play(aggregator, world, rounds)
    check_directions(played, rounds)
    check_state(aggregator, world, played)
    check_rows(aggregator, world, played, rounds)
    check_deterministic(played, play(aggregator, world, rounds))
    check_resumed(aggregator, played, rounds)
    check_renumbered(aggregator, world, rounds)
    check_pooled(aggregator, world, rounds)


def example_world(num_clients: int = 6) -> World:
    """Return a small population of clients with different numbers of examples."""
    return World(
        seed=0,
        num_clients=num_clients,
        per_round=3,
        interval_s=600.0,
        num_samples=np.arange(num_clients, dtype=np.int64) + 10,
        label_counts=np.zeros((num_clients, 0), dtype=np.int64),
    )


def example_rounds(world: World) -> list[ExampleRound]:
    """Return rounds in which nobody, everybody, one and a few clients take part, and one update comes late.

    The last of several clients registers in round 3.
    """
    everybody, few = range(world.num_clients), range(world.num_clients - world.per_round, world.num_clients)
    groups: list[Sequence[int]] = [[], [0], few, everybody, [], few, [0], everybody]
    first_round = np.where((np.arange(world.num_clients) == world.num_clients - 1) & (world.num_clients > 1), 3, 1)
    rounds = [example_round(world, number, group, first_round) for number, group in enumerate(groups, start=1)]
    late = rounds[-2]
    rounds[-2] = replace(late, updates=tuple(replace(update, staleness=1) for update in late.updates))
    return rounds


def example_round(
    world: World, number: int, participants: Sequence[int], first_round: IntArray | None = None
) -> ExampleRound:
    """Return a round with seeded updates of these participants, all who have registered available and equally likely.

    Args:
        world: the population.
        number: the round's number.
        participants: whose updates there are, ascending.
        first_round: the round in which each client registers, shape (N,); None for round 1.
    """
    rng = generator(world.seed, "example-updates", number)
    deltas = rng.normal(size=(world.num_clients, SIZE)).astype(np.float32)
    losses = rng.uniform(0.5, 3.0, size=world.num_clients)
    updates = [
        Update(k, deltas[k], int(world.num_samples[k]), losses[k], losses[k] + 0.1, losses[k] - 0.1)
        for k in participants
    ]
    first_round = np.ones(world.num_clients, dtype=np.int64) if first_round is None else first_round
    return ExampleRound(_context(world, number, participants, first_round), tuple(updates))


def play(
    aggregator: Aggregator, world: World, rounds: Sequence[ExampleRound], state: State | None = None
) -> list[Played]:
    """Return the rule's answers to the rounds, from its first state or from the one given."""
    state = _first(aggregator, world) if state is None else state
    played = []
    for example in rounds:
        step = _answer(aggregator, state, example)
        state = step.state
        played.append(Played(step, copy_state(state)))
    return played


def _first(aggregator: Aggregator, world: World) -> State:
    state = aggregator.init(world, SIZE)
    fault = state_fault(state)
    assert not fault, f"init: {fault}"
    return state


def _answer(aggregator: Aggregator, state: State, example: ExampleRound) -> Step:
    step = aggregator.aggregate(state, example.context, iter(example.updates))
    fault = step_fault(step, example.context)
    assert not fault, f"{_where(example)}: {fault}"
    return step


def copy_state(state: State) -> State:
    """Return the state with every array copied, as a journal would give it back."""
    return {name: np.array(array) for name, array in state.items()}


def check_passive(aggregator: Aggregator, world: World, rounds: Sequence[ExampleRound]) -> None:
    """Check that `start` and `aggregate` leave the model and the updates as they are."""
    state = _first(aggregator, world)
    for example in rounds:
        weights, deltas = example.context.weights.copy(), [update.delta.copy() for update in example.updates]
        for k in example.participants:
            fault = start_fault(aggregator.start(state, int(k), example.context.weights), weights)
            assert not fault, f"{_where(example)}: {fault}"
        state = _answer(aggregator, state, example).state
        assert np.array_equal(example.context.weights, weights), f"{_where(example)}: context.weights was changed"
        for update, delta in zip(example.updates, deltas, strict=True):
            assert np.array_equal(update.delta, delta), f"{_where(example)}: the delta of {update.client} was changed"


def check_directions(played: Sequence[Played], rounds: Sequence[ExampleRound]) -> None:
    """Check that directions are there and that they and the notes are finite, where they have to be."""
    for answer, example in zip(played, rounds, strict=True):
        step, where = answer.step, _where(example)
        if not example.updates:
            assert step.direction is None, f"{where}: without updates the direction must be None"
        if step.direction is not None:
            assert np.isfinite(step.direction).all(), f"{where}: the direction is not finite"
        for name, value in step.notes.items():
            assert np.isfinite(value), f"{where}: note {name} is {value}"


def check_state(aggregator: Aggregator, world: World, played: Sequence[Played]) -> None:
    """Check that the names, shapes and dtypes of the state's arrays never change."""
    first = _first(aggregator, world)
    for number, answer in enumerate(played, start=1):
        before, after = _signature(first), _signature(answer.state)
        assert before == after, f"round {number}: the state was {before} and became {after}"


def check_rows(aggregator: Aggregator, world: World, played: Sequence[Played], rounds: Sequence[ExampleRound]) -> None:
    """Check that a `row_...` array has a row per client and changes only in participants' rows."""
    before = copy_state(_first(aggregator, world))
    for answer, example in zip(played, rounds, strict=True):
        absent = ~_mask(world.num_clients, example.participants)
        for name, rows in answer.state.items():
            if not name.startswith("row_"):
                continue
            assert len(rows) == world.num_clients, (
                f"state {name!r} has {len(rows)} rows for {world.num_clients} clients"
            )
            changed = np.flatnonzero(absent & np.any(_flat(rows) != _flat(before[name]), axis=1))
            assert not len(changed), (
                f"{_where(example)}: {name!r} changed in rows {changed} of clients without an update"
            )
        before = answer.state


def check_deterministic(first: Sequence[Played], second: Sequence[Played]) -> None:
    """Check that the same input gave the same bytes."""
    for number, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        assert _bytes(one) == _bytes(other), f"round {number}: the same input gave different bytes"


def check_resumed(aggregator: Aggregator, played: Sequence[Played], rounds: Sequence[ExampleRound]) -> None:
    """Check that a rule goes on identically from copies of its state's arrays, wherever it was cut."""
    for cut in range(1, len(rounds)):
        resumed = play(aggregator, rounds[0].context.world, rounds[cut:], copy_state(played[cut - 1].state))
        for number, (one, other) in enumerate(zip(played[cut:], resumed, strict=True), start=cut + 1):
            assert _bytes(one) == _bytes(other), f"resumed after round {cut}, round {number} differs"


def check_renumbered(aggregator: Aggregator, world: World, rounds: Sequence[ExampleRound]) -> None:
    """Check that directions do not depend on how the clients are numbered, up to rounding."""
    order = generator(world.seed, "renumber").permutation(world.num_clients)
    renumbered_world = replace(
        world, num_samples=world.num_samples[order], label_counts=world.label_counts[order], availability=None
    )
    renumbered = [_renumber(example, order, renumbered_world) for example in rounds]
    plain, other = play(aggregator, world, rounds), play(aggregator, renumbered_world, renumbered)
    for example, one, two in zip(rounds, plain, other, strict=True):
        assert _close(one.step.direction, two.step.direction), (
            f"{_where(example)}: the direction depends on how the clients are numbered"
        )


def check_pooled(aggregator: Aggregator, world: World, rounds: Sequence[ExampleRound]) -> None:
    """Check that a rule which says what an update weighs learns the same from their weighted mean, up to rounding."""
    weigh = aggregator.weight
    if weigh is None:
        return
    pooled = [replace(example, updates=tuple(pool(example.updates, weigh, SIZE))) for example in rounds]
    plain, other = play(aggregator, world, rounds), play(aggregator, world, pooled)
    for example, one, two in zip(rounds, plain, other, strict=True):
        assert _close(one.step.direction, two.step.direction), (
            f"{_where(example)}: the direction is not a sum of the updates with what `weight` says"
        )


def _close(one: Vector | None, other: Vector | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.allclose(one, other, rtol=1e-3, atol=1e-4)


def _renumber(example: ExampleRound, order: IntArray, world: World) -> ExampleRound:
    """Give client ``order[i]`` the number i."""
    number = np.argsort(order)
    updates = sorted((replace(u, client=int(number[u.client])) for u in example.updates), key=lambda u: u.client)
    context = example.context
    probability = None if context.probability is None else context.probability[order]
    context = replace(
        context,
        registered=context.registered[order],
        available=context.available[order],
        selected=context.selected[order],
        probability=probability,
        ledger=Ledger.from_arrays({k: a[order] if a.ndim else a for k, a in context.ledger.to_arrays().items()}),
        world=world,
    )
    return ExampleRound(context, tuple(updates))


def _context(world: World, number: int, participants: Sequence[int], first_round: IntArray) -> RoundContext:
    here = first_round <= number
    return RoundContext(
        round=number,
        weights=generator(world.seed, "example-weights", number).normal(size=SIZE).astype(np.float32),
        registered=here,
        available=here,
        selected=_mask(world.num_clients, np.asarray(participants, dtype=np.int64)),
        probability=np.where(here, max(len(participants), 1) / np.sum(here), 0.0),
        ledger=_ledger(first_round, number - 1),
        world=world,
        local_lr=0.1,
        local_epochs=1,
    )


def _ledger(first_round: IntArray, rounds: int) -> Ledger:
    """Return a ledger in which everybody has been there since it registered."""
    here = first_round <= rounds
    return replace(
        Ledger.empty(len(here)),
        rounds=rounds,
        first_round=np.where(here, first_round, 0),
        available=np.where(here, rounds - first_round + 1, 0),
    )


def _signature(state: State) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, str(array.dtype)) for name, array in state.items()}


def _bytes(answer: Played) -> tuple[bytes, ...]:
    direction = b"" if answer.step.direction is None else answer.step.direction.tobytes()
    return direction, *(answer.state[name].tobytes() for name in sorted(answer.state))


def _flat(rows: Vector) -> Vector:
    return rows.reshape(len(rows), -1)


def _mask(num_clients: int, clients: IntArray) -> BoolArray:
    mask = np.zeros(num_clients, dtype=np.bool_)
    mask[clients] = True
    return mask


def _where(example: ExampleRound) -> str:
    return f"round {example.context.round} with {len(example.updates)} updates"
