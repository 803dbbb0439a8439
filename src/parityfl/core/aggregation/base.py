"""Aggregation: what the server learned from a round's updates. The interface and the registry."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from parityfl.core.aggregation.combine import Weigh
from parityfl.core.keys import between
from parityfl.core.registry import Registry
from parityfl.core.types import LEAST_STEP, MOST_STEP, RoundContext, State, Step, Update, Vector, World


class Aggregator(ABC):
    """An aggregation rule: a frozen dataclass whose fields are its configuration keys, `server_lr` among them.

    Updates arrive as an iterator in client order, while later ones are still on their way: a rule that folds them as
    they come needs memory for one update, whatever the number of clients. `needs_probability` rules divide by
    inclusion probabilities and are refused with a selector that has none.
    """

    source: ClassVar[str] = ""
    server_lr: float

    def __post_init__(self) -> None:
        between("aggregator.server_lr", self.server_lr, LEAST_STEP, MOST_STEP)

    @property
    def needs_probability(self) -> bool:
        """Whether the rule divides by inclusion probabilities."""
        return False

    @property
    def weight(self) -> Weigh | None:
        """What an update weighs, where the rule only adds updates up and weighs each by its own figures.

        Then workers may do so first (see `combine.pool`). None: the rule needs every update, or weighs by its state.
        """
        return None

    def init(self, world: World, size: int) -> State:
        """Return the state before the first round for a model of `size` parameters."""
        return {}

    def start(self, state: State, client: int, weights: Vector) -> Vector:
        """Return the model that `client` trains from in this round: the global one unless a rule says otherwise."""
        return weights

    @abstractmethod
    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Fold the updates into a direction. May change the arrays of `state` in place: the state is handed over."""


aggregator: Registry[Aggregator] = Registry("aggregator", "parityfl.aggregators", Aggregator)
