"""Selection: who shall take part. The interface and the registry."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from parityfl.core.ledger import RoundRecord
from parityfl.core.registry import Registry
from parityfl.core.types import FloatArray, Selection, State, View, World


class Selector(ABC):
    """A selection rule: a frozen dataclass whose fields are its configuration keys.

    `source` names the paper. `deterministic` rules give inclusion probabilities of 0 and 1, with which no update can
    be weighed by its inverse probability; rules without `has_probability` cannot tell any, and rules that are not
    `positive` give none to some who are available. Rules that `may_idle` may select fewer clients than they were asked
    for.
    """

    source: ClassVar[str] = ""
    has_probability: ClassVar[bool] = True

    @property
    def deterministic(self) -> bool:
        """Whether the selection follows from what the selector saw (ties aside)."""
        return False

    @property
    def positive(self) -> bool:
        """Whether all who are available have a chance: else weighing by inverse probabilities leaves some out."""
        return True

    @property
    def may_idle(self) -> bool:
        """Whether the rule may leave slots empty on purpose."""
        return False

    def init(self, world: World) -> State:
        """Return the state before the first round."""
        return {}

    @abstractmethod
    def select(self, state: State, view: View, rng: np.random.Generator) -> Selection:
        """Choose `view.count` of `view.available`; called only when somebody is available. Changes nothing."""

    def observe(self, state: State, record: RoundRecord, world: World) -> State:
        """Return the state after a round, empty rounds included. Changes nothing in place."""
        return state

    def notes(self, state: State) -> Mapping[str, float]:
        """Return figures worth a line in the summary, such as how often something was clipped."""
        return {}


selector: Registry[Selector] = Registry("selector", "parityfl.selectors", Selector)


def floats(state: State, name: str) -> FloatArray:
    """Return an array of the state as float64; not a copy."""
    return np.asarray(state[name], dtype=np.float64)
