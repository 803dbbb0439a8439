"""When a round over HTTP closes, and who is late then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import nan

from parityfl.core.types import Outcome
from parityfl.engine.fleet import Reply


class Closing:
    """When a round closes: at its deadline, or once a quorum has completed it. It closes once, for everyone.

    Attributes:
        overdue: the calls that had not ended by then.
        reason: why it closed.
        after_s: how long it was open.

    Args:
        calls: of the devices that the round asks.
        deadline_s: after how many seconds it closes.
        quorum: after how many completed ones it closes; None: after none.
        has_arrived: tells whether all of a call's answer has come; it may still wait to be read, and is in time.
    """

    def __init__(
        self,
        calls: Iterable[asyncio.Task[Reply]],
        deadline_s: float,
        quorum: int | None,
        has_arrived: Callable[[asyncio.Task[Reply]], bool],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.overdue: frozenset[asyncio.Task[Reply]] = frozenset()
        self.reason = ""
        self.after_s = nan
        self._running = set(calls)
        self._missing = quorum
        self._has_arrived = has_arrived
        self._began = loop.time()
        self._closed: asyncio.Future[None] = loop.create_future()
        late = f"no reply by the round's deadline of {deadline_s:g} s (rounds.deadline_s)"
        self._timer = loop.call_later(deadline_s, self._close, late)
        for call in self._running:
            call.add_done_callback(self._count)

    async def wait_for(self, call: asyncio.Task[Reply]) -> None:
        """Return when the call has ended, or the round has closed without it."""
        if not call.done() and not self._closed.done():
            await asyncio.wait((call, self._closed), return_when=asyncio.FIRST_COMPLETED)
        if not call.done() and call not in self.overdue:
            await asyncio.wait((call,))

    def cancel(self) -> None:
        """Forget the deadline."""
        self._timer.cancel()
        self._missing = None

    def _count(self, call: asyncio.Task[Reply]) -> None:
        self._running.discard(call)
        if not self._running:
            self._timer.cancel()
        if self._missing is None or call.cancelled() or call.exception() is not None:
            return  # an error is raised where the call's turn comes
        if call.result().outcome is not Outcome.COMPLETED:
            return
        self._missing -= 1
        if self._missing == 0:
            self._close("others had made up the quorum (rounds.quorum)")

    def _close(self, reason: str) -> None:
        if self._closed.done():
            return
        self._timer.cancel()
        self.overdue = frozenset(call for call in self._running if not self._has_arrived(call))
        self.reason = reason
        self.after_s = asyncio.get_running_loop().time() - self._began
        self._closed.set_result(None)
