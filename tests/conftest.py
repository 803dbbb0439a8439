from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from parityfl.core.registry import Registry

# how long an example takes is up to whatever else runs on the machine
settings.register_profile("parityfl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("parityfl")


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Callable[[Registry[Any]], None]:
    """What a test calls with a registry before it registers in it: afterwards the registry holds what it held."""
    return lambda registry: monkeypatch.setattr(registry, "_entries", dict(registry._entries))
