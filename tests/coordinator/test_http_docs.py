import asyncio
from pathlib import Path

import pytest

from network import LAYOUT, RUN, run, small_config
from parityfl.client.app import create_app as create_client_app
from parityfl.client.service import DeviceHost
from parityfl.coordinator.app import create_app as create_coordinator_app
from parityfl.coordinator.device_registry import DeviceRegistry
from parityfl.coordinator.devices import Devices
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.service import Coordinator
from parityfl.core.types import Outcome

TEXT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")


async def endpoints() -> dict[str, str]:
    """Return every endpoint of both applications, with its path as a URL has it."""
    config = small_config()
    registry = DeviceRegistry(config.device_ids, False, 1.0, asyncio.get_running_loop().time)
    async with Devices(config.rounds) as devices:
        fleet = HttpFleet(config, LAYOUT, registry, devices, RUN)
        coordinator = create_coordinator_app(Coordinator(config, fleet, 1))
    apps = {"localhost:8080": coordinator, "localhost:5000": create_client_app(DeviceHost(["h0"]))}
    return {
        f"{method.upper()} {path}": host + path
        for host, app in apps.items()
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }


def test_every_endpoint_is_documented_with_an_example() -> None:
    found = run(endpoints())
    assert len(found) > 15
    for endpoint, url in found.items():
        example = url.replace("{device_id}", "h0").replace("{round}", "1").replace("{work_id}", "$work")
        assert f"`{endpoint}`" in TEXT, endpoint
        assert example in TEXT, example


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_is_documented(outcome: Outcome) -> None:
    assert f"| `{outcome}` |" in TEXT
