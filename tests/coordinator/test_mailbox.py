import asyncio
from typing import Any

import httpx
import pytest

from network import run, until
from parityfl.coordinator.answer import Answer
from parityfl.coordinator.mailbox import Mailbox, NotAskingError

SOON_S = 0.02
YES = Answer(200, bytearray(b"yes"))


def asking(box: Mailbox, device: str = "h0", path: str = "/train") -> "asyncio.Task[Answer]":
    return asyncio.create_task(box.ask(device, path, None, 100))


def test_a_request_is_handed_out_until_its_answer_is_here() -> None:
    async def main() -> None:
        box = Mailbox(patience_s=30)
        answer = asking(box)
        work = await box.take(["h0", "h1"], [], 30)
        assert work is not None
        assert (work.device_id, work.path, work.limit) == ("h0", "/train", 100)
        assert await box.take(["h0"], [work.work_id], SOON_S) is None
        assert await box.take(["h1"], [], SOON_S) is None
        assert await box.take(["h0"], [], 30) is work, "who does not hold it has lost it"
        found = box.get(work.work_id)
        assert found is work
        found.settle(YES)
        found.settle(Answer(500, bytearray()))
        assert await answer == YES
        assert box.get(work.work_id) is None
        assert await box.take(["h0"], [], SOON_S) is None

    run(main())


def test_who_waits_gets_what_comes() -> None:
    async def main() -> None:
        box = Mailbox(patience_s=30)
        waiting = asyncio.create_task(box.take(["h0"], [], 30))
        answers = [asking(box, "h1"), asking(box, "h0", "/evaluate"), asking(box, "h0", "/train")]
        first = await waiting
        assert first is not None
        second = await box.take(["h0"], [first.work_id], 30)
        assert second is not None
        assert [first.path, second.path] == ["/evaluate", "/train"]
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        assert box.get(first.work_id) is None, "nobody waits any more"

    run(main())


def test_a_device_that_does_not_ask_is_unreachable() -> None:
    async def main() -> None:
        box = Mailbox(patience_s=SOON_S)
        with pytest.raises(NotAskingError, match="has not asked for work") as caught:
            await box.ask("h0", "/train", None, 100)
        assert isinstance(caught.value, httpx.ConnectTimeout)

    run(main())


class Watched(Mailbox):
    """A mailbox whose clock stands still unless it is moved; it looks at who is silent every `SOON_S` at the latest."""

    def __init__(self) -> None:
        super().__init__(SOON_S, lambda: self.now)
        self.now, self.looks = 0.0, 0

    def _silence_s(self, device_id: str) -> float:
        self.looks += 1
        return super()._silence_s(device_id)

    async def waits_on(self, at_s: float, *answers: "asyncio.Task[Answer]") -> bool:
        """Move the clock; return whether it still waits for the answers when it has looked after that."""
        self.now, seen = at_s, self.looks
        await until(lambda: any(map(asyncio.Task.done, answers)) or self.looks > seen + 2 * len(answers))
        return not any(map(asyncio.Task.done, answers))


def test_a_device_that_asks_may_take_its_time_and_one_that_stops_asking_is_noticed() -> None:
    async def main() -> None:
        box = Watched()
        answer = asking(box)
        work = await box.take(["h0"], [], 30)
        assert work is not None
        polling = asyncio.create_task(box.take(["h0"], [work.work_id], 30))
        await until(lambda: box._polls["h0"])
        assert await box.waits_on(4 * SOON_S, answer)
        polling.cancel()
        await asyncio.wait({polling})
        assert await box.waits_on(4.5 * SOON_S, answer), "the device was asking until just now"
        box.now = 5 * SOON_S
        with pytest.raises(NotAskingError):
            await answer

    run(main())


def test_who_still_receives_what_it_was_given_is_not_silent_nor_are_the_others_of_its_process() -> None:
    async def main() -> None:
        box = Watched()
        answers = [asking(box, "h0"), asking(box, "h1")]
        first = await box.take(["h0", "h1"], [], 30)
        assert first is not None
        assert await box.waits_on(4 * SOON_S, *answers)
        second = await box.take(["h0", "h1"], [first.work_id], 30)
        assert second is not None
        assert await box.take(["h0", "h1"], [first.work_id, second.work_id], SOON_S) is None
        box.now = 5 * SOON_S
        for answer in answers:
            with pytest.raises(NotAskingError):
                await answer

    run(main())


def test_who_was_silent_before_it_was_asked_has_its_patience() -> None:
    async def main() -> None:
        box = Watched()
        assert await box.take(["h0"], [], 0) is None
        box.now = 12 * SOON_S
        answer = asking(box)
        assert await box.waits_on(12.5 * SOON_S, answer)
        work = await box.take(["h0"], [], 30)
        assert work is not None
        work.settle(YES)
        assert await answer == YES

    run(main())


def test_closing_lets_nobody_wait() -> None:
    async def main() -> None:
        box = Mailbox(patience_s=30)
        waiting = asyncio.create_task(box.take(["h0"], [], 30))
        await until(lambda: box._polls)
        await box.close()
        assert await waiting is None

    run(main())


def test_a_fault_of_the_answer_reaches_who_asked() -> None:
    async def main() -> Any:
        box = Mailbox(patience_s=30)
        answer = asking(box)
        work = await box.take(["h0"], [], 30)
        assert work is not None
        work.fail(ValueError("too large"))
        with pytest.raises(ValueError, match="too large"):
            await answer

    run(main())
