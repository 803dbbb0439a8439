"""Requests for devices that cannot be called: they wait here until the device asks for them and sends its answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from parityfl.coordinator.answer import Answer
from parityfl.wire.payload import Payload


class NotAskingError(httpx.ConnectTimeout):
    """A device has not asked for work for too long: it is as unreachable as one that takes no connection."""


@dataclass(frozen=True)
class Work:
    """A request for a device that polls.

    Attributes:
        work_id: what its answer is sent to; hard to guess.
        device_id: whom it is for.
        path: what it would be posted to, such as ``/train``; without a payload it would be a GET.
        payload: the document, or None.
        limit: how many bytes the answer may have.
        answer: the answer, once it has come.
    """

    device_id: str
    path: str
    payload: Payload | None
    limit: int
    work_id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, answer: Answer) -> None:
        """Give the answer to who waits for it; only the first counts."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Tell who waits why there is no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Mailbox:
    """Holds the requests for devices that poll, and knows which of these devices are polling.

    A request is handed out again until its answer is here: to whoever asks for that device's work and does not say
    that it has this request already. So neither an answer that got lost nor a device that was restarted loses one.

    A process asks for all its devices at once, and asks again when it has received what it was given. Slow lines are
    fine: while it receives, no device counts as silent, and who has gone is noticed by its missing reports.

    Args:
        patience_s: after how many seconds without a poll a device counts as unreachable.
        clock: monotonic seconds.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._works: dict[str, Work] = {}
        self._polls: dict[str, int] = {}
        self._receiving: set[str] = set()
        self._last_poll: dict[str, float] = {}
        self._changed = asyncio.Condition()
        self._closed = False

    async def ask(self, device_id: str, path: str, payload: Payload | None, limit: int) -> Answer:
        """Leave a request for a device and return its answer.

        Raises:
            NotAskingError: the device does not ask for work (any more).
        """
        work = Work(device_id, path, payload, limit)
        self._works[work.work_id] = work
        self._last_poll[device_id] = self._clock()  # whoever was silent before may have been asleep, and is here again
        try:
            await self._notify()
            return await self._answered(work)
        finally:
            del self._works[work.work_id]

    async def take(self, device_ids: Collection[str], holding: Collection[str], wait_s: float) -> Work | None:
        """Return the oldest request for one of the devices that is not held already, or None if none comes in time."""
        self._receiving.difference_update(device_ids)
        self._note_polls(device_ids, 1)
        try:
            async with asyncio.timeout(wait_s), self._changed:
                await self._changed.wait_for(lambda: self._closed or self._next(device_ids, holding))
        except TimeoutError:
            return None
        finally:
            self._note_polls(device_ids, -1)
        found = self._next(device_ids, holding)
        if found is not None:
            self._receiving.update(device_ids)
        return found

    def get(self, work_id: str) -> Work | None:
        """Return a request whose answer is still wanted."""
        return self._works.get(work_id)

    async def close(self) -> None:
        """Let nobody wait here any more."""
        self._closed = True
        await self._notify()

    def _next(self, device_ids: Collection[str], holding: Collection[str]) -> Work | None:
        waiting = (w for w in self._works.values() if w.device_id in device_ids and w.work_id not in holding)
        return next((work for work in waiting if not work.answer.done()), None)

    async def _answered(self, work: Work) -> Answer:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._patience_s - self._silence_s(work.device_id), 0.001)):
                    return await asyncio.shield(work.answer)
            if self._silence_s(work.device_id) >= self._patience_s:
                raise NotAskingError(f"it has not asked for work for {self._silence_s(work.device_id):.1f} s")

    def _silence_s(self, device_id: str) -> float:
        asks = self._polls.get(device_id) or device_id in self._receiving
        return 0.0 if asks else self._clock() - self._last_poll[device_id]

    def _note_polls(self, device_ids: Collection[str], change: int) -> None:
        for device_id in device_ids:
            self._polls[device_id] = self._polls.get(device_id, 0) + change
            self._last_poll[device_id] = self._clock()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
