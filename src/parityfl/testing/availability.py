"""The contract of an availability model, as a check that any model can be put through."""

from dataclasses import replace

import numpy as np

from parityfl.core.availability.answer import availability_fault, probability_fault, process_fault
from parityfl.core.availability.base import AvailabilityModel
from parityfl.core.types import AvailabilityProcess, BoolArray, FloatArray, World

SLOTS = (0, 1, 2, 3, 5, 8, 21, 22, 40)
"""Slots in which the answers are compared."""

SEEDS = 1000
"""Seeds over which frequencies are taken."""

STANDARD_ERRORS = 5.0
"""How far a frequency may be from its probability."""


def check_availability(model: AvailabilityModel, world: World | None = None) -> None:
    """Put a model through the contract that the engine relies on.

    Answers are boolean arrays of shape (N,), a pure function of the time: the same in any order of calls, from two
    separate binds, and after a caller has written into an array it was given. Probabilities, where there are any, are
    in [0, 1] or nan. Over many seeds each client is as often available as its probability says, with any dependence
    over time and across clients; a model that replays a recording is the same for every seed and is not counted. What
    the model raises passes as it is.

    Args:
        model: the model, with its keys.
        world: whom it is bound to; by default six clients with different amounts of data and labels.

    Raises:
        AssertionError: the model breaks the contract; the message says where and how.
    """
    world = example_world() if world is None else world
    check_purity(model, world)
    check_probability(model, world)
    if not model.recorded:
        check_frequency(model, world)


def example_world(num_clients: int = 6, seed: int = 0) -> World:
    """Return a population whose client k has 10 (k + 1) examples, of the labels k and k + 1 modulo 4 alike."""
    counts = np.zeros((num_clients, 4), dtype=np.int64)
    clients = np.arange(num_clients)
    for label in (clients % 4, (clients + 1) % 4):
        counts[clients, label] += 5 * (clients + 1)
    return World(
        seed=seed,
        num_clients=num_clients,
        per_round=2,
        interval_s=600.0,
        num_samples=counts.sum(axis=1),
        label_counts=counts,
    )


def check_purity(model: AvailabilityModel, world: World) -> None:
    """Assert that the answers depend on the time alone."""
    times = [slot * world.interval_s for slot in SLOTS]
    first = _bind(model, world)
    answers = {time_s: _answers(first, time_s, world) for time_s in times}
    for order in (times[::-1], times[::2] + times[1::2], times[:1] * 2):
        for name, process in (("the same process", first), ("a second bind", _bind(model, world))):
            for time_s in order:
                again = _answers(process, time_s, world)
                for what, before, now in zip(("available", "probability"), answers[time_s], again, strict=True):
                    assert np.array_equal(now, before, equal_nan=True), (
                        f"{model}, {what}, is not a pure function of time: at {time_s} s it said {before}, and {now} "
                        f"when {name} was asked in the order {order}"
                    )


def check_probability(model: AvailabilityModel, world: World) -> None:
    """Assert that the probabilities are probabilities, and that nobody contradicts 0 or 1."""
    process, told, known = _bind(model, world), 0, 0
    for slot in SLOTS:
        time_s = slot * world.interval_s
        probability = process.probability(time_s)
        fault = probability_fault(probability, world.num_clients)
        assert not fault, f"{model}, at {time_s} s: {fault}"
        if probability is None:
            continue
        told, known = told + 1, known + int(np.sum(np.isfinite(probability)))
        available = _answer(process, time_s, world)
        assert not np.any(available & (probability == 0)), f"{model}: a client of probability 0 is available"
        assert not np.any(~available & (probability == 1)), f"{model}: a client of probability 1 is not available"
    assert known or not told, (
        f"{model}: probability() is nan for everybody at all times; return None where it is unknown"
    )


def check_frequency(model: AvailabilityModel, world: World) -> None:
    """Assert that each client is as often available as its probability says.

    Every seed is asked for one slot only, so that the answers counted are independent however long the model's bursts
    are: the number available has mean sum p and variance sum p (1 - p).
    """
    available, probability = np.array([_sample(model, replace(world, seed=seed)) for seed in range(SEEDS)]).swapaxes(
        0, 1
    )
    excess = np.nansum(available - probability, axis=0)
    allowed = STANDARD_ERRORS * np.sqrt(np.nansum(probability * (1 - probability), axis=0)) + 1e-9
    wrong = np.flatnonzero(np.abs(excess) > allowed)
    assert len(wrong) == 0, (
        f"{model}: client {wrong[0]} is available {excess[wrong[0]]:+.0f} times more than its probabilities say over "
        f"{SEEDS} seeds, and chance explains {allowed[wrong[0]]:.0f}"
    )


def _sample(model: AvailabilityModel, world: World) -> tuple[FloatArray, FloatArray]:
    """Return who is available, and with what probability, in one slot of one seed."""
    process, time_s = _bind(model, world), SLOTS[world.seed % len(SLOTS)] * world.interval_s
    probability = replace(world, availability=process).true_availability(time_s)
    return process.available(time_s).astype(np.float64), probability


def _bind(model: AvailabilityModel, world: World) -> AvailabilityProcess:
    process = model.bind(world)
    fault = process_fault(process)
    assert not fault, f"{model}: {fault}"
    return process


def _answers(process: AvailabilityProcess, time_s: float, world: World) -> tuple[BoolArray, FloatArray]:
    """Return copies of who is available and with what probability, nan where unknown, and spoil both answers."""
    probability = process.probability(time_s)
    fault = probability_fault(probability, world.num_clients)
    assert not fault, f"at {time_s} s: {fault}"
    told = np.full(world.num_clients, np.nan) if probability is None else probability.copy()
    if probability is not None and probability.flags.writeable:
        probability -= 1
    return _answer(process, time_s, world), told


def _answer(process: AvailabilityProcess, time_s: float, world: World) -> BoolArray:
    """Return a copy of the answer, after checking its form and spoiling what the process may have kept of it."""
    answer = process.available(time_s)
    fault = availability_fault(answer, world.num_clients)
    assert not fault, f"at {time_s} s: {fault}"
    copy = answer.copy()
    if answer.flags.writeable:
        np.logical_not(answer, out=answer)
    return copy
