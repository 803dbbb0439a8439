"""What is wrong with a selector's answer, if anything: a plug-in's mistake must not reach the ledger."""

from typing import Any

import numpy as np

from parityfl.core.answers import array_fault, shown
from parityfl.core.types import BoolArray, FloatArray, IntArray, Selection, View

_ROUNDING = 1e-6
"""By how much the sum of probabilities may be off, per client selected."""


def selection_fault(answer: Any, view: View, *, may_idle: bool) -> str:
    """Return what keeps an answer from being a valid `Selection`, '' where it is one.

    Args:
        answer: what a selector returned, whatever it is.
        view: what it was asked.
        may_idle: whether the selector says that it may leave slots empty.
    """
    if not isinstance(answer, Selection):
        return f"{type(answer).__name__} is no Selection"
    there = np.zeros(view.world.num_clients, dtype=bool)
    there[view.available] = True
    fault = _clients_fault(answer.clients, view, there)
    if not fault and len(answer.clients) < view.count and not may_idle:
        fault = f"{len(answer.clients)} clients where {view.count} were asked for, and `may_idle` is False"
    if fault or answer.probability is None:
        return fault
    return _probability_fault(answer.probability, answer.clients, there)


def _clients_fault(clients: IntArray, view: View, there: BoolArray) -> str:
    counted = isinstance(clients, np.ndarray) and clients.ndim == 1
    fault = array_fault("Selection.clients", clients, clients.shape if counted else (view.count,), np.int64)
    if fault:
        return fault
    if np.any(np.diff(clients) <= 0):
        return f"the clients {shown(clients)} are not ascending and distinct"
    strangers = [client for client in clients.tolist() if not (0 <= client < len(there) and there[client])]
    if strangers:
        return f"the clients {shown(strangers)} are not among the available {shown(view.available)}"
    if len(clients) > view.count:
        return f"{len(clients)} clients where {view.count} were asked for"
    return ""


def _probability_fault(probability: FloatArray, clients: IntArray, there: BoolArray) -> str:
    fault = array_fault("Selection.probability", probability, there.shape, np.float64)
    if fault:
        return fault
    if not (probability.min() >= 0 and probability.max() <= 1 + _ROUNDING):  # nan is neither
        return f"probabilities outside [0, 1]: {shown(probability)}"
    if np.any((probability != 0) & ~there):
        return f"unavailable clients have a probability: {shown(probability[~there])}"
    if np.any(probability[clients] == 0):
        return f"a selected client has probability 0: {shown(probability[clients])}"
    total = float(probability.sum())
    if abs(total - len(clients)) > _ROUNDING * max(1, len(clients)):
        return f"probabilities sum to {total}, but {len(clients)} clients were selected"
    return ""
