"""All that a run carries from one round to the next, and how it becomes a checkpoint and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parityfl.array_files import Arrays
from parityfl.core.ledger import Ledger
from parityfl.core.types import State, Update, Vector
from parityfl.engine.fleet import Late
from parityfl.engine.journal import Checkpoint

LATE_VECTORS = ("delta", "control")


@dataclass(frozen=True)
class RunState:
    """What the next round depends on.

    Attributes:
        ledger: the history.
        weights: the global model, shape (d,).
        average: the server's moving average of it, for evaluation only.
        selector: the selection rule's state.
        aggregator: the aggregation rule's state.
        optimizer: the server optimiser's state.
        control: the server's control variate, or None.
        late: updates that came, or are to come, after their round had closed, by round, client and age.
        deterministic: False once an outcome was decided by what a repetition need not show; see `Reply.reproducible`.
        idle_rounds: rounds in a row without a valid update.
        notes: figures of the aggregation rule, from the last round that gave any.
    """

    ledger: Ledger
    weights: Vector
    average: Vector
    selector: State
    aggregator: State
    optimizer: State
    control: Vector | None
    late: tuple[Late, ...] = ()
    deterministic: bool = True
    idle_rounds: int = 0
    notes: Mapping[str, float] = field(default_factory=dict)

    def arrays(self) -> Arrays:
        """Return everything that is an array, under names with a prefix."""
        control = {} if self.control is None else {"control": self.control}
        return {
            "weights": self.weights,
            "average": self.average,
            **control,
            **_prefixed("ledger", self.ledger.to_arrays()),
            **_prefixed("selector", self.selector),
            **_prefixed("aggregator", self.aggregator),
            **_prefixed("optimizer", self.optimizer),
            **{
                f"late/{i}/{name}": getattr(late.update, name)
                for i, late in enumerate(self.late)
                for name in LATE_VECTORS
                if getattr(late.update, name) is not None
            },
        }

    def document(self) -> dict[str, Any]:
        """Return everything that is no array, as JSON values."""
        return {
            "late": [{"enters": late.enters, "update": _figures(late.update)} for late in self.late],
            "deterministic": self.deterministic,
            "idle_rounds": self.idle_rounds,
            "notes": {name: float(value) for name, value in self.notes.items()},
        }

    @staticmethod
    def restore(checkpoint: Checkpoint) -> RunState:
        """Return the state that `arrays` and `document` took apart."""
        arrays, document = checkpoint.arrays, checkpoint.document
        late = tuple(
            Late(_update(late["update"], arrays, f"late/{i}"), late["enters"])
            for i, late in enumerate(document["late"])
        )
        return RunState(
            ledger=Ledger.from_arrays(_under("ledger", arrays)),
            weights=arrays["weights"],
            average=arrays["average"],
            selector=_under("selector", arrays),
            aggregator=_under("aggregator", arrays),
            optimizer=_under("optimizer", arrays),
            control=arrays.get("control"),
            late=late,
            deterministic=document["deterministic"],
            idle_rounds=document["idle_rounds"],
            notes=document["notes"],
        )


def _figures(update: Update) -> dict[str, Any]:
    return {name: value for name, value in vars(update).items() if name not in LATE_VECTORS}


def _update(figures: Mapping[str, Any], arrays: Arrays, prefix: str) -> Update:
    return Update(**{**figures, **{name: arrays.get(f"{prefix}/{name}") for name in LATE_VECTORS}})


def _prefixed(prefix: str, state: State) -> Arrays:
    return {f"{prefix}/{name}": np.asarray(array) for name, array in state.items()}


def _under(prefix: str, arrays: Arrays) -> Arrays:
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
