"""What is wrong with an availability model's answers, if anything: a plug-in's mistake must not reach the ledger."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from parityfl.core.answers import array_fault, shown
from parityfl.core.availability.base import AvailabilityModel, availability
from parityfl.core.blame import ships
from parityfl.core.types import AvailabilityProcess, BoolArray, FloatArray, World

A = TypeVar("A")


def availability_fault(answer: Any, num_clients: int) -> str:
    """Return what keeps an answer of `available` from being one bool a client, '' where it is."""
    return array_fault("available()", answer, (num_clients,), np.bool_)


def probability_fault(answer: Any, num_clients: int) -> str:
    """Return what keeps an answer of `probability` from being None, or a probability or nan a client, or ''."""
    if answer is None:
        return ""
    fault = array_fault("probability()", answer, (num_clients,), np.float64)
    if fault:
        return fault
    outside = answer[(answer < 0) | (answer > 1)]
    return f"probability() has {shown(outside)}, outside [0, 1]" if len(outside) else ""


def process_fault(process: Any) -> str:
    """Return what keeps an answer of `bind` from being an `AvailabilityProcess`, '' where it is one."""
    missing = [name for name in ("available", "probability") if not callable(getattr(process, name, None))]
    return f"bind() returned a {type(process).__name__}, which has no method {missing[0]}()" if missing else ""


def bind(model: AvailabilityModel, world: World) -> AvailabilityProcess:
    """Return the process that the population of `world` follows; that of another package has every answer checked.

    Raises:
        ConfigError: the model does not fit the population.
        PartError: the model is one of another package and raised, or returned no process.
    """
    if ships(type(model)):
        return model.bind(world)
    process = availability.asked(model, "bind()", lambda: model.bind(world), process_fault)
    return CheckedProcess(model, process, world.num_clients)


@dataclass(frozen=True)
class CheckedProcess:
    """A process of another package whose answers are checked. Implements `AvailabilityProcess`.

    Attributes:
        model: whose it is.
        process: who answers.
        num_clients: N.
    """

    model: AvailabilityModel
    process: AvailabilityProcess
    num_clients: int

    def available(self, time_s: float) -> BoolArray:
        """Return who is available, shape (N,).

        Raises:
            PartError: the process raised, or its answer is none.
        """
        return self._asked(time_s, self.process.available, availability_fault)

    def probability(self, time_s: float) -> FloatArray | None:
        """Return the true P(available) of each client, shape (N,), or None where it is unknown.

        Raises:
            PartError: the process raised, or its answer is none.
        """
        return self._asked(time_s, self.process.probability, probability_fault)

    def _asked(self, time_s: float, ask: Callable[[float], A], fault: Callable[[Any, int], str]) -> A:
        where = f"at {time_s:g} s"
        return availability.asked(
            self.model, where, lambda: ask(time_s), lambda answer: fault(answer, self.num_clients)
        )
