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
    return selector.asked(rule, "init()", lambda: rule.init(world), state_fault)


def selection(rule: Selector, state: State, view: View, rng: np.random.Generator) -> Selection:
    """Return whom the rule selects of those in view."""

    def fault(chosen: Selection) -> str:
        return selection_fault(chosen, view, may_idle=rule.may_idle)

    return selector.asked(rule, f"round {view.round}", lambda: rule.select(state, view, rng), fault)


def next_state(rule: Selector, state: State, record: RoundRecord, world: World) -> State:
    """Return the state after a round."""
    shown = sealed(record)
    return selector.asked(rule, f"round {record.round}", lambda: rule.observe(state, shown, world), state_fault)


def noted(rule: Selector, state: State) -> Mapping[str, float]:
    """Return the figures that the rule has for the summary."""
    return selector.asked(rule, "notes()", lambda: rule.notes(state), notes_fault)
