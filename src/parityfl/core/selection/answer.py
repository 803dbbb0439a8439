"""What is wrong with a selector's answer, if anything: a plug-in's mistake must not reach the ledger."""

import numpy as np

from parityfl.core.types import BoolArray, FloatArray, IntArray, Selection, View

_ROUNDING = 1e-6
"""By how much the sum of probabilities may be off, per client selected."""


def selection_fault(answer: Selection, view: View) -> str:
    """Return what keeps an answer from being a valid `Selection`, '' where it is one.

    Args:
        answer: what a selector returned, whatever it is.
        view: what it was asked.
    """
    if not isinstance(answer, Selection):
        return f"{type(answer).__name__} is no Selection"
    there = np.zeros(view.world.num_clients, dtype=bool)
    there[view.available] = True
    fault = _clients_fault(np.asarray(answer.clients), view, there)
    if fault or answer.probability is None:
        return fault
    return _probability_fault(np.asarray(answer.probability), len(answer.clients), there)


def _clients_fault(clients: IntArray, view: View, there: BoolArray) -> str:
    if clients.ndim != 1:
        return f"clients have shape {clients.shape}, not (count,)"
    if np.any(np.diff(clients) <= 0):
        return f"{clients} is not ascending and distinct"
    strangers = [client for client in clients.tolist() if not (0 <= client < len(there) and there[client])]
    if strangers:
        return f"{strangers} are not among the available {view.available}"
    if len(clients) > view.count:
        return f"{len(clients)} clients where {view.count} were asked for"
    return ""


def _probability_fault(probability: FloatArray, count: int, there: BoolArray) -> str:
    if probability.shape != there.shape:
        return f"probability has shape {probability.shape}, not {there.shape}"
    if not (probability.min() >= 0 and probability.max() <= 1 + _ROUNDING):  # nan is neither
        return f"probabilities outside [0, 1]: {probability}"
    if np.any((probability != 0) & ~there):
        return f"unavailable clients have a probability: {probability[~there]}"
    total = float(probability.sum())
    if abs(total - count) > _ROUNDING * max(1, count):
        return f"probabilities sum to {total}, but {count} clients were selected"
    return ""
