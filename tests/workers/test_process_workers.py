"""Workers that are processes: one that dies costs its client's slot only."""

import asyncio
import gc
import os
import sys
import threading
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import psutil
import pytest
from crew_jobs import Die, DieOnce, Doze, Echo, Fail, FailOddly, Hoard, ReadFile, Return, Starve
from workbenches import with_workers

from parityfl.core.errors import UnfinishedError
from parityfl.training.workbench import Workbench
from parityfl.workers.crew import Crew, Lost
from parityfl.workers.fork_server import start
from parityfl.workers.jobs import perform
from parityfl.workers.process_workers import WorkerProcess, WorkerSetup
from parityfl.workers.shared_memory import Board, SharedHoldings


def setup_of(bench: Workbench, *modules: str) -> WorkerSetup:
    return WorkerSetup(bench.config, SharedHoldings.copy_of(bench.holdings), Board(bench.layout.size), modules)


def test_the_first_line_says_who_works_and_how(bench: Workbench) -> None:
    _, said = with_workers(bench, 1, lambda crew: crew.gather([]))
    assert said == ["this process, one thread each, mlp on cpu, contiguous_format, float32"]


def test_a_job_whose_worker_is_killed_once_is_done_again(bench: Workbench, tmp_path: Path) -> None:
    """Training is a pure function of its job: a run that loses a worker ends as one that does not."""
    results, _ = with_workers(bench, 2, lambda crew: crew.gather([Die(str(tmp_path / "died")), Echo(1)]))
    assert results[0] == "alive"


def test_a_job_that_kills_its_workers_is_given_up_and_costs_no_other(bench: Workbench) -> None:
    async def work(crew: Crew) -> list[Any]:
        jobs = [Echo(0), Echo(1), Die(), *(Echo(n) for n in range(3, 12))]
        return [result async for result in crew.run(jobs)]

    results, said = with_workers(bench, 2, work)
    assert isinstance(results[2], Lost)
    assert "died" in results[2].reason
    assert [result[0] for n, result in enumerate(results) if n != 2] == [0, 1, *range(3, 12)]
    assert os.getpid() not in {result[1] for n, result in enumerate(results) if n != 2}
    assert len(said) == 1, "the worker was replaced, so nothing more is said"


def test_what_changes_nothing_is_done_again_and_again(bench: Workbench, tmp_path: Path) -> None:
    results, _ = with_workers(bench, 2, lambda crew: crew.gather([DieOnce(str(tmp_path / "died")), Echo(1)]))
    assert results[0] == "alive"


def test_a_worker_killed_while_idle_costs_nothing(bench: Workbench) -> None:
    async def work(crew: Crew) -> list[Any]:
        (_, pid), *_ = await crew.gather([Echo(0)])
        process = psutil.Process(pid)
        process.kill()
        await asyncio.to_thread(psutil.wait_procs, [process], 10)
        return await crew.gather([Echo(n) for n in range(4)])

    results, _ = with_workers(bench, 1 + 1, work)
    assert [number for number, _ in results] == [0, 1, 2, 3]


async def losses(worker: WorkerProcess, *jobs: Any) -> list[Any]:
    """Give a worker several jobs at once, which it will not survive, and return how it was lost for each of them."""
    try:
        return await asyncio.gather(*map(worker.run, jobs), return_exceptions=True)
    finally:
        worker.close()


def test_of_the_jobs_that_a_dead_process_had_the_first_is_charged(bench: Workbench) -> None:
    async def main() -> list[Any]:
        worker = WorkerProcess(setup_of(bench))
        await worker.run(Echo(0))
        return await losses(worker, Die(), Echo(1))

    dead, next_one = asyncio.run(main())
    assert (dead.charge, dead.usable, dead.reason) == (1, True, "its worker process died")
    assert (next_one.charge, next_one.usable, next_one.reason) == (0, True, "its worker process died")


def test_a_process_that_is_ended_by_us_charges_nobody(bench: Workbench) -> None:
    """As where a worker is out of memory, and the next job has begun when it is sent home."""

    async def main() -> list[Any]:
        worker = WorkerProcess(setup_of(bench))
        await worker.run(Echo(0))
        found = asyncio.gather(worker.run(Doze()), worker.run(Echo(1)), return_exceptions=True)
        await asyncio.sleep(0)
        worker.close()
        return await found

    losses = [(loss.charge, loss.usable, loss.reason) for loss in asyncio.run(main())]
    assert losses == [(0, False, "its worker process was ended")] * 2


def test_a_process_that_dies_before_it_can_work_charges_nobody(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies_at_import.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)

    async def main() -> list[Any]:
        return await losses(WorkerProcess(setup_of(bench, "dies_at_import")), Echo(0), Echo(1))

    assert [(loss.charge, loss.usable) for loss in asyncio.run(main())] == [(0, True), (0, True)]


async def beside_an_echo(bench: Workbench, job: Any) -> Any:
    """Give a worker a job and then another; return what became of both."""
    worker = WorkerProcess(setup_of(bench))
    found = await asyncio.gather(worker.run(job), worker.run(Echo(1)), return_exceptions=True)
    worker.close()
    return found


def test_what_a_job_raises_is_raised_here_with_where_it_happened(bench: Workbench) -> None:
    failure, (number, _) = asyncio.run(beside_an_echo(bench, Fail()))
    assert (str(failure), number) == ("a job that fails", 1)
    assert "crew_jobs.py" in failure.__notes__[0]


