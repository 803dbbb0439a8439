"""Checks of the configuration keys that the rules share."""

from math import inf

from parityfl.core.errors import ConfigError


def at_least(key: str, value: float, low: float) -> None:
    """Raise ConfigError unless `value` is finite and `low` or more."""
    if not low <= value < inf:
        raise ConfigError(f"aggregator.{key} = {value:g} must be at least {low:g} and finite")


def above(key: str, value: float, low: float) -> None:
    """Raise ConfigError unless `value` is finite and more than `low`."""
    if not low < value < inf:
        raise ConfigError(f"aggregator.{key} = {value:g} must be above {low:g} and finite")


def between(key: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"aggregator.{key} = {value:g} must be from {low:g} to {high:g}")


def at_least_below(key: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless ``low <= value < high``."""
    if not low <= value < high:
        raise ConfigError(f"aggregator.{key} = {value:g} must be at least {low:g} and below {high:g}")
