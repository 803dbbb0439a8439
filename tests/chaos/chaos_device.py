"""A device that misbehaves: the real client process, without torch, with one fault built in.

    python chaos_device.py --server URL --devices NAMES [--fault NAME] [--state DIR] [--think S] [--flap S] [--skew S]

Registration, status updates and the web application are those of `parityfl client`; what is changed is how it answers
/train, the way that its answers take (`chaos_proxy`), or its clock.
"""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from chaos_proxy import Spoil, proxy
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

import parityfl.client.serve as client
from parityfl.client.settings import Settings, parse_devices
from parityfl.core.arrays import Layout
from parityfl.core.types import Update
from parityfl.web import server as web
from parityfl.wire.payload import assemble
from parityfl.wire.schemas import InitialReply

LAYOUT = Layout(("hidden.weight", "hidden.bias", "output.weight", "output.bias"), ((64, 64), (64,), (10, 64), (10,)))
"""The model `mlp` on `digits`, which every process of this suite agrees on."""

OTHER = replace(LAYOUT, shapes=(*LAYOUT.shapes[:-1], (9,)))
"""One with a label less."""

WIRE: dict[str, Spoil] = {
    "wire-latency": Spoil(latency_s=0.3),
    "wire-latency-beyond-deadline": Spoil(latency_s=30.0),
    "wire-cut-in-answer": Spoil(cut_at=9000),
    "wire-cut-at-once": Spoil(cut_at=0),
    "wire-reset-in-answer": Spoil(cut_at=9000, reset=True),
    "wire-slow-loris": Spoil(trickle_s=0.2),
    "wire-truncated-head": Spoil(cut_at=40),
    "wire-corruption": Spoil(flip_every=12000),
    "wire-duplication": Spoil(twice=True),
    "wire-black-hole": Spoil(silent=True),
}


UPLINK: dict[str, Spoil] = {
    "uplink-latency": Spoil(latency_s=0.3),
    "uplink-resets": Spoil(cut_at=6000, reset=True),
}
"""The same on the way to the coordinator and back: registration and status updates."""


class StandIn:
    """What trains instead of torch: a small random step, after some time."""

    layout = LAYOUT

    def __init__(self, think_s: float, delta: Callable[[np.ndarray], np.ndarray]) -> None:
        self._think_s = think_s
        self._delta = delta

    def __call__(self, config: Any, clients: Any) -> "StandIn":
        self.num_samples = np.full(config.population.clients, 30)
        self.label_counts = np.full((config.population.clients, 10), 3)
        return self

    def initial_weights(self) -> np.ndarray:
        return np.zeros(LAYOUT.size, np.float32)

    def train(self, round: int, client: int, weights: Any, control: Any = None, memory: Any = None, **_: Any) -> Any:
        time.sleep(self._think_s)
        step = np.random.default_rng((round, client)).normal(0, 1e-3, LAYOUT.size).astype(np.float32)
        return Update(client, self._delta(step), 30, 2.3, 2.3, 2.3), None

    def evaluate_client(self, client: int, weights: Any) -> tuple[float, float, int]:
        return 2.3, 0.1, 8


async def crash() -> None:
    os._exit(9)


async def freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


async def hang() -> None:
    await asyncio.Event().wait()


async def endless() -> Any:
    while True:
        yield bytes(65536)
        await asyncio.sleep(0)


def learned(layout: Layout) -> bytes:
    """Return a whole document with a model of some layout."""
    reply = InitialReply(model="mlp", seed=0, model_digest="0" * 64)
    return bytes(assemble(reply, {"model": np.zeros(layout.size, np.float32)}, layout))


BEFORE: dict[str, Callable[[], Awaitable[None]]] = {"crash": crash, "freeze": freeze, "hang": hang}
"""What happens to the process when it is asked to train."""

ANSWERS: dict[str, Callable[[], Response]] = {
    "garbage": lambda: Response(os.urandom(5000), media_type="application/x-safetensors"),
    "empty-answer": lambda: Response(b""),
    "error-500": lambda: Response("boom", 500),
    "redirect": lambda: Response(status_code=302, headers={"Location": "http://127.0.0.1:1/"}),
    "refusal": lambda: Response(status_code=409),
    "wrong-shape": lambda: Response(learned(OTHER), media_type="application/x-safetensors"),
    "huge-answer": lambda: StreamingResponse(endless(), media_type="application/x-safetensors"),
}

DELTAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nan": lambda step: np.full_like(step, np.nan),
    "infinity": lambda step: np.where(np.arange(len(step)) == 7, np.float32(np.inf), step),
}


class Misbehaving:
    """The client's application, but for POST /train; evaluation hangs too where training does."""

    def __init__(self, app: ASGIApp, fault: str) -> None:
        self._app = app
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["path"] in ("/train", "/evaluate")
        if asked and self._fault == "hang":
            await hang()
        if asked and scope["path"] == "/train":
            if self._fault in BEFORE:
                await BEFORE[self._fault]()
            if self._fault in ANSWERS:
                await ANSWERS[self._fault]()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def skew(seconds: float) -> None:
    """Set both clocks of this process wrong: off by so much, and three times as fast."""
    wall, steady = time.time, time.monotonic
    time.time = lambda: 3 * wall() + seconds  # type: ignore[assignment]
    time.monotonic = lambda: 3 * steady() + seconds  # type: ignore[assignment]


def flap(period_s: float) -> None:
    """Let every device come and go, each with its own phase."""
    from parityfl.client.service import DeviceHost

    def there(self: Any, device: Any) -> bool:
        slot = int(time.monotonic() / period_s)
        return bool(np.random.default_rng((slot, device.index or 0)).random() < 0.5)

    DeviceHost._is_available = there  # type: ignore[method-assign]


async def main(options: argparse.Namespace) -> None:
    bound = web.bind("127.0.0.1", 0)
    port = web.port_of(bound)
    bound.close()
    real = client.create_app
    client.create_app = lambda *arguments, **more: Misbehaving(real(*arguments, **more), options.fault)  # type: ignore[assignment]
    bench = StandIn(options.think, DELTAS.get(options.fault, lambda step: step))
    settings = Settings(options.server, parse_devices(options.devices), port=port, patience_s=60, state=options.state)
    if options.fault in UPLINK:
        async with proxy(int(options.server.rpartition(":")[2]), UPLINK[options.fault]) as outer:
            await client.serve(replace(settings, server=f"http://127.0.0.1:{outer}"), bench)
    elif options.fault in ("port-closed", *WIRE):
        async with proxy(port, WIRE.get(options.fault, Spoil())) as outer:
            shown = outer if options.fault in WIRE else 9
            client.port_of = lambda _: shown  # what the coordinator is told
            await client.serve(settings, bench)
    else:
        await client.serve(settings, bench)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--devices", required=True)
    parser.add_argument("--fault", default="")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--think", type=float, default=0.0)
    parser.add_argument("--flap", type=float, default=0.0)
    parser.add_argument("--skew", type=float, default=0.0)
    chosen = parser.parse_args()
    if chosen.skew:
        skew(chosen.skew)
    if chosen.flap:
        flap(chosen.flap)
    web.run(main(chosen))
