"""How likely a client was to take part: what the inverse-probability rules divide by. N is the number of clients.

A selector knows p_k = P(selected | available), and the server has seen pi_k, so that p_k pi_k is P(selected). That is
P(takes part) only where whoever is selected delivers: where clients drop out, or late replies are discarded, a client
that delivers a share e_k of its selections counts e_k times as much as it should.
"""

from typing import Literal

import numpy as np

from parityfl.core.errors import ConfigError
from parityfl.core.types import FloatArray, IntArray, RoundContext, State, Update, World

Population = Literal["available", "full"]
"""Whom the weighted participants stand for: those available in the round, or all clients."""


def initial_inverse(world: World) -> dict[str, FloatArray]:
    """Return the state that `remember_selected` keeps, before round 1: N / m, as if all were equally likely."""
    return {"inverse": np.full(world.num_clients, world.num_clients / world.per_round)}


def inverse_probabilities(context: RoundContext, population: Population) -> FloatArray:
    """Return 1 / p_k of this round, or 1 / (p_k pi_k) for the full population; shape (N,).

    p_k is P(selected | available), and a client of p_k = 0 gets 0; pi_k is the share of rounds since its registration
    in which the client was available, this round included.

    Raises:
        ConfigError: the selector gave no probabilities.
    """
    if context.probability is None:
        raise ConfigError(
            f"round {context.round}: the selector has no inclusion probabilities, by which this aggregator divides; "
            "use a selector that has them, or mifa or fedau"
        )
    likely = context.probability * (availability_rates(context) if population == "full" else 1.0)
    return np.divide(1.0, likely, out=np.zeros(len(likely)), where=likely > 0)


def rounds_counted(context: RoundContext, population: Population) -> IntArray:
    """Return rounds since registration or, for the available population, rounds seen available; shape (N,).

    Both include this round.
    """
    ledger = context.ledger
    return ledger.rounds_present + 1 if population == "full" else ledger.available + context.available


def availability_rates(context: RoundContext) -> FloatArray:
    """Return n_k / rounds since registration, this round included, shape (N,)."""
    return np.asarray(rounds_counted(context, "available") / rounds_counted(context, "full"), dtype=np.float64)


def inverse_of(update: Update, state: State, current: FloatArray) -> float:
    """Return 1 / probability of an update: of this round, or for a late one of the client's round before."""
    return float((state["inverse"] if update.staleness else current)[update.client])


def remember_selected(state: State, context: RoundContext, current: FloatArray) -> None:
    """Keep this round's inverse probabilities of those selected, whose updates may come late."""
    state["inverse"][context.selected] = current[context.selected]
