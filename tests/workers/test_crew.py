"""Who is given which job, and when: with workers that do what they are told to by hand."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from crew_jobs import Echo

from parityfl.workers.crew import AHEAD, Crew, WorkerLostError
from parityfl.workers.shared_memory import Board


@dataclass(frozen=True)
class Task:
    """A job of a name and a cost."""

    repeatable: ClassVar[bool] = True

    name: str
    cost: int

    def run(self, bench: Any, board: Any) -> str:
        return self.name


class Hand:
    """A worker that is done with a job when `finish` says so."""

    depth = 2
    starting = False

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.closed = False
        self._answers: dict[Any, asyncio.Future[Any]] = {}

    async def run(self, job: Any) -> Any:
        self.given.append(job)
        self._answers[job] = asyncio.get_running_loop().create_future()
        return await self._answers[job]

    async def finish(self, error: Exception | None = None) -> None:
        """Be done with the first job that it has."""
        job, answer = next((job, answer) for job, answer in self._answers.items() if not answer.done())
        answer.set_result(job) if error is None else answer.set_exception(error)
        await settle()

    def close(self) -> None:
        self.closed = True

    @property
    def names(self) -> str:
        return " ".join(job.name for job in self.given)


async def settle() -> None:
    """Let all go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def with_hands(count: int, work: Callable[..., Awaitable[None]]) -> None:
    """Run a coroutine over a crew of so many hands, and these."""

    async def main() -> None:
        hands = [Hand() for _ in range(count)]
        await work(Crew(hands, Board(1), Hand), *hands)

    asyncio.run(main())


def tasks(**costs: int) -> list[Task]:
    return [Task(name, cost) for name, cost in costs.items()]


def test_like_jobs_go_round_and_the_next_one_waits_with_its_worker() -> None:
    async def work(crew: Crew, one: Hand, two: Hand) -> None:
        done = asyncio.create_task(crew.gather(tasks(a=1, b=1, c=1, d=1, e=1)))
        await settle()
        assert (one.names, two.names) == ("a c", "b d")
        await two.finish()
        assert (one.names, two.names) == ("a c", "b d e")
        for hand in (one, one, two, two):
            await hand.finish()
        assert [job.name for job in await done] == ["a", "b", "c", "d", "e"]

    with_hands(2, work)


def test_nobody_waits_behind_a_large_job_while_others_have_less_to_do() -> None:
    """The second worker does b to e, 8 in all, while the first is at a, of 9."""

    async def work(crew: Crew, one: Hand, two: Hand) -> None:
        done = asyncio.create_task(crew.gather(tasks(a=9, b=2, c=2, d=2, e=2)))
        await settle()
        assert (one.names, two.names) == ("a", "b c")
        await two.finish()
        await two.finish()
        assert (one.names, two.names) == ("a", "b c d e")
        for hand in (one, two, two):
            await hand.finish()
        assert len(await done) == 5

    with_hands(2, work)


def test_nothing_is_given_to_a_worker_that_has_yet_to_start_where_another_one_can_work() -> None:
    """The second one has lost its process and may never have another: what it had is done by the first meanwhile."""

    async def work(crew: Crew, one: Hand, two: Hand) -> None:
        two.starting = True
        done = asyncio.create_task(crew.gather(tasks(a=1, b=1, c=1, d=1)))
        await settle()
        assert (one.names, two.names) == ("a b", "")
        await one.finish()
        assert (one.names, two.names) == ("a b c", "")
        two.starting = False
        await one.finish()
        assert (one.names, two.names) == ("a b c", "d")
        for hand in (one, two):
            await hand.finish()
        await done

    with_hands(2, work)


def test_where_all_have_yet_to_start_each_is_given_its_first_jobs() -> None:
    async def work(crew: Crew, one: Hand, two: Hand) -> None:
        one.starting = two.starting = True
        done = asyncio.create_task(crew.gather(tasks(a=1, b=1)))
        await settle()
        assert (one.names, two.names) == ("a", "b")
        for hand in (one, two):
            await hand.finish()
        await done

    with_hands(2, work)


