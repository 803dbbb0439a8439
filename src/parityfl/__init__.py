"""Federated learning for clients that come and go, with cumulative utility parity measured over the whole run.

`__all__` is the public API. Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parityfl import testing
    from parityfl.api import Run, load, run
    from parityfl.config import Config
    from parityfl.core.aggregation import Aggregator, aggregator
    from parityfl.core.availability import AvailabilityModel, availability
    from parityfl.core.errors import ConfigError, ParityflError
    from parityfl.core.ledger import Ledger, RoundRecord
    from parityfl.core.selection import Selector, selector
    from parityfl.core.types import AvailabilityProcess, RoundContext, Selection, State, Step, Update, View, World

_HOMES = {
    "Aggregator": "parityfl.core.aggregation",
    "AvailabilityModel": "parityfl.core.availability",
    "AvailabilityProcess": "parityfl.core.types",
    "Config": "parityfl.config",
    "ConfigError": "parityfl.core.errors",
    "Ledger": "parityfl.core.ledger",
    "ParityflError": "parityfl.core.errors",
    "RoundContext": "parityfl.core.types",
    "RoundRecord": "parityfl.core.ledger",
    "Run": "parityfl.api",
    "Selection": "parityfl.core.types",
    "Selector": "parityfl.core.selection",
    "State": "parityfl.core.types",
    "Step": "parityfl.core.types",
    "Update": "parityfl.core.types",
    "View": "parityfl.core.types",
    "World": "parityfl.core.types",
    "aggregator": "parityfl.core.aggregation",
    "availability": "parityfl.core.availability",
    "load": "parityfl.api",
    "run": "parityfl.api",
    "selector": "parityfl.core.selection",
    "testing": "",
}

__all__ = [
    "Aggregator",
    "AvailabilityModel",
    "AvailabilityProcess",
    "Config",
    "ConfigError",
    "Ledger",
    "ParityflError",
    "RoundContext",
    "RoundRecord",
    "Run",
    "Selection",
    "Selector",
    "State",
    "Step",
    "Update",
    "View",
    "World",
    "aggregator",
    "availability",
    "load",
    "run",
    "selector",
    "testing",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'parityfl' has no attribute {name!r}")
    home = _HOMES[name]
    return getattr(import_module(home), name) if home else import_module(f"parityfl.{name}")


def __dir__() -> list[str]:
    """Return the public names, also those that nobody has used yet."""
    return __all__
