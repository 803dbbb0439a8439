"""What a selector can tell from the ledger about the clients that are available now."""

import numpy as np

from parityfl.core.ledger import Ledger
from parityfl.core.types import FloatArray, IntArray, View


def rounds_registered(view: View) -> IntArray:
    """Return t_k, the rounds since each available client first registered, this one included, 1 or more.

    In the order of ``view.available``; t for those that were there from the start.
    """
    first = view.ledger.first_round[view.available]
    return np.where(first > 0, view.round - first + 1, 1)


def estimated_availability(view: View) -> FloatArray:
    """Return n_k / t_k of each available client, this round included, in (0, 1], in the order of ``view.available``.

    n_k counts the rounds in which the server saw the client available, t_k those since it first registered.
    """
    return (view.ledger.available[view.available] + 1) / rounds_registered(view)


def best_known_availability(view: View) -> FloatArray:
    """Return the true probability that each available client is available now; the estimate where it is unknown."""
    truth = view.world.true_availability(view.time_s)[view.available]
    return np.where(np.isfinite(truth) & (truth > 0), truth, estimated_availability(view))


def or_average(values: FloatArray) -> FloatArray:
    """Return the values, with the mean of those known in place of nan; 1 for all where none is known."""
    known = values[~np.isnan(values)]
    return np.nan_to_num(values, nan=float(known.mean()) if len(known) else 1.0)


def last_known_loss(ledger: Ledger) -> FloatArray:
    """Return each client's last known loss, shape (N,).

    Held-out loss of the global model, else the client's training loss, else its held-out loss of the initial model;
    nan where none was ever measured.
    """
    trained = np.where(np.isnan(ledger.eval_loss), ledger.train_loss, ledger.eval_loss)
    return np.where(np.isnan(trained), ledger.initial_loss, trained)
