import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from network import LAYOUT, RUN, run, small_config
from parityfl.client.app import create_app as create_client_app
from parityfl.client.service import DeviceHost
from parityfl.coordinator.app import create_app as create_coordinator_app
from parityfl.coordinator.device_registry import DeviceRegistry
from parityfl.coordinator.devices import Devices
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.service import Coordinator
from parityfl.core.types import Outcome
from parityfl.wire.schemas import EvaluateReply, EvaluateRequest, InitialReply, TrainReply, TrainRequest

TEXT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")


async def described() -> dict[str, dict[str, Any]]:
    """Return what OpenAPI says of both applications, by where the examples have them."""
    config = small_config()
    registry = DeviceRegistry(config.device_ids, False, 1.0, asyncio.get_running_loop().time)
    async with Devices(config.rounds) as devices:
        fleet = HttpFleet(config, LAYOUT, registry, devices, RUN)
        coordinator = create_coordinator_app(Coordinator(config, fleet, 1))
    apps = {"localhost:8080": coordinator, "localhost:5000": create_client_app(DeviceHost(["h0"]))}
    return {host: app.openapi() for host, app in apps.items()}


def endpoints() -> dict[str, str]:
    """Return every endpoint of both applications, with its path as a URL has it."""
    return {
        f"{method.upper()} {path}": host + path
        for host, about in run(described()).items()
        for path, methods in about["paths"].items()
        for method in methods
    }


@pytest.mark.parametrize("message", [TrainRequest, TrainReply, EvaluateRequest, EvaluateReply, InitialReply])
def test_both_applications_show_the_messages_that_documents_carry(message: type[BaseModel]) -> None:
    """Whatever they refer to, such as the settings of training, is there as well."""
    for about in run(described()).values():
        schemas = about["components"]["schemas"]
        assert set(schemas[message.__name__]["properties"]) == set(message.model_fields)
        found = re.findall(r"#/components/schemas/(\w+)", json.dumps(about))
        assert set(found) <= set(schemas)


def test_every_document_says_which_message_it_carries() -> None:
    client = run(described())["localhost:5000"]["paths"]
    for path, method, names in (
        ("/train", "post", ("TrainRequest", "TrainReply")),
        ("/evaluate", "post", ("EvaluateRequest", None)),
        ("/initial", "get", (None, "InitialReply")),
    ):
        asked, answered = client[path][method].get("requestBody", {}), client[path][method]["responses"]["200"]
        for name, side in zip(names, (asked, answered), strict=True):
            assert name is None or f"`{name}`" in side["description"]


def test_every_endpoint_is_documented_with_an_example() -> None:
    found = endpoints()
    assert len(found) > 15
    for endpoint, url in found.items():
        example = url.replace("{device_id}", "h0").replace("{round}", "1").replace("{work_id}", "$work")
        assert f"`{endpoint}`" in TEXT, endpoint
        assert example in TEXT, example


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_is_documented(outcome: Outcome) -> None:
    assert f"| `{outcome}` |" in TEXT
