"""Faults of whole runs: stopped politely, out of devices, out of disk, orphaned. Each ends as the contract says."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from chaos_kills import checkpoints, children_of, document, gone, hashes
from chaos_rig import HERE, PATIENCE_S, end, python, until
from chaos_rows import Row

INTERRUPTED, UNFINISHED = 130, 3


class CannotError(Exception):
    """This machine does not let us inject the fault."""


@contextmanager
def command(
    out: Path, method: str, engine: str, rounds: int, *, resume: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `parityfl run` for a small run of some length."""
    parts = document(method, engine)
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps({**parts, "rounds": {**parts.get("rounds", {}), "count": rounds}}), encoding="utf-8")
    with (out.parent / f"{out.name}.log").open("ab") as log:
        more = ["--resume"] if resume else []
        process = python("-m", "parityfl", "run", file, "--out", out, *more, stdout=log, stderr=log)
    try:
        yield process
    finally:
        end(process)


def finished(out: Path, method: str, engine: str, rounds: int, *, resume: bool = False) -> tuple[str, str]:
    """Run to the end and return the hashes."""
    with command(out, method, engine, rounds, resume=resume) as process:
        assert process.wait(PATIENCE_S) == 0, log_of(out)
    return hashes(out)


def log_of(out: Path) -> str:
    return (out.parent / f"{out.name}.log").read_text(errors="replace")[-2000:]


def terminated(folder: Path, engine: str) -> Row:
    """SIGTERM in mid-run: exit 130, nobody left, a summary that says interrupted; resumed it ends the same."""
    out, rounds = folder / f"term-{engine}", 40
    whole = finished(folder / f"whole-{engine}", "mifa", "local", rounds)
    with command(out, "mifa", engine, rounds) as process:
        until(lambda: len(checkpoints(out)) > 1, "some rounds")
        family = psutil.Process(process.pid).children(recursive=True)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == INTERRUPTED, log_of(out)
        seconds = time.monotonic() - began
        gone(family)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["deterministic"]) == ("interrupted", True), summary
    assert 0 < summary["rounds_completed"] < rounds, summary
    assert finished(out, "mifa", engine, rounds, resume=True) == whole
    return Row(f"SIGTERM to `run --engine {engine}`", "exit 130; resumed to equal hashes", seconds, "nothing")


def client_terminated(folder: Path) -> Row:
    """SIGTERM to a client process alone, which leaves with exit code 0: it is replaced, and the run ends the same."""
    out, rounds = folder / "term-client", 60
    whole = finished(folder / "whole-client", "ditto", "local", rounds)
    with command(out, "ditto", "http", rounds) as process:
        until(lambda: len(checkpoints(out)) > 1, "some rounds")
        before = {client.pid for client in children_of(process, "client")}
        began = time.monotonic()
        os.kill(min(before), signal.SIGTERM)
        until(lambda: {client.pid for client in children_of(process, "client")} - before, "a client in its place")
        seconds = time.monotonic() - began
        assert process.wait(PATIENCE_S) == 0, log_of(out)
    assert hashes(out) == whole
    return Row("SIGTERM to a client of `run --engine http`", "replaced; equal hashes", seconds, "nothing")


def orphaned(folder: Path) -> Row:
    """kill -9 of `parityfl run --engine http`: the coordinator and the clients leave by themselves."""
    out = folder / "orphaned"
    with command(out, "mifa", "http", 10_000) as process:
        until(lambda: len(checkpoints(out)) > 1, "some rounds")
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3, family
        process.kill()
        process.wait()
        seconds = gone(family)
    return Row("kill -9 of `run --engine http`", "its coordinator and clients are gone", seconds, "the round under way")


