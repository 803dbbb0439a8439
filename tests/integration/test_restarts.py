"""`parityfl run --engine http` with client processes that end when they should not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import Process

from parityfl.core.errors import FleetError
from parityfl.experiments.processes import MAX_RESTARTS

SMALL = ["--clients", "4", "--per-round", "2", "--rounds", "3", "--set", "engine.processes=1"]
BREAKING = """
import os, pathlib, sys
if "client" in sys.orig_argv:
    starts = pathlib.Path(os.environ["STARTS"])
    with starts.open("a") as file:
        file.write("x")
    if len(starts.read_text()) <= int(os.environ["BROKEN"]):
        print("parityfl: its disk is broken", file=sys.stderr, flush=True)
        os._exit(int(os.environ["CODE"]))
"""
"""What every Python process of the run does first: clients end at once, as often as they are told to."""


def ended(folder: Path, code: int, broken: int) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run whose first `broken` client processes end at once; return how it ended, and how many there were."""
    (folder / "sitecustomize.py").write_text(BREAKING)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    told = {"PYTHONPATH": path, "STARTS": str(folder / "starts"), "CODE": str(code), "BROKEN": str(broken)}
    command = [sys.executable, "-m", "parityfl", "run", *SMALL, "--engine", "http", "--out", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **told})
    return done, len((folder / "starts").read_text())


@pytest.mark.parametrize("code", [0, FleetError.exit_code, -9 % 256])
def test_a_client_process_that_ends_is_started_again_whatever_its_exit_code(tmp_path: Path, code: int) -> None:
    done, starts = ended(tmp_path, code, 2)
    assert (done.returncode, starts) == (0, 3), done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["deterministic"]) == ("done", True)


def test_a_client_process_that_ends_at_once_each_time_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    done, starts = ended(tmp_path, FleetError.exit_code, 1000)
    assert (done.returncode, starts) == (FleetError.exit_code, MAX_RESTARTS + 1), done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("parityfl: the client process of h0..h3 ended 6 times soon after its start"), last
    assert last.endswith("last with exit code 2: its disk is broken"), last
    assert not [p for p in psutil.process_iter() if _runs(p, str(tmp_path))]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's choice is Linux's")
def test_the_kernel_is_offered_the_clients_before_the_coordinator(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "parityfl", "run", *SMALL, "--engine", "http", "--out", str(tmp_path / "run")]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen([*command, "--rounds", "100000"], stdout=log, stderr=log)
    try:
        Process(run, tmp_path / "log").until(lambda: (tmp_path / "run" / "rounds.csv").is_file() or None)
        children = psutil.Process(run.pid).children()
        found = {process.cmdline()[3]: _score(process.pid) for process in children}
        assert found == {"coordinator": _score(run.pid), "client": 1000}
    finally:
        run.terminate()
        run.wait()


def _score(process: int) -> int:
    return int(Path(f"/proc/{process}/oom_score_adj").read_text())


def _runs(process: psutil.Process, folder: str) -> bool:
    try:
        return any(folder in argument for argument in process.cmdline())
    except psutil.Error:
        return False
