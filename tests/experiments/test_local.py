"""The local engine: any number of workers gives the same bits, and a worker that dies costs its client's slot only."""

import asyncio
import csv
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from crew_jobs import Die, DieOnce, Doze, Echo, Fail, FailOddly, Hoard, ReadFile, Return, Starve
from safetensors.numpy import load_file
from watching import has_closed, until

from parityfl.config import Config
from parityfl.core.errors import ConfigError, FleetError, UnfinishedError
from parityfl.core.machine import available_cores
from parityfl.core.types import Outcome, Update, Vector
from parityfl.engine.fleet import Evaluation, Reply, TrainTask
from parityfl.experiments.batched import Batching, choose_batching
from parityfl.experiments.build import WorkbenchEvaluator
from parityfl.experiments.children import CORES, cores
from parityfl.experiments.crew import AHEAD, Crew, Lost, WorkerLostError
from parityfl.experiments.forking import context, start
from parityfl.experiments.jobs import TrainJob, perform
from parityfl.experiments.local import SMALL_RUN, LocalFleet, choose_workers, local_crew
from parityfl.experiments.run import execute
from parityfl.experiments.shared import Board, SharedArray, SharedHoldings
from parityfl.experiments.workers import _FITS_BYTES, Starvation, Station, WorkerProcess
from parityfl.training.holdings import load_holdings, spans
from parityfl.training.memory import ClientMemory
from parityfl.training.workbench import Workbench


def config(**changes: Any) -> Config:
    sections = {
        "seed": 3,
        "method": "fedavg",
        "population": {"clients": 6, "per_round": 4, "samples_per_client": 30},
        "rounds": {"count": 3},
        "availability": {"name": "always"},
    }
    return Config(**{**sections, **changes})


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(config())


def hashes(folder: Path) -> tuple[str, str, bool]:
    summary = json.loads((folder / "summary.json").read_text())
    return summary["model_hash"], summary["ledger_hash"], summary["deterministic"]


