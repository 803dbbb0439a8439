"""Checks of configuration keys, such as ``aggregator.gamma``; the message names the key, the value and the remedy."""

from math import inf
from typing import get_args

from parityfl.core.errors import ConfigError


def at_least(key: str, value: float, low: float) -> None:
    """Raise ConfigError unless `value` is finite and `low` or more."""
    if not low <= value < inf:
        raise ConfigError(f"{key} = {value:g} must be at least {low:g} and finite")


def above(key: str, value: float, low: float) -> None:
    """Raise ConfigError unless `value` is finite and more than `low`."""
    if not low < value < inf:
        raise ConfigError(f"{key} = {value:g} must be above {low:g} and finite")


def between(key: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"{key} = {value:g} must be from {low:g} to {high:g}")


def at_least_below(key: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless ``low <= value < high``."""
    if not low <= value < high:
        raise ConfigError(f"{key} = {value:g} must be at least {low:g} and below {high:g}")


def require(holds: bool, key: str, value: object, remedy: str) -> None:
    """Raise ConfigError unless the check of `value` holds."""
    if not holds:
        raise ConfigError(f"{key} = {value!r}: {remedy}")


def one_of(key: str, value: str, literal: object) -> None:
    """Raise ConfigError unless `value` is one of the texts of a ``Literal``."""
    choices = get_args(literal)
    require(value in choices, key, value, f"choose one of {', '.join(choices)}")