def out_of_devices(folder: Path) -> Row:
    """The only device leaves for good: after max_idle_rounds empty rounds exit 3, with the reason in /health."""
    import httpx

    out, heartbeat_s, idle = folder / "idle", 0.2, 5
    settings = {"clock": "wall", "count": 10_000, "heartbeat_s": heartbeat_s, "max_idle_rounds": idle}
    file = folder / "idle.json"
    file.write_text(
        json.dumps({"method": "fedavg", "population": {"clients": 2, "per_round": 1}, "rounds": settings}),
        encoding="utf-8",
    )
    with (folder / "idle.log").open("ab") as log:
        boss = python("-m", "parityfl", "coordinator", file, "--out", out, "--port", 0, stderr=log)
    device = None
    try:
        found = until(lambda: [w for w in log_of(out).split() if w.startswith("http://127")], "the coordinator listens")
        device = python(HERE / "chaos_device.py", "--server", found[-1], "--devices", "h0", "--think", 0.1)
        until(lambda: httpx.get(f"{found[-1]}/rounds").json(), "a round")
        began = time.monotonic()
        end(device)
        assert boss.wait(PATIENCE_S) == UNFINISHED, log_of(out)
        seconds = time.monotonic() - began
        assert "max_idle_rounds" in log_of(out).splitlines()[-1], log_of(out)
        assert seconds >= (idle - 1) * heartbeat_s, f"{idle} idle rounds in {seconds:.2f} s"
    finally:
        for process in filter(None, (boss, device)):
            end(process)
    return Row(
        f"no device any more, max_idle_rounds = {idle}",
        "exit 3, the reason in its last line",
        seconds,
        "nothing: resumable",
    )


def full_disk(folder: Path, engine: str) -> Row:
    """The disk of the run folder fills up: exit 3 with one line; with room again the run goes on to equal hashes.

    Ditto's personal models are on it too, so that with the http engine it is sometimes a client that meets the limit.
    """
    disk, rounds = folder / f"disk-{engine}", 12
    disk.mkdir()
    whole = finished(folder / f"whole-disk-{engine}", "ditto", "local", rounds)
    mount("-t", "tmpfs", "-o", "size=320k", "tmpfs", disk)
    try:
        with command(disk / "run", "ditto", engine, rounds) as process:
            code = process.wait(PATIENCE_S)
        told = log_of(disk / "run") if (disk / "run.log").exists() else ""
        assert code == UNFINISHED, (code, told)
        assert "--resume" in told, told
        mount("-o", "remount,size=64M", disk)
        same = finished(disk / "run", "ditto", engine, rounds, resume=True) == whole
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert same, "the resumed run ended otherwise"
    return Row(
        f"full disk, `run --engine {engine}`", "exit 3; with room, resumed to equal hashes", math.nan, "the round"
    )


def mount(*arguments: object) -> None:
    """Mount something.

    Raises:
        CannotError: we may not.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise CannotError("only root can mount a disk")
    done = subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True)
    if done.returncode:
        raise CannotError(done.stderr.decode(errors="replace").strip())


def client_damage(folder: Path) -> Row:
    """A bit of what a client kept (Ditto) is flipped while the run is stopped: the run says what is lost and stops."""
    out, rounds = folder / "damaged", 60
    with command(out, "ditto", "http", rounds) as process:
        until(lambda: len(list((out / "clients").glob("*/*.safetensors"))) > 6, "clients keep something")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == INTERRUPTED, log_of(out)
    for file in (out / "clients").glob("*/*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    with command(out, "ditto", "http", rounds, resume=True) as process:
        assert process.wait(PATIENCE_S) not in (0, INTERRUPTED), log_of(out)
    told = log_of(out)
    assert "kept in round" in told, told
    assert "checksum" in told, told
    with suppress(FileNotFoundError):
        assert json.loads((out / "summary.json").read_text())["status"] != "done"
    return Row(
        "every personal model that clients kept has a flipped bit",
        "the run stops and names the file",
        math.nan,
        "the run: restore the file",
    )


RUNS: dict[str, Callable[[Path], Row]] = {
    "sigterm-local": lambda folder: terminated(folder, "local"),
    "sigterm-http": lambda folder: terminated(folder, "http"),
    "sigterm-client": client_terminated,
    "orphaned": orphaned,
    "out-of-devices": out_of_devices,
    "full-disk-local": lambda folder: full_disk(folder, "local"),
    "full-disk-http": lambda folder: full_disk(folder, "http"),
    "client-damage": client_damage,
}
"""Faults of whole runs."""
