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
    return aggregator.asked(rule, "init()", lambda: rule.init(world, size), state_fault)


def starting_model(rule: Aggregator, state: State, client: int, weights: Vector, number: int) -> Vector:
    """Return the model that a client trains from in round `number`: `weights` itself, or one of its own.

    That is not looked at here: `checked_start` has.
    """
    with aggregator.blaming(rule, f"round {number}"):
        return rule.start(state, client, weights)


def checked_start(rule: Aggregator, state: State, client: int, weights: Vector, number: int) -> Vector:
    """Return the same, once all of it is found to be a model."""

    def fault(model: Vector) -> str:
        return "" if model is weights else start_fault(model, weights)

    return aggregator.asked(rule, f"round {number}", lambda: rule.start(state, client, weights), fault)


def folded(
    rule: Aggregator,
    state: State,
    context: RoundContext,
    updates: Iterator[Update],
    spared: Callable[[Exception], bool] = lambda _: False,
) -> Step:
    """Return what the rule makes of the updates, all of which are read; `spared` tells what is not its fault."""

    def fold() -> Step:
        step = rule.aggregate(state, context, updates)
        for _ in updates:  # a rule that does not read to the end must not leave replies behind
            pass
        return step

    return aggregator.asked(rule, f"round {context.round}", fold, lambda step: step_fault(step, context), spared)
