"""Mistakes get one clear line with the remedy and exit code 2; nothing is overwritten, nothing is left behind."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def refused(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run the command, demand exit code 2 and a single line, and return that line."""
    done = subprocess.run(
        [sys.executable, "-m", "parityfl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("parityfl: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "coordinator on" not in done.stderr, "what is refused is not served"
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "population.clinets=3"], ["population.clinets", "clients"]),
        (["--set", "populatoin.clients=3"], ["populatoin", "population"]),
        (["--set", "selector.temprature=3"], ["selector.temprature", "temperature"]),
        (["--set", "training.lr=fast"], ["training.lr", "fast"]),
        (["--set", "training.lr"], ["training.lr", "key.sub=value"]),
        (["--method", "fedagv"], ["fedagv", "fedavg"]),
        (["--selector", "lnuu"], ["lnuu", "lnu"]),
        (["--aggregator", "mean"], ["mean", "fedavg"]),
        (["--dataset", "digts"], ["digts", "digits"]),
        (["--availability", "sometimes"], ["sometimes", "bernoulli"]),
        (["--per-round", "30"], ["population.per_round", "30", "20"]),
        (["--clients", "1000000000000"], ["population.clients", "less than or equal to 100000000"]),
        (["--clients", "100000000"], ["population.clients", "the 1438 training examples cannot serve so many"]),
        (["--clients", "100000000", "--engine", "http"], ["population.clients", "10,000", "engine.processes"]),
        (["--availability", "trace"], ["availability.path"]),
        (["--engine", "http", "--set", "dropout.rate=[0.1, 0.2]"], ["dropout.rate", "20"]),
        (["--dataset", "cifar10", "--set", "data.root=nowhere"], ["cifar-10-binary.tar.gz", "data.root"]),
        (["--selector", "cup-paper", "--aggregator", "horvitz-thompson"], ["horvitz-thompson", "cup-paper"]),
        (["--resume"], ["--out"]),
        (["missing.toml"], ["missing.toml"]),
    ],
)
def test_wrong_configuration(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    offline = {"HOME": str(tmp_path / "home"), "PARITYFL_DATA": "", "no_proxy": "", "https_proxy": "http://127.0.0.1:9"}
    line = refused("run", *arguments, cwd=tmp_path, env=offline)
    for word in words:
        assert word in line
    assert not (tmp_path / "runs").exists(), "a mistake must leave no folder behind"


@pytest.mark.parametrize("command", ["run", "run --engine http", "coordinator --port 0"])
def test_what_a_selector_cannot_do_is_told_before_anything_begins(tmp_path: Path, command: str) -> None:
    """A recording that does not go round does not say how likely its devices are after its end; no more is known of
    live devices. Nothing is left behind, so that the folder will do for the next attempt."""
    path = tmp_path / "trace.csv"
    path.write_text("client_id,start_s,end_s\na,0,90000\nb,40000,90000\n")
    few = ["--clients", "2", "--per-round", "1", "--rounds", "2", "--out", "out"]
    recorded = ["--availability", "trace", "--set", f"availability.path={path}", "--set", "availability.loop=false"]
    after = [*recorded, "--set", "availability.start_s=1000000"] if command.startswith("run") else []
    line = refused(*command.split(), *few, *after, "--selector", "oracle-maxmin", cwd=tmp_path)
    assert "selector.name = 'oracle-maxmin'" in line
    assert not (tmp_path / "out").exists()
    again = [sys.executable, "-m", "parityfl", "run", *few, "--availability", "always"]
    assert subprocess.run(again, capture_output=True, check=False, cwd=tmp_path).returncode == 0


def test_a_wait_for_devices_that_has_no_length(tmp_path: Path) -> None:
    line = refused("coordinator", "--port", "0", "--start-within", "0", "--out", "out", cwd=tmp_path)
    assert line == "parityfl: --start-within 0: give a number of seconds above 0"
    assert not (tmp_path / "out").exists()


def test_a_coordinator_to_which_nobody_comes_in_time_ends_unfinished_with_one_line(tmp_path: Path) -> None:
    words = ["coordinator", "--port", "0", "--min-clients", "2", "--start-within", "0.5", "--out", "out"]
    command = [sys.executable, "-m", "parityfl", *words, "--log-level", "warning"]
    for more in ([], ["--resume"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 3
        assert done.stderr.splitlines()[1:] == [
            "parityfl: 0 of 2 devices are here after 0.5 s: start more of them, or take fewer with --min-clients, and "
            "go on with --resume"
        ]


def test_a_cluster_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    cluster = ("--engine", "ray", "--set", "engine.address=127.0.0.1:9", "--availability", "always")
    line = refused("run", *cluster, "--out", "out", cwd=tmp_path)
    assert "engine.address (suite: --ray) = '127.0.0.1:9'" in line
    assert "ray start --head" in line
    assert not (tmp_path / "out").exists(), "with another address it is another run"


def test_a_trace_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("hello")
    line = refused("run", "--availability", "trace", "--set", f"availability.path={path}", cwd=tmp_path)
    assert str(path) in line


def test_an_output_folder_that_is_not_empty(tmp_path: Path) -> None:
    kept = tmp_path / "out" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    for more in ([], ["--resume"]):
        line = refused("run", "--out", "out", *more, cwd=tmp_path)
        assert "out" in line
    assert [entry.name for entry in kept.parent.iterdir()] == ["thesis.txt"]
    assert kept.read_text() == "years of work"


@pytest.mark.parametrize("name", ["trace", "mixture"])
def test_a_trace_that_has_changed_since_the_run_began(tmp_path: Path, name: str) -> None:
    """Neither trace would give the run that came of both."""
    trace = tmp_path / "trace.csv"
    trace.write_text("client_id,start_s,end_s\na,0,86400\nb,0,43200\n")
    kept = 'availability.components=[{name="trace",share=1,path="trace.csv"}]'
    setting = "availability.path=trace.csv" if name == "trace" else kept
    run = ["run", "--availability", name, "--set", setting, "--clients", "2", "--per-round", "1", "--rounds", "1"]
    command = [sys.executable, "-m", "parityfl", *run, "--out", "out"]
    for more in ([], ["--resume"]):
        subprocess.run([*command, *more], check=True, capture_output=True, cwd=tmp_path)
    trace.write_text("client_id,start_s,end_s\na,0,86400\nb,0,86400\n")
    line = refused(*run, "--out", "out", "--resume", cwd=tmp_path)
    assert "trace.csv is not what it was when the run in out began: restore it" in line


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in refused("coordinator", "--port", port, cwd=tmp_path)
        server = ["--device-id", "h0", "--server", "http://127.0.0.1:9"]
        assert port in refused("client", "--port", port, *server, cwd=tmp_path)


def test_a_coordinator_that_stays_absent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    line = refused("client", "--device-id", "h0", "--port", "0", "--server", url, "--patience", "0.5", cwd=tmp_path)
    assert url in line
    assert "--patience" in line or "0.5" in line


def test_a_client_without_name_or_server(tmp_path: Path) -> None:
    assert "--device-id" in refused("client", "--server", "http://127.0.0.1:9", cwd=tmp_path)
    assert "--server" in refused("client", "--device-id", "h0", cwd=tmp_path)
    assert "h 0" in refused("client", "--device-id", "h 0", "--server", "127.0.0.1", cwd=tmp_path)


@pytest.mark.parametrize("port", ["-1", "65536", "99999"])
def test_a_port_that_there_is_not(tmp_path: Path, port: str) -> None:
    """The system would take it modulo 65536."""
    for command in (["coordinator"], ["client", "--device-id", "h0", "--server", "127.0.0.1"], ["ui", "."]):
        line = refused(*command, f"--port={port}", cwd=tmp_path)
        assert f"--port {port}" in line


def test_a_coordinator_s_folder_that_is_another_s(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    assert "out" in refused("coordinator", "--port", "0", "--out", "out", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["diary.txt"]


@pytest.mark.parametrize("least", ["0", "-3", "21"])
def test_a_minimum_that_cannot_be_met(tmp_path: Path, least: str) -> None:
    line = refused("coordinator", "--port", "0", f"--min-clients={least}", cwd=tmp_path)
    assert f"--min-clients {least}" in line
    assert "population.clients = 20" in line


def test_a_device_name_that_there_cannot_be(tmp_path: Path) -> None:
    for command in ("revoke", "allow"):
        assert "'a b'" in refused("devices", command, ".", "a b", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--clients", "x"], ["'--clients'", "integer", "parityfl run --help"]),
        (["run", "--nope"], ["--nope", "parityfl run --help"]),
        (["run", "--method"], ["--method", "argument"]),
        (["runn"], ["runn", "parityfl --help"]),
        (["report"], ["DIR", "parityfl report --help"]),
        (["suite", "a.toml", "--jobs", "0"], ["--jobs", "parityfl suite --help"]),
        (["certs", "fleet", "--host", "localhost", "--days", "100000000"], ["--days", "36500", "parityfl certs"]),
    ],
)
def test_what_the_command_line_does_not_know(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    line = refused(*arguments, cwd=tmp_path)
    for word in words:
        assert word in line


def test_a_coordinator_of_another_engine(tmp_path: Path) -> None:
    assert "--engine ray" in refused("coordinator", "--engine", "ray", cwd=tmp_path)


@pytest.mark.parametrize("engine", ["local", "http"])
def test_a_run_that_ends_early_has_a_report(tmp_path: Path, engine: str) -> None:
    """Nobody ever delivers: the run gives up, exit code 3, and what there was can be looked at."""
    settings = ["--set", "dropout.rate=1.0", "--set", "rounds.max_idle_rounds=2", "--out", "run", "--engine", engine]
    done = subprocess.run(
        [sys.executable, "-m", "parityfl", "run", *settings], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 3, done.stderr
    assert "no valid update in 2 rounds" in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
