"""Cells of a suite as forked processes: how they end, what they say, and that none is left. With real runs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from watching import PATIENCE_S, has_closed, until

from parityfl.config import Config
from parityfl.experiments.local_cells import launch_fork
from parityfl.experiments.run import execute
from parityfl.workers.fork_server import LONGEST_PLACE, context

LONG = {"data": {"name": "digits"}, "rounds": {"count": 20_000}, "evaluation": {"every": 1000}}
"""A run that does not end by itself."""


def configuration(tmp_path: Path, **sections: object) -> Config:
    config = Config(method="fedavg", utility={"functional": "local_gain"}, **sections)
    (tmp_path / "cell.json").write_text(json.dumps(config.document()), encoding="utf-8")
    return config


async def launched(tmp_path: Path, work: Callable, share: int = 1) -> object:
    """Do some work while a cell runs; what it says goes to a file."""
    arguments = ["run", str(tmp_path / "cell.json"), "--out", str(tmp_path / "out"), "--resume"]
    with (tmp_path / "log").open("wb") as errors:
        async with launch_fork(arguments, errors, share=share) as process:
            return await work(process)


def said(tmp_path: Path) -> str:
    return (tmp_path / "log").read_text(encoding="utf-8")


def offspring() -> set[int]:
    """Return the processes that run because of this one, but for the servers that are here to stay."""
    servers = psutil.Process().children()
    return {process.pid for server in servers for process in server.children(recursive=True)}


def test_a_cell_is_the_run_that_its_configuration_describes(tmp_path: Path) -> None:
    config = configuration(tmp_path, data={"name": "digits"}, rounds={"count": 3})
    assert asyncio.run(launched(tmp_path, lambda process: process.wait())) == 0
    execute(config, tmp_path / "here")
    forked, here = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("out", "here"))
    for key in ("model_hash", "ledger_hash", "deterministic"):
        assert forked[key] == here[key]
    assert (tmp_path / "out" / "report.html").exists()
    assert "fedavg round 3" in said(tmp_path)


def test_a_cell_starts_afresh_where_a_socket_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest path that a socket may have is 107 bytes: one beside what multiprocessing makes of this folder."""
    folder = tmp_path / ("x" * max(1, LONGEST_PLACE - len(os.fsencode(tmp_path))))
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    configuration(tmp_path, data={"name": "digits"}, rounds={"count": 1}, engine={"workers": 2})
    assert context().get_start_method() == "spawn"
    assert asyncio.run(launched(tmp_path, lambda process: process.wait())) == 0


def test_a_cell_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text("{", encoding="utf-8")
    assert asyncio.run(launched(tmp_path, lambda process: process.wait())) == 2
    assert said(tmp_path).startswith("parityfl: ")


def test_a_cell_that_is_killed_tells_its_signal(tmp_path: Path) -> None:
    configuration(tmp_path, engine={"workers": 1}, **LONG)
    before = offspring()

    async def killed(process: object) -> int:
        await asyncio.to_thread(until, lambda: has_closed(tmp_path / "out", 1), "a round")
        (cell,) = offspring() - before
        os.kill(cell, signal.SIGKILL)
        return await process.wait()

    assert asyncio.run(launched(tmp_path, killed)) == -signal.SIGKILL


def test_a_cell_takes_its_share_of_the_cores_and_leaves_with_its_context(tmp_path: Path) -> None:
    """With two cores it has two workers, and when we are done with it they are gone as well."""
    configuration(tmp_path, **LONG)
    before = offspring()

    async def seen(process: object) -> int:
        await asyncio.to_thread(until, lambda: has_closed(tmp_path / "out", 1), "a round")
        return len(offspring() - before)

    assert asyncio.run(launched(tmp_path, seen, share=2)) >= 3
    assert "2 worker processes" in said(tmp_path)
    assert "interrupted; go on with --resume" in said(tmp_path)
    until(lambda: not offspring() - before, "all processes have left")


def test_a_cell_that_is_given_up_while_it_starts_is_stopped(tmp_path: Path) -> None:
    configuration(tmp_path, **LONG)
    before = offspring()

    async def given_up() -> None:
        task = asyncio.create_task(launched(tmp_path, lambda process: process.wait()))
        while not (tmp_path / "log").exists():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(given_up())
    until(lambda: not offspring() - before, "all processes have left")


SUITE = """
data.name = "digits"
utility.functional = "local_gain"
evaluation.every = 1000
rounds.count = 20_000
[grid]
seed = [0, 1]
"""


@pytest.fixture
def suite(tmp_path: Path):
    """A suite of runs that do not end by themselves, a process group of its own."""
    (tmp_path / "long.toml").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "parityfl", "suite", str(tmp_path / "long.toml"), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [*command, "--jobs", "2"], stderr=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        yield process
        process.kill()


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_nothing_outlives_a_suite_that_is_killed(tmp_path: Path, suite: subprocess.Popen) -> None:
    until(lambda: all(has_closed(tmp_path / "out" / name, 1) for name in ("seed0", "seed1")), "a round of each")
    suite.kill()
    suite.wait()
    until(lambda: group_is_gone(suite.pid), "all processes have left")


@pytest.mark.parametrize("sign", ["logs/seed0.log", "seed0/rounds.csv"], ids=["importing", "running"])
def test_ctrl_c_is_one_line_whenever_it_comes(tmp_path: Path, suite: subprocess.Popen, sign: str) -> None:
    """A terminal sends it to all processes of the group: also to the one that imports torch at that moment."""
    until((tmp_path / "out" / sign).exists, sign)
    os.killpg(suite.pid, signal.SIGINT)
    _, errors = suite.communicate(timeout=PATIENCE_S)
    assert suite.returncode == 130
    lines = [line for line in errors.splitlines() if line.startswith("parityfl: ")]
    assert lines == ["parityfl: interrupted; go on with --resume"]
    assert "Traceback" not in errors
    until(lambda: group_is_gone(suite.pid), "all processes have left")