def test_jobs_that_cost_nothing_are_shared_out_too() -> None:
    async def work(crew: Crew, one: Hand, two: Hand) -> None:
        done = asyncio.create_task(crew.gather(tasks(a=0, b=0, c=0)))
        await settle()
        assert (one.names, two.names) == ("a c", "b")
        for hand in (one, one, two):
            await hand.finish()
        await done

    with_hands(2, work)


def test_who_gives_up_waiting_or_working_leaves_nothing_behind() -> None:
    async def work(crew: Crew, hand: Hand) -> None:
        given_up = asyncio.create_task(crew.gather(tasks(a=3, b=3, c=3)))
        await settle()
        given_up.cancel()
        await settle()
        done = asyncio.create_task(crew.gather(tasks(d=1, e=1)))
        await settle()
        assert hand.names.endswith(" d e")
        while not done.done():
            await hand.finish()
        assert [job.name for job in await done] == ["d", "e"]

    with_hands(1, work)


def test_the_jobs_of_a_lost_worker_go_to_the_others() -> None:
    async def work(crew: Crew, one: Hand, two: Hand) -> None:
        done = asyncio.create_task(crew.gather(tasks(a=1, b=1, c=1)))
        await settle()
        lost = WorkerLostError("it died", charge=0, usable=False)
        await one.finish(lost)
        await one.finish(lost)
        assert one.closed
        assert crew.size == 1
        for _ in range(3):
            await two.finish()
        assert two.names == "b a c"
        assert len(await done) == 3

    with_hands(2, work)


def test_a_job_is_completed_when_it_has_a_worker_and_again_for_another_one() -> None:
    completed: list[str] = []

    async def complete(job: Any) -> Task:
        completed.append(job.name)
        await asyncio.sleep(0)
        return Task(f"{job.name}!", job.cost)

    async def work(crew: Crew, one: Hand, two: Hand) -> None:
        async def done() -> list[Any]:
            return [job.name async for job in crew.run(tasks(a=1, b=2, c=3, d=4, e=5), complete=complete)]

        running = asyncio.create_task(done())
        await settle()
        assert (one.names, two.names, completed) == ("e! b!", "d! c!", ["e", "d", "c", "b"])
        for _ in range(2):
            await one.finish(WorkerLostError("it died", charge=0, usable=False))
        while not running.done():
            await two.finish()
        assert await running == ["a!", "b!", "c!", "d!", "e!"]
        assert sorted(completed) == ["a", "b", "b", "c", "d", "e", "e"]

    with_hands(2, work)


def test_of_several_jobs_that_fail_only_the_first_is_heard_of(caplog: pytest.LogCaptureFixture) -> None:
    async def work(crew: Crew, hand: Hand) -> None:
        async def fail(job: Any) -> Task:
            raise LookupError(job.name)

        with pytest.raises(LookupError, match="a"):
            [job async for job in crew.run(tasks(a=1, b=1), complete=fail)]

    with_hands(1, work)
    gc.collect()
    assert not caplog.records


class Slow:
    """A worker whose even jobs wait for a signal; counts what it was given."""

    depth = 1
    starting = False

    def __init__(self, gate: asyncio.Event) -> None:
        self.gate = gate
        self.begun: list[int] = []

    async def run(self, job: Any) -> Any:
        self.begun.append(job.number)
        if job.number == 0:
            await self.gate.wait()
        return job.number

    def close(self) -> None: ...


def test_results_come_in_order_and_only_so_many_are_begun_ahead() -> None:
    async def work() -> None:
        gate = asyncio.Event()
        workers = [Slow(gate), Slow(gate)]
        crew = Crew(workers, Board(1), lambda: workers[0])
        results = crew.run(Echo(n) for n in range(100))
        first = asyncio.create_task(anext(results))
        await asyncio.sleep(0)
        while len(workers[1].begun) < 2 * AHEAD - 1:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(workers[0].begun) + len(workers[1].begun) == 2 * AHEAD
        gate.set()
        assert await first == 0
        assert [number async for number in results] == list(range(1, 100))

    asyncio.run(work())