def test_an_error_that_cannot_be_told_as_it_is_is_told_by_its_traceback(bench: Workbench) -> None:
    """It is the job that fails then, as it would in this process, and not the worker."""
    failure, (number, _) = asyncio.run(beside_an_echo(bench, FailOddly()))
    assert "OddError: an odd error" in str(failure)
    assert number == 1


def test_a_process_that_is_still_to_begin_when_all_is_over_does_not_stay(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def late(*arguments: Any) -> None:
        gate.wait()
        start(*arguments)

    monkeypatch.setattr("parityfl.workers.process_workers.start", late)
    before = set(active_children())

    async def main() -> None:
        WorkerProcess(setup_of(bench)).close()
        gate.set()

    asyncio.run(main())
    begun = set(active_children()) - before
    for process in begun:
        process.join(30)
    assert not [process for process in begun if process.is_alive()]


def test_where_a_worker_cannot_be_made_none_of_those_before_it_stays(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[WorkerProcess] = []
    closed: list[WorkerProcess] = []

    class Recorded(WorkerProcess):
        def __init__(self, *arguments: Any) -> None:
            if len(made) == 2:
                raise OSError(24, "Too many open files")
            super().__init__(*arguments)
            made.append(self)

        def close(self) -> None:
            super().close()
            closed.append(self)

    monkeypatch.setattr("parityfl.workers.process_workers.WorkerProcess", Recorded)
    before = set(active_children())
    with pytest.raises(OSError, match="Too many open files"):
        with_workers(bench, 3, lambda crew: crew.gather([]))
    assert len(made) == 2
    assert set(closed) == set(made)
    begun = set(active_children()) - before
    for process in begun:
        process.join(30)
    assert not [process for process in begun if process.is_alive()]


def test_why_a_worker_could_not_be_started_is_said(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the system has no process left; nobody is charged, and nothing is left for the log."""

    def refused(process: Any, given: Any) -> None:
        with given:
            raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("parityfl.workers.process_workers.start", refused)
    results, said = with_workers(bench, 2, lambda crew: crew.gather([Echo(n) for n in range(4)]))
    assert results == [(n, os.getpid()) for n in range(4)]
    why = "its worker process could not be started ([Errno 11] Resource temporarily unavailable)"
    assert said[1:] == [
        f"{why}: going on with 1 worker",
        f"{why}: no worker process is left, going on in this process",
    ]
    gc.collect()
    assert not caplog.records


@pytest.mark.parametrize(
    ("count", "size"),
    [(WorkerProcess.depth, 2**15 - 2**9), (5, 2**21)],
    ids=["as large as the event loop sends them itself", "larger than any pipe"],
)
def test_jobs_and_answers_come_whole_and_in_order(bench: Workbench, count: int, size: int) -> None:
    """The jobs are given before the process has begun: were the event loop to wait for it, it would never begin."""
    contents = [bytes([n]) * (size + n) for n in range(count)]

    async def main() -> Any:
        worker = WorkerProcess(setup_of(bench))
        found = await asyncio.gather(*(worker.run(Return(content)) for content in contents), worker.run(Echo(5)))
        worker.close()
        return found

    *returned, (number, _) = asyncio.run(main())
    assert (returned, number) == (contents, 5)


def test_workers_that_cannot_be_kept_alive_leave_the_work_to_this_process(bench: Workbench) -> None:
    async def work(crew: Crew) -> list[Any]:
        lost = [result async for result in crew.run([Die()] * 4)]
        return [lost, await crew.gather([Echo(9)])]

    (lost, echoed), said = with_workers(bench, 2, work)
    assert all(isinstance(result, Lost) for result in lost)
    assert echoed == [(9, os.getpid())]
    assert "going on with 1 worker" in said[1]
    assert "no worker process is left, going on in this process" in said[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's choice is Linux's")
def test_the_kernel_is_offered_the_workers_before_the_process_that_has_the_run(bench: Workbench) -> None:
    ours = Path("/proc/self/oom_score_adj").read_text()
    results, _ = with_workers(bench, 2, lambda crew: crew.gather([ReadFile("/proc/self/oom_score_adj")] * 2))
    assert results == ["1000\n"] * 2
    assert Path("/proc/self/oom_score_adj").read_text() == ours


def test_out_of_memory_means_fewer_workers_and_no_loss(bench: Workbench) -> None:
    results, said = with_workers(bench, 2, lambda crew: crew.gather([Starve(os.getpid())]))
    assert results == [os.getpid()]
    assert said[1:] == [
        "out of memory: going on with 1 worker",
        "out of memory: no worker process is left, going on in this process",
    ]


def test_what_a_job_had_when_its_memory_ran_out_is_free_for_whoever_goes_on(bench: Workbench) -> None:
    hoard = Hoard()
    with pytest.raises(MemoryError, match=r"^no more$") as caught:
        perform(hoard, bench, Board(1))
    assert caught.value.__context__ is not None, "the error of the job is still there, as while it is handled"
    assert [had() for had in hoard.had] == [None]


def test_out_of_memory_alone_is_one_clear_line(bench: Workbench) -> None:
    with pytest.raises(UnfinishedError, match=r"out of memory with one worker .*training\.batch_size"):
        with_workers(bench, 1, lambda crew: crew.gather([Starve(-1)]))
