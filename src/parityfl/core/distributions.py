"""A value per client from a number, a list, or a named distribution such as ``beta(1,2)``."""

import re
from collections.abc import Sequence

import numpy as np

from parityfl.core.errors import ConfigError
from parityfl.core.seeding import generator
from parityfl.core.types import FloatArray

PerClient = float | list[float] | str
"""How a configuration gives a value per client."""

_CALL = re.compile(r"(\w+)\(([^()]*)\)")
_ARITY = {"beta": 2, "uniform": 2, "lognormal": 2, "exponential": 1}


def per_client(key: str, value: PerClient, num_clients: int, seed: int) -> FloatArray:
    """Return one value per client, shape (N,).

    Args:
        key: the configuration key, for messages and as the purpose of the random numbers.
        value: a number for all, a list of N numbers, or one of ``beta(a,b)``, ``uniform(low,high)``,
            ``lognormal(mu,sigma)`` and ``exponential(mean)``.
        num_clients: N.
        seed: the run's seed.

    Raises:
        ConfigError: the list has another length, a value is not finite, or the distribution is not one of these.
    """
    if isinstance(value, str):
        return _draw(key, value, num_clients, seed)
    if isinstance(value, Sequence) and len(value) != num_clients:
        raise ConfigError(f"{key} has {len(value)} values for {num_clients} clients: give one per client")
    given = np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), num_clients))
    if not np.isfinite(given).all():
        raise ConfigError(f"{key} holds {given[~np.isfinite(given)][0]:g}: every value must be a finite number")
    return given


def probabilities(
    key: str, value: PerClient, num_clients: int, seed: int, drawn_from: tuple[float, float] = (0.0, 1.0)
) -> FloatArray:
    """Return a probability per client; what a distribution draws is clipped to `drawn_from`.

    Raises:
        ConfigError: a given value is outside [0, 1].
    """
    drawn = per_client(key, value, num_clients, seed)
    if isinstance(value, str):
        return np.clip(drawn, *drawn_from)
    if not np.all((drawn >= 0) & (drawn <= 1)):
        worst = drawn[~((drawn >= 0) & (drawn <= 1))][0]
        raise ConfigError(f"{key} holds {worst:g}: every value must be between 0 and 1")
    return drawn


def _draw(key: str, text: str, num_clients: int, seed: int) -> FloatArray:
    match = _CALL.fullmatch(text.replace(" ", ""))
    name, arguments = (match[1], match[2].split(",")) if match else ("", [])
    try:
        numbers = [float(argument) for argument in arguments]
    except ValueError:
        numbers = []
    if _ARITY.get(name) != len(numbers):
        raise ConfigError(
            f"{key} = {text!r} is no distribution: use beta(a,b), uniform(low,high), lognormal(mu,sigma) or "
            "exponential(mean), a number, or a list of one number per client"
        )
    try:
        drawn = np.asarray(getattr(generator(seed, key), name)(*numbers, size=num_clients), dtype=np.float64)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{key} = {text!r} cannot be drawn from: {error}") from None
    if not np.isfinite(drawn).all():
        raise ConfigError(f"{key} = {text!r} draws values that are not finite: give finite, moderate numbers")
    return drawn