UNEVEN = {"clients": 6, "per_round": 4, "partition": "quantity"}


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"name": "plain"}},
        {"objective": {"name": "scaffold"}},
        {"objective": {"name": "ditto"}},
        {"objective": {"name": "ditto"}, "population": UNEVEN},
    ],
    ids=["plain", "scaffold", "ditto", "uneven"],
)
def test_any_number_of_workers_gives_the_same_hashes(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = set()
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        execute(config(**changes, engine={"workers": workers}), out)
        found.add(hashes(out))
    assert len(found) == 1
    assert found.pop()[2] is True


def test_a_convolution_network_and_a_start_of_ones_own_train_alike(tmp_path: Path) -> None:
    """`afl` gives each client a model of its own to start from, which the board does not hold."""
    for workers in (1, 2):
        changes = {"aggregator": {"name": "afl"}, "model": {"name": "cnn-small"}, "engine": {"workers": workers}}
        execute(config(**changes), tmp_path / str(workers))
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")


def with_workers(bench: Workbench, workers: int, work: Callable[[Crew], Any]) -> tuple[Any, list[str]]:
    """Run a coroutine over a crew of worker processes; return its result and what was said."""
    said: list[str] = []

    async def main() -> Any:
        with local_crew(bench, workers, said.append) as crew:
            return await work(crew)

    return asyncio.run(main()), said


def station(bench: Workbench, *modules: str) -> Station:
    return Station(bench.config, SharedHoldings.copy_of(bench.holdings), Board(bench.layout.size), modules)


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
        worker = WorkerProcess(station(bench))
        await worker.run(Echo(0))
        return await losses(worker, Die(), Echo(1))

    dead, next_one = asyncio.run(main())
    assert (dead.charge, dead.usable, dead.reason) == (1, True, "its worker process died")
    assert (next_one.charge, next_one.usable, next_one.reason) == (0, True, "its worker process died")


def test_a_process_that_is_ended_by_us_charges_nobody(bench: Workbench) -> None:
    """As where a worker is out of memory, and the next job has begun when it is sent home."""

    async def main() -> list[Any]:
        worker = WorkerProcess(station(bench))
        await worker.run(Echo(0))
        found = asyncio.gather(worker.run(Doze()), worker.run(Echo(1)), return_exceptions=True)
        await asyncio.sleep(0)
        worker.close()
        return await found

    losses = [(loss.charge, loss.usable, loss.reason) for loss in asyncio.run(main())]
    assert losses == [(0, False, "its worker process was ended")] * 2


def test_the_pipe_takes_a_workers_two_small_messages_at_once() -> None:
    ours, theirs = context().Pipe()
    with ours, theirs:
        os.set_blocking(ours.fileno(), False)
        for _ in range(WorkerProcess.depth):
            ours.send_bytes(bytes(_FITS_BYTES))  # it would raise BlockingIOError


def test_a_process_that_dies_before_it_can_work_charges_nobody(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dies_at_import.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)

    async def main() -> list[Any]:
        return await losses(WorkerProcess(station(bench, "dies_at_import")), Echo(0), Echo(1))

    assert [(loss.charge, loss.usable) for loss in asyncio.run(main())] == [(0, True), (0, True)]


async def beside_an_echo(bench: Workbench, job: Any) -> Any:
    """Give a worker a job and then another; return what became of both."""
    worker = WorkerProcess(station(bench))
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

    monkeypatch.setattr("parityfl.experiments.workers.start", late)
    before = set(active_children())

    async def main() -> None:
        WorkerProcess(station(bench)).close()
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

    monkeypatch.setattr("parityfl.experiments.local.WorkerProcess", Recorded)
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

    monkeypatch.setattr("parityfl.experiments.workers.start", refused)
    results, said = with_workers(bench, 2, lambda crew: crew.gather([Echo(n) for n in range(4)]))
    assert results == [(n, os.getpid()) for n in range(4)]
    why = "its worker process could not be started ([Errno 11] Resource temporarily unavailable)"
    assert said[1:] == [
        f"{why}: going on with 1 worker",
        f"{why}: no worker process is left, going on in this process",
    ]
    gc.collect()
    assert not caplog.records


def test_what_has_no_room_is_refused_before_it_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parityfl.experiments.shared.disk_usage", lambda _: SimpleNamespace(free=10**6))
    assert SharedArray((10**6,), np.uint8).view().shape == (10**6,)
    with pytest.raises(FleetError, match=r"4 MB that processes share .* room for 1: .*engine\.workers = 1"):
        SharedArray((10**6,), np.float32)


def test_jobs_and_answers_that_no_pipe_takes_at_once_come_whole_and_in_order(bench: Workbench) -> None:
    contents = [bytes([n]) * (2**21 + n) for n in range(5)]

    async def main() -> Any:
        worker = WorkerProcess(station(bench))
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


def test_want_of_memory_is_the_reason_for_no_more_deaths_than_it_caused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has killed two processes before this one looks, and one more later: that explains one death."""
    kills = iter([2, 3, 3])
    monkeypatch.setattr("parityfl.experiments.workers._oom_kills", lambda: next(kills))
    starvation = Starvation()
    assert [starvation.struck(), starvation.struck()] == [True, False]


def test_two_deaths_for_want_of_memory_between_two_looks_are_both_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter([2, 4, 4, 4])
    monkeypatch.setattr("parityfl.experiments.workers._oom_kills", lambda: next(kills))
    starvation = Starvation()
    assert [starvation.struck() for _ in range(3)] == [True, True, False]


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


GREEDY = """
from torch import empty, nn
from parityfl.cli import main
from parityfl.training.models import model

@model("greedy")
class Greedy(nn.Module):
    def __init__(self, shape, num_classes):
        super().__init__()
        self.output = nn.Linear(64, num_classes)

    def forward(self, images):
        return self.output(images.flatten(1) + (empty(2**60) if self.training else 0))

main()
"""


def test_a_run_that_there_is_no_memory_for_ends_unfinished_with_one_line(tmp_path: Path) -> None:
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(GREEDY)
    options = ["--clients", "4", "--per-round", "2", "--rounds", "2", "--set", "model.name=greedy", "--out", str(out)]
    done = subprocess.run([sys.executable, str(script), "run", *options], capture_output=True, text=True, check=False)
    assert done.returncode == UnfinishedError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("parityfl: out of memory with one worker")
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["rounds_completed"]) == ("interrupted", 0)


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


def test_results_come_in_order_and_only_so_many_are_begun_ahead(bench: Workbench) -> None:
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


class Unlucky:
    """Loses the client 2."""

    depth = 1
    starting = False

    async def run(self, job: Any) -> Any:
        if job.client == 2:
            raise WorkerLostError("its worker process died", charge=1, usable=True)
        return Update(job.client, np.zeros(1, dtype=np.float32), 1, 0.0), None

    def close(self) -> None: ...


def test_a_lost_client_fails_with_its_reason_and_the_run_is_no_longer_deterministic() -> None:
    weights = np.zeros(1, dtype=np.float32)
    task = TrainTask(1, 0.0, np.arange(4), weights, lambda client: weights, None, np.zeros(4, dtype=np.int64))

    async def work() -> list[Reply]:
        crew = Crew([Unlucky()], Board(1), Unlucky)
        fleet = LocalFleet(crew, None, np.ones(4, dtype=np.int64), ClientMemory())  # type: ignore[arg-type]
        return [reply async for reply in fleet.train(task)]

    replies = asyncio.run(work())
    assert [reply.client for reply in replies] == [0, 1, 2, 3]
    assert [reply.outcome for reply in replies if reply.client != 2] == [Outcome.COMPLETED] * 3
    assert (replies[2].outcome, replies[2].reason) == (Outcome.FAILED, "its worker process died")
    assert [reply.reproducible for reply in replies] == [True, True, False, True]


class Watched(ClientMemory):
    """Remembers for whom files were read, and in which threads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: dict[int, int] = {}

    def _load(self, client: int, round: int) -> Vector:
        self.read[client] = threading.get_ident()
        return super()._load(client, round)


class Returning:
    """Returns what a client kept, as its update and what it keeps."""

    depth = 1
    starting = False

    async def run(self, job: Any) -> Any:
        kept = np.zeros(1, dtype=np.float32) if job.memory is None else job.memory
        return Update(job.client, kept, 1, 0.0), kept

    def close(self) -> None: ...


def test_what_clients_keep_is_read_off_the_event_loop_where_it_must_be_read(tmp_path: Path) -> None:
    """Clients 1 to 3 kept their number in round 7, client 3 in this process; client 0 has never completed a round."""
    weights, memory = np.zeros(1, dtype=np.float32), Watched(tmp_path)
    for client in range(1, 4):
        process = memory if client == 3 else ClientMemory(tmp_path)
        process.store(client, 7, np.full(1, client, dtype=np.float32), 0)
    rounds = np.array([0, 7, 7, 7])
    task = TrainTask(8, 0.0, np.arange(4), weights, lambda client: weights, None, rounds)

    async def work() -> list[Reply]:
        fleet = LocalFleet(Crew([Returning()], Board(1), Returning), None, np.ones(4, dtype=np.int64), memory)  # type: ignore[arg-type]
        return [reply async for reply in fleet.train(task)]

    replies = asyncio.run(work())
    assert [float(reply.update.delta[0]) for reply in replies if reply.update] == [0, 1, 2, 3]
    assert list(memory.read) == [1, 2]
    assert threading.get_ident() not in memory.read.values()


def selections(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "clients.csv").open() as lines:
        return [(row["round"], row["client_id"], row["selected"]) for row in csv.DictReader(lines)]


@pytest.mark.parametrize("workers", [1, 2])
def test_batched_mode_selects_the_same_and_learns_alike(tmp_path: Path, workers: int) -> None:
    """Sixteen clients of a few images: three rounds of twelve, with a selector that steers by the measured gains."""
    common = {
        "method": "parityfl",
        "population": {"clients": 16, "per_round": 12, "samples_per_client": 20},
        "rounds": {"count": 3},
        "availability": {"name": "bernoulli", "pi": 0.9},
        "objective": {"name": "ditto"},
    }
    for mode in ("exact", "batched"):
        execute(config(**common, engine={"mode": mode, "workers": workers}), tmp_path / mode)
    assert selections(tmp_path / "exact") == selections(tmp_path / "batched")
    summaries = [json.loads((tmp_path / mode / "summary.json").read_text()) for mode in ("exact", "batched")]
    assert [summary["deterministic"] for summary in summaries] == [True, False]
    models = [load_file(tmp_path / mode / "model.safetensors") for mode in ("exact", "batched")]
    for name, weights in models[0].items():
        assert np.allclose(weights, models[1][name], atol=1e-3, rtol=0)


def test_a_kernel_that_there_is_no_memory_for_is_not_taken(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it cost a worker: the others are measured, here one by one and vmap."""
    train_many = bench.train_many

    def short_of_memory(*arguments: Any, **options: Any) -> Any:
        if options["kernel"] == "grouped":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return train_many(*arguments, **options)

    monkeypatch.setattr(bench, "train_many", short_of_memory)
    batching, said = with_workers(bench, 1, lambda crew: choose_batching(bench, crew, print))
    assert "grouped" in bench.kernels
    assert batching is None or batching.kernel == "vmap"
    assert len(said) == 1, "nobody was dismissed"


def jobs_of(costs: dict[int, int], memory: Any = None) -> list[TrainJob]:
    return [TrainJob(1, client, None, False, memory, cost) for client, cost in costs.items()]


def test_groups_are_of_a_like_size_and_apart_from_those_with_a_memory() -> None:
    """Five of eight clients have no memory; by size their order is 3 2 1 0 4, in two groups for each of two workers."""
    jobs = [*jobs_of({0: 9, 1: 8, 2: 7, 3: 6, 4: 9}), *jobs_of({5: 1, 6: 3, 7: 2}, np.zeros(1))]
    groups = Batching("vmap")._groups(jobs, 2)
    assert groups == [[3, 2, 1, 0], [4], [5, 7, 6]]


def test_a_lost_group_is_lost_for_each_of_its_clients_and_results_keep_their_order() -> None:
    class Flaky:
        depth = 1
        starting = False

        async def run(self, job: Any) -> Any:
            if job.parts[0].client == 2:
                raise WorkerLostError("its worker process died", charge=1, usable=True)
            return [(part.client, None) for part in job.parts]

        def close(self) -> None: ...

    async def work() -> list[Any]:
        crew = Crew([Flaky(), Flaky()], Board(1), Flaky)
        return [result async for result in Batching("vmap").run(crew, jobs_of({0: 4, 1: 3, 2: 1, 3: 2}))]

    lost = Lost("its worker process died")
    assert asyncio.run(work()) == [(0, None), (1, None), lost, lost]


def test_batched_mode_is_for_the_local_engine() -> None:
    with pytest.raises(ConfigError, match=r"engine\.mode = 'batched' with engine\.name = 'http'"):
        config(engine={"name": "http", "mode": "batched"})


@pytest.mark.parametrize("rate", [2.0, [0.1, 0.2]])
def test_a_wrong_rate_of_drop_out_leaves_no_folder(tmp_path: Path, rate: Any) -> None:
    with pytest.raises(ConfigError, match=r"dropout\.rate h"):
        execute(config(dropout={"rate": rate}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_memory_that_does_not_fit_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes room, or takes another rule, may take the same folder."""
    remembers, out = config(aggregator={"name": "mifa"}), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("parityfl.core.aggregation.memory.available_memory", lambda: 1000)
        with pytest.raises(ConfigError, match="this aggregator remembers one update per client"):
            execute(remembers, out)
    assert not out.exists()
    execute(config(rounds={"count": 1}), out)
    assert hashes(out)[2] is True


@pytest.mark.parametrize("model", ["mlp", "cnn-small"])
def test_evaluation_is_the_same_whoever_measures(model: str) -> None:
    """The first 360 test images in pieces and by one pass; the moving average is another model than the weights."""
    bench = Workbench(config(model={"name": model}))
    weights = bench.initial_weights()
    average = weights * np.float32(0.5)
    found = []
    for workers in (1, 2):

        async def work(crew: Crew) -> Any:
            return await WorkbenchEvaluator(bench, crew)(1, weights, average)

        found.append(with_workers(bench, workers, work)[0])
    one, two = found
    assert (one.global_loss, one.global_accuracy, one.ema_global_accuracy) == (
        two.global_loss,
        two.global_accuracy,
        two.ema_global_accuracy,
    )
    assert one.clients.loss.tobytes() == two.clients.loss.tobytes()
    assert (one.global_loss, one.global_accuracy) == bench.evaluate_test(weights)
    assert one.ema_global_accuracy == bench.evaluate_test(average)[1]
    assert np.array_equal(one.clients.accuracy, bench.holdings.held.means(bench.measure("held", weights)[1]))


def test_an_evaluation_without_the_test_set_measures_the_clients_alike() -> None:
    bench = Workbench(config())
    weights = bench.initial_weights()

    async def both() -> list[Evaluation]:
        evaluate = WorkbenchEvaluator(bench)
        return [await evaluate(1, weights, weights * np.float32(0.5), on_test_set=tested) for tested in (True, False)]

    whole, clients_only = asyncio.run(both())
    assert np.isnan([clients_only.global_loss, clients_only.global_accuracy, clients_only.ema_global_accuracy]).all()
    assert clients_only.clients.loss.tobytes() == whole.clients.loss.tobytes()
    assert clients_only.clients.accuracy.tobytes() == whole.clients.accuracy.tobytes()


def test_pieces_are_whole_batches() -> None:
    """Sixteen batches of 64 are 1,024; nothing is one piece of nothing."""
    assert list(spans(2500, 64)) == [(0, 1024), (1024, 2048), (2048, 2500)]
    assert list(spans(1024, 64)) == [(0, 1024)]
    assert list(spans(0, 64)) == [(0, 0)]


def test_pieces_measure_what_the_whole_does(bench: Workbench) -> None:
    weights, half = bench.initial_weights(), 512
    whole = bench.measure("held", weights)
    parts = [bench.measure("test", weights, 0, half), bench.measure("test", weights, half)]
    assert np.concatenate([part[0] for part in parts]).tobytes() == bench.measure("test", weights)[0].tobytes()
    assert len(whole[0]) == bench.holdings.held.bounds[-1]


def test_small_runs_need_no_workers_and_large_ones_take_every_core() -> None:
    """6 clients of 24 images of 64 pixels: 4 x 24 x 64 = 6,144 pixels a round."""
    small = config(rounds={"count": SMALL_RUN // 6144})
    large = config(rounds={"count": SMALL_RUN // 6144 + 1})
    holdings = load_holdings(small)
    assert holdings.num_samples.tolist() == [24] * 6
    assert choose_workers(small, holdings) == 1
    assert choose_workers(large, holdings) == available_cores()
    assert choose_workers(config(engine={"workers": 5}), holdings) == 5


def test_no_more_workers_start_than_there_are_clients(tmp_path: Path) -> None:
    """A million processes would be more than the system has files for."""
    said: list[str] = []
    few = config(engine={"workers": 1_000_000}, population={"clients": 2, "per_round": 1}, rounds={"count": 1})
    execute(few, tmp_path / "run", say=said.append)
    assert any("2 worker processes (engine.workers = 1000000, but there are 2 clients), one" in line for line in said)


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("0", None), ("many", None), ("", None)])
def test_a_run_may_be_given_fewer_cores(monkeypatch: pytest.MonkeyPatch, given: str, expected: int | None) -> None:
    monkeypatch.setenv(CORES, given)
    assert cores() == (expected or available_cores())


def test_shared_arrays_hold_what_they_copy() -> None:
    array = np.arange(12, dtype=np.int16).reshape(3, 4)
    shared = SharedArray.copy_of(array)
    assert np.array_equal(shared.view(), array)
    shared.view()[0, 0] = 7
    assert shared.view()[0, 0] == 7
    assert SharedArray((0, 3), np.float32).view().shape == (0, 3)


def test_shared_holdings_are_the_holdings(bench: Workbench) -> None:
    opened = SharedHoldings.copy_of(bench.holdings).open()
    for part in ("train", "held", "test"):
        for name in ("images", "labels", "bounds"):
            assert np.array_equal(getattr(getattr(opened, part), name), getattr(getattr(bench.holdings, part), name))


SCRIPT = """
import sys
import parityfl
config = parityfl.Config(
    method="fedavg", population={"clients": 4, "per_round": 2, "samples_per_client": 30},
    rounds={"count": int(sys.argv[2])}, availability={"name": "always"}, engine={"workers": 2},
)
print("once", flush=True)
parityfl.run(config, out=sys.argv[1])
"""


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "run"), "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "once\n"


def test_workers_die_with_the_run_however_it_dies(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.Popen([sys.executable, str(script), str(tmp_path / "run"), "100000"], stdout=subprocess.DEVNULL)
    until(lambda: has_closed(tmp_path / "run", 2), "two rounds")
    family = psutil.Process(run.pid).children(recursive=True)
    assert len(family) >= 3, "a server process and two workers"
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
