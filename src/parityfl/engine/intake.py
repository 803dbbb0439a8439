"""What comes in during a round: replies from the event loop, updates for the thread that folds them."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np

from parityfl.core.types import Update, Vector
from parityfl.engine.fleet import Reply

BATCH_BYTES = 2**22
"""How many bytes of updates are waited for before they are handed over: changing threads costs as much as folding a
small update, and folding this much takes a millisecond or two."""


class Intake:
    """The updates of a round, in client order: those left from the round before, then those that arrive.

    Iterated in a thread while the replies come in on the event loop of the thread that made it. Several small updates
    are handed over at once, large ones one by one.

    Args:
        replies: the round's replies.
        late: updates of earlier rounds, which come first.

    Attributes:
        replies: those that were handed over, without their vectors.
        clients: whose updates were handed over.
        waited_s: for how long there was nothing to fold.
        failure: what has ended it before all were there, if anything.
    """

    def __init__(self, replies: AsyncGenerator[Reply, None], late: Sequence[Update] = ()) -> None:
        self._source = replies
        self._fetch: asyncio.Task[Any] | None = None
        self._left = False
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._control: Vector | None = None
        self.replies: list[Reply] = []
        self.clients: list[int] = []
        self.waited_s = 0.0
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[Update]:
        for update in chain(self._late, self._arriving()):
            self.clients.append(update.client)
            if update.control is not None and not update.staleness:  # a late client's own variate does not move either
                self._control = update.control.copy() if self._control is None else self._control + update.control
            yield update

    def control(self, before: Vector | None, population: int) -> Vector | None:
        """Return the server's control variate after the round: c + (sum of the clients' changes) / `population`."""
        if before is None or self._control is None:
            return before
        return before + self._control / np.float32(population)

    async def leave(self) -> None:
        """End the replies before they are all there, for whoever cannot wait: nothing of the round runs on."""
        self._left = True
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait({self._fetch})
        await self._source.aclose()

    def _arriving(self) -> Iterator[Update]:
        more = True
        while more:
            began = perf_counter()
            try:
                batch, more = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            except Exception as error:
                self.failure = error
                raise
            self.waited_s += perf_counter() - began
            while batch:
                reply = batch.pop(0)  # nothing here refers to an update that was folded
                self.replies.append(replace(reply, update=_without_vectors(reply.update)))
                if reply.update is not None:
                    yield reply.update

    async def _next(self) -> tuple[list[Reply], bool]:
        """Return the replies that come next, and whether there may be more."""
        batch: list[Reply] = []
        size = 0
        if self._left:
            return batch, False
        self._fetch = asyncio.current_task()
        async for reply in self._source:
            batch.append(reply)
            size += 0 if reply.update is None else reply.update.delta.nbytes
            if size >= BATCH_BYTES:
                return batch, True
        return batch, False


def _without_vectors(update: Update | None) -> Update | None:
    """Forget the model in an update, so that a round does not hold every client's."""
    empty = np.zeros(0, dtype=np.float32)
    return None if update is None else replace(update, delta=empty, control=None)
