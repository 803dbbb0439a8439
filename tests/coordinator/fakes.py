"""Devices that behave as a test wants, behind real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response

from network import LAYOUT, RUN, SAMPLES, WEIGHTS, served
from parityfl.config import Config
from parityfl.coordinator.device_registry import DeviceRegistry
from parityfl.coordinator.devices import Devices
from parityfl.coordinator.fleet import HttpFleet
from parityfl.core.types import AvailabilityProcess, Vector
from parityfl.engine.fleet import Reply, TrainTask
from parityfl.wire.digests import model_digest
from parityfl.wire.payload import assemble, unpack
from parityfl.wire.schemas import DeviceReport, EvaluateReply, EvaluateRequest, Registration, TrainReply, TrainRequest


@dataclass
class FakeDevice:
    """Answers /train by `behave`, after keeping what it was asked."""

    name: str
    behave: Callable[["FakeDevice", TrainRequest, dict[str, Vector]], Awaitable[Response]]
    asked: list[TrainRequest] = field(default_factory=list)
    received: list[dict[str, Vector]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    hangs_in_evaluation: bool = False
    evaluations: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> dict[str, Any]:
            return {}

        @app.post("/train")
        async def train(request: Request) -> Response:
            body = await request.body()
            self.bodies.append(body)
            asked, vectors = unpack(body, TrainRequest, LAYOUT, ("model",), ("control",))
            self.asked.append(asked)
            self.received.append(vectors)
            return await self.behave(self, asked, vectors)

        @app.post("/evaluate")
        async def evaluate(request: Request) -> Response:
            asked, vectors = unpack(await request.body(), EvaluateRequest, LAYOUT)
            self.evaluations += 1
            if self.hangs_in_evaluation:
                await self.released.wait()
            loss, index = float(np.sum(vectors["model"])), int(self.name[1:])
            told = {"device_id": self.name, "round": asked.round, "loss": loss, "accuracy": index / 10}
            reply = EvaluateReply.model_construct(**told, num_samples=5)  # unchecked, as what a device sends may be
            return Response(reply.model_dump_json(), media_type="application/json")

        return app


def answer(
    device: FakeDevice, asked: TrainRequest, delta: Vector | None = None, control: Vector | None = None, **changes: Any
) -> Response:
    """Return the reply of an honest device, or one that differs from it by `changes`, unchecked."""
    index = int(device.name[1:])
    usual = {
        "device_id": device.name,
        "round": asked.round,
        "num_samples": SAMPLES[index],
        "train_loss": 0.5,
        "loss_before": 1.5,
        "loss_after": 1.0,
        "model_digest": asked.model_digest,
        "train_s": 0.0,
    }
    learned = np.full(3, index + 1, np.float32) if delta is None else delta
    vectors = {"model": learned} | ({} if control is None else {"control": control})
    return Response(bytes(assemble(TrainReply.model_construct(**{**usual, **changes}), vectors, LAYOUT)))


async def honest(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
    """Train at once."""
    return answer(device, asked)


async def hanging(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
    """Do not answer before the test is over."""
    await device.released.wait()
    return Response(status_code=500)


def differing(**changes: Any) -> Callable[..., Awaitable[Response]]:
    """Answer like an honest device but for some fields, or with another delta."""

    async def behave(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
        return answer(device, asked, **changes)

    return behave


def fixed(response: Response) -> Callable[..., Awaitable[Response]]:
    """Always answer the same."""

    async def behave(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
        return response

    return behave


def waiting_for(event: asyncio.Event) -> Callable[..., Awaitable[Response]]:
    """Answer once the event is set."""

    async def behave(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
        await event.wait()
        return answer(device, asked)

    return behave


@asynccontextmanager
async def fleet_of(
    config: Config, *behaviours: Callable[..., Awaitable[Response]], availability: AvailabilityProcess | None = None
) -> AsyncIterator[tuple[HttpFleet, list[FakeDevice]]]:
    """Serve a device per behaviour, registered and available, and yield the fleet of them."""
    registry = DeviceRegistry(config.device_ids, True, config.rounds.heartbeat_s, asyncio.get_running_loop().time)
    fakes = [FakeDevice(f"h{index}", behave) for index, behave in enumerate(behaviours)]
    async with AsyncExitStack() as stack:
        for fake in fakes:
            http = await stack.enter_async_context(served(fake.app()))
            enter(registry, fake.name, http.base_url.port or 0)
        devices = await stack.enter_async_context(Devices(config.rounds))
        fleet = HttpFleet(config, LAYOUT, registry, devices, RUN, availability=availability)
        stack.push_async_callback(fleet.close)
        for fake in fakes:
            stack.callback(fake.released.set)
        yield fleet, fakes


def enter(registry: DeviceRegistry, name: str, port: int) -> None:
    """Register a device and report it available."""
    registry.register(Registration(device_id=name, port=port, num_samples=SAMPLES[int(name[1:])]), "127.0.0.1")
    registry.report(DeviceReport(device_id=name, available=True))


def task(*clients: int, round: int = 1, **changes: Any) -> TrainTask:
    """Ask clients to train from `WEIGHTS`."""
    usual: dict[str, Any] = {
        "round": round,
        "time_s": 0.0,
        "clients": np.array(clients, dtype=np.int64),
        "weights": WEIGHTS,
        "start": lambda client: WEIGHTS,
        "control": None,
        "memory_round": np.zeros(4, dtype=np.int64),
    }
    return TrainTask(**{**usual, **changes})


async def replies(fleet: HttpFleet, asked: TrainTask) -> list[Reply]:
    """Return all replies of a round."""
    await fleet.look(asked.round, asked.time_s)
    return [reply async for reply in fleet.train(asked)]


WEIGHTS_DIGEST = model_digest(WEIGHTS)
