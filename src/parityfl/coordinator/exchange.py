"""One call of a device in a round, and the outcomes that it can end in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import nan

import httpx

from parityfl.coordinator.answer import Answer
from parityfl.coordinator.enrolment import RefusedError
from parityfl.core.errors import PayloadError, UnusableError, first_line
from parityfl.core.types import Outcome, Update
from parityfl.engine.fleet import Reply
from parityfl.web.problems import detail_of

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Exchange:
    """What one call has measured so far, and the outcomes that it can end in."""

    client: int
    patience: asyncio.Timeout
    clock: Callable[[], float]
    bytes_down: float = nan
    bytes_up: float = nan
    trouble: str = ""
    loss: str = ""
    has_arrived: bool = False

    def __post_init__(self) -> None:
        self.began = self.clock()

    def arrive(self) -> None:
        """Note that all of the answer is here: from now on it waits for us, and no clock of the device's runs."""
        self.has_arrived = True
        if not self.patience.expired():
            self.patience.reschedule(None)

    def give_up(self, loss: str) -> None:
        """End the call: the device has gone, as `loss` says."""
        if not self.has_arrived and not self.patience.expired():
            self.loss = loss
            self.patience.reschedule(asyncio.get_running_loop().time())

    def reply(
        self, outcome: Outcome, reason: str = "", update: Update | None = None, *, reproducible: bool = False
    ) -> Reply:
        """Return the outcome; what is no update is the fault of this device or its wire, unless said otherwise."""
        return Reply(
            self.client,
            outcome,
            update,
            reason=_shortened(reason),
            latency_s=self.clock() - self.began,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            reproducible=reproducible or outcome is Outcome.COMPLETED,
        )

    def refused(self, answer: Answer) -> Reply:
        """Interpret a status other than 200: 401, 409 and 503 are a device's right, all else is a fault."""
        outcome = Outcome.REFUSED if answer.status in (401, 409, 503) else Outcome.FAILED
        return self.reply(outcome, f"answered {answer.status}: {detail_of(answer.body)}")

    def timed_out(self, seconds: float) -> Reply:
        """Interpret the end of the time that the device had; one that has gone or was never reached is unreachable."""
        if self.loss:
            return self.reply(Outcome.UNREACHABLE, self.loss)
        if self.trouble:
            return self.reply(Outcome.UNREACHABLE, f"{_shortened(self.trouble)[:150]}, for {seconds:g} s")
        return self.reply(Outcome.TIMED_OUT, f"no reply within train_timeout_s = {seconds:g} s")

    def failed(self, error: Exception) -> Reply:
        """Interpret an exception."""
        if isinstance(error, PayloadError | RefusedError):
            return self.reply(Outcome.INVALID, str(error), reproducible=isinstance(error, UnusableError))
        if isinstance(error, httpx.TransportError):
            return self.reply(Outcome.UNREACHABLE, first_line(error))
        log.error("asking client %d failed", self.client, exc_info=error)
        return self.reply(Outcome.FAILED, first_line(error))


def _shortened(text: str) -> str:
    return text.partition("\n")[0][:200]
