"""What is wrong with an aggregator's answer, if anything: a plug-in's mistake must not reach the model or the journal.

Whether a direction is finite is not asked here: it is seen from the model that it leads to, which is looked at anyway.
"""

from typing import Any

import numpy as np

from parityfl.core.answers import array_fault, notes_fault, state_fault
from parityfl.core.arrays import all_finite
from parityfl.core.types import RoundContext, Step, Vector


def step_fault(step: Any, context: RoundContext) -> str:
    """Return what keeps an answer from being a valid `Step`, '' where it is one.

    Args:
        step: what an aggregator returned, whatever it is.
        context: what it was told.
    """
    if not isinstance(step, Step):
        return f"{type(step).__name__} is no Step"
    fault = ""
    if step.direction is not None:
        fault = array_fault("Step.direction", step.direction, context.weights.shape, np.float32)
    if not fault and step.client_weight is not None:
        shape = (context.world.num_clients,)
        fault = array_fault("Step.client_weight", step.client_weight, shape, np.float64)
    return fault or state_fault(step.state) or notes_fault(step.notes)


def start_fault(model: Any, weights: Vector) -> str:
    """Return what keeps an answer of `Aggregator.start` from being a finite model like the global one, or ''."""
    what = "the model that start() gives"
    fault = array_fault(what, model, weights.shape, np.float32)
    return fault or ("" if all_finite(model) else f"{what} is not finite")
