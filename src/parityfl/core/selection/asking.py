"""A selector asked and its answers checked: one of another package that raises or answers wrongly is named.

Every function raises `PartError` then. What is raised in a rule that ships passes as it is.
"""

from collections.abc import Mapping

import numpy as np

from parityfl.core.answers import notes_fault, state_fault
from parityfl.core.ledger import RoundRecord
from parityfl.core.sealing import sealed
from parityfl.core.selection.answer import selection_fault
from parityfl.core.selection.base import Selector, selector
from parityfl.core.types import Selection, State, View, World


def first_state(rule: Selector, world: World) -> State:
    """Return the state before the first round."""
    with selector.blaming(rule, "init()"):
        state = rule.init(world)
    selector.require(rule, "init()", state_fault(state))
    return state


def selection(rule: Selector, state: State, view: View, rng: np.random.Generator) -> Selection:
    """Return whom the rule selects of those in view."""
    where = f"round {view.round}"
    with selector.blaming(rule, where):
        chosen = rule.select(state, view, rng)
        fault = selection_fault(chosen, view, may_idle=rule.may_idle)
    selector.require(rule, where, fault)
    return chosen


def next_state(rule: Selector, state: State, record: RoundRecord, world: World) -> State:
    """Return the state after a round."""
    where = f"round {record.round}"
    with selector.blaming(rule, where):
        after = rule.observe(state, sealed(record), world)
    selector.require(rule, where, state_fault(after))
    return after


def noted(rule: Selector, state: State) -> Mapping[str, float]:
    """Return the figures that the rule has for the summary."""
    with selector.blaming(rule, "notes()"):
        notes = rule.notes(state)
    selector.require(rule, "notes()", notes_fault(notes))
    return notes
