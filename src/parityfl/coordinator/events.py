"""The server-sent events of a run: the latest are kept, so that whoever connects late sees them, in bounded memory."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import islice

KEPT = 1000
"""How many events are kept; of a longer run the CSV files have the beginning."""


@dataclass(frozen=True)
class Event:
    """An event: its number from 1, its kind, and a JSON text."""

    number: int
    kind: str
    data: str


class EventLog:
    """Events in order, for any number of followers on one event loop."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._published = 0
        self._news = asyncio.Event()
        self._closed = False

    def publish(self, kind: str, data: str) -> None:
        """Add an event and wake the followers."""
        self._published += 1
        self._events.append(Event(self._published, kind, data))
        self._wake()

    def close(self) -> None:
        """Let every follower end after the last event."""
        self._closed = True
        self._wake()

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events that are kept with a number above `after`, and those to come, until the log is closed.

        A number that there has not been yet is that of a process before this one: then from the beginning.
        """
        seen = after if 0 <= after <= self._published else 0
        while True:
            while seen < self._published:
                missed = self._published - seen
                event = next(islice(self._events, max(len(self._events) - missed, 0), None))
                yield event
                seen = event.number
            if self._closed:
                return
            await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
