"""An aggregation rule asked and its answers checked: one of another package that raises or answers wrongly is named.

Every function raises `PartError` then. What is raised in a rule that ships passes as it is.
"""

from collections.abc import Callable, Iterator

from parityfl.core.aggregation.answer import start_fault, step_fault
from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.answers import state_fault
from parityfl.core.types import RoundContext, State, Step, Update, Vector, World


def first_state(rule: Aggregator, world: World, size: int) -> State:
    """Return the state before the first round, for a model of `size` parameters."""
    with aggregator.blaming(rule, "init()"):
        state = rule.init(world, size)
    aggregator.require(rule, "init()", state_fault(state))
    return state


def starting_model(rule: Aggregator, state: State, client: int, weights: Vector, number: int) -> Vector:
    """Return the model that a client trains from in round `number`: `weights` itself, or one of its own."""
    where = f"round {number}"
    with aggregator.blaming(rule, where):
        model = rule.start(state, client, weights)
    if model is not weights:
        aggregator.require(rule, where, start_fault(model, weights))
    return model


def folded(
    rule: Aggregator,
    state: State,
    context: RoundContext,
    updates: Iterator[Update],
    spared: Callable[[Exception], bool] = lambda _: False,
) -> Step:
    """Return what the rule makes of the updates, all of which are read; `spared` tells what is not its fault."""
    where = f"round {context.round}"
    with aggregator.blaming(rule, where, spared):
        step = rule.aggregate(state, context, updates)
    for _ in updates:  # a rule that does not read to the end must not leave replies behind
        pass
    aggregator.require(rule, where, step_fault(step, context))
    return step
