"""One device of this process: its name, its place in the run, and the one thing that it does at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from parityfl.web.problems import ProblemError
from parityfl.wire.payload import Payload

log = logging.getLogger(__name__)

JobKey = tuple[str, int, str]
"""Run, round and the hash of the model: what makes two requests the same."""


class DeviceLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the device's name before every line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Prefix a message."""
        return f"[{(self.extra or {}).get('device')}] {msg}", kwargs


Proceed = Callable[[], None]
"""Raises where nobody waits for the answer any more."""


@dataclass
class _Job:
    """What the device is doing, or has done last, and how many wait for it."""

    key: JobKey
    task: asyncio.Task[Payload]
    askers: int = 0

    @property
    def failed(self) -> bool:
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)


@dataclass
class Device:
    """A device that this process hosts.

    Attributes:
        device_id: its name.
        index: its index in the population, None before it has registered.
        training: the round that it trains for, or None.
        last_round: the last round that it trained for, 0 for none.
        log: its log.
    """

    device_id: str
    index: int | None = None
    training: int | None = None
    last_round: int = 0
    _job: _Job | None = None
    log: DeviceLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = DeviceLog(log, {"device": self.device_id})

    async def once(self, key: JobKey, work: Callable[[Proceed], Awaitable[Payload]], patient: bool) -> Payload:
        """Return what `work` makes, doing it once for all requests with the same key until it is forgotten.

        Who asks again while it is under way, or after an answer of which `forget` was not told that it arrived, gets
        the same answer. When this is cancelled for all who asked, the work is told so and the device is free for the
        next request.

        Args:
            key: what the request is.
            work: does it, and calls what it is given now and then.
            patient: whether to wait for another request to end, rather than to refuse this one.

        Raises:
            ProblemError: the device is busy with another request.
        """
        while self._job is not None and self._job.key != key and not self._job.task.done():
            if not patient and self._job.askers:
                raise ProblemError(409, f"{self.device_id} still trains for round {self._job.key[1]}: ask it later")
            await asyncio.wait({self._job.task})
        if self._job is None or self._job.key != key or self._job.failed:
            self._job = self._begin(key, work)
        job = self._job
        job.askers += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.askers -= 1

    def _begin(self, key: JobKey, work: Callable[[Proceed], Awaitable[Payload]]) -> _Job:
        def proceed() -> None:
            if not job.askers:
                raise ProblemError(503, f"{self.device_id}: whoever asked has gone in mid-training")

        job = _Job(key, asyncio.create_task(self._do(key, lambda: work(proceed))))
        job.task.add_done_callback(lambda _: job.failed)  # nobody may be left to take an exception
        return job

    def forget(self, key: JobKey) -> None:
        """Drop an answer that has arrived."""
        if self._job is not None and self._job.key == key and self._job.task.done():
            self._job = None

    async def _do(self, key: JobKey, work: Callable[[], Awaitable[Payload]]) -> Payload:
        self.training = key[1]
        try:
            return await work()
        finally:
            self.training = None
            self.last_round = key[1]
