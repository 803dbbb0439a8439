"""The server-sent events of a run: the first and the latest are kept for whoever connects late, in bounded memory."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import islice

KEPT = 1000
"""How many events are kept beside the first one; of a longer run the CSV files have the beginning."""


@dataclass(frozen=True)
class Event:
    """An event: its number, its kind, and a JSON text."""

    number: int
    kind: str
    data: str


class EventLog:
    """Events in order, for any number of followers on one event loop.

    They are numbered from the milliseconds at which the log was begun: no process has the numbers of one before it.
    """

    def __init__(self) -> None:
        self._begun = time.time_ns() // 10**6
        self._first: Event | None = None
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._published = self._begun
        self._news = asyncio.Event()
        self._closed = False

    def publish(self, kind: str, data: str) -> None:
        """Add an event and wake the followers."""
        self._published += 1
        event = Event(self._published, kind, data)
        self._first = self._first or event  # it says how long the run is, without which no other can be understood
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        """Let every follower end after the last event."""
        self._closed = True
        self._wake()

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events that are kept with a number above `after`, and those to come, until the log is closed.

        A number that is none of these is that of a process before this one: then from the beginning.
        """
        seen = after if self._begun <= after <= self._published else self._begun
        while True:
            while seen < self._published:
                event = self._after(seen)
                yield event
                seen = event.number
            if self._closed:
                return
            await self._news.wait()

    def _after(self, number: int) -> Event:
        """Return the first event that is kept with a number above `number`, where there has been one."""
        if number == self._begun and self._first is not None:
            return self._first
        missed = self._published - number
        return next(islice(self._events, max(len(self._events) - missed, 0), None))

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
