"""What crosses a network: other hosts, loss, a narrow link, a partition, and latency as clients measure it."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from namespaces import Host, until

Hosts = Callable[[int], list[Host]]
DELAY = Path(__file__).with_name("delay.py")
pytestmark = pytest.mark.timeout(400)


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def client(host: Host, device: str, server: str, *more: str) -> subprocess.Popen[bytes]:
    return host.parityfl("client", "--device-id", device, "--server", server, "--patience", "60", *more)


def test_loss_and_a_narrow_link_change_the_time_but_no_hash(hosts: Hosts, tmp_path: Path) -> None:
    """One device loses a tenth of the packets that come in; the other sends at 256 kbit/s beyond the first 4 KiB.

    So a reply of b bytes takes at least 8 (b - 4096) / 256000 s.
    """
    boss, lossy, narrow = hosts(3)
    lossy.firewall("-A", "-m", "statistic", "--mode", "random", "--probability", "0.1", "-j", "DROP")
    narrow.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "256kbit", "burst", "4kb", "latency", "5s")
    out = tmp_path / "live"
    run = ["--clients", "2", "--per-round", "2", "--rounds", "4", "--availability", "always", "--out", str(out)]
    serving = boss.parityfl("coordinator", "--host", "0.0.0.0", "--allow-anyone", "--set", "rounds.clock=virtual", *run)
    devices = [client(lossy, "h0", boss.address), client(narrow, "h1", boss.address)]
    until(lambda: serving.poll() is not None, "the end of the run", boss, lossy, narrow)
    assert serving.returncode == 0
    assert [device.wait(60) for device in devices] == [0, 0]

    local = [sys.executable, "-m", "parityfl", "run", str(out / "config.json"), "--engine", "local"]
    subprocess.run([*local, "--out", str(tmp_path / "local")], check=True, capture_output=True)
    for key in ("model_hash", "ledger_hash", "deterministic"):
        assert summary(out)[key] == summary(tmp_path / "local")[key], key
    with (out / "clients.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["client_id"] == "h1" and row["participated"] == "1"]
    assert len(rows) == 4
    for row in rows:
        assert float(row["latency_s"]) > 8 * (float(row["bytes_up"]) - 4096) / 256_000 > 0.3


def test_devices_that_nobody_can_connect_to_poll_and_change_no_hash(hosts: Hosts, tmp_path: Path) -> None:
    """What NAT does to a device: no connection to it is taken, whoever begins it."""
    boss, *hidden = hosts(3)
    for host in hidden:
        host.firewall("-A", "-i", "eth0", "-p", "tcp", "--syn", "-j", "DROP")
    out = tmp_path / "live"
    run = ["--clients", "2", "--per-round", "2", "--rounds", "4", "--availability", "always", "--out", str(out)]
    virtual = ["--set", "rounds.clock=virtual"]
    serving = boss.parityfl("coordinator", "--host", "0.0.0.0", "--allow-anyone", *virtual, *run)
    devices = [client(host, f"h{number}", boss.address, "--pull") for number, host in enumerate(hidden)]
    until(lambda: serving.poll() is not None, "the end of the run", boss, *hidden)
    assert serving.returncode == 0
    assert [device.wait(60) for device in devices] == [0, 0]

    local = [sys.executable, "-m", "parityfl", "run", str(out / "config.json"), "--engine", "local"]
    subprocess.run([*local, "--out", str(tmp_path / "local")], check=True, capture_output=True)
    for key in ("model_hash", "ledger_hash", "deterministic"):
        assert summary(out)[key] == summary(tmp_path / "local")[key], key


def test_latency_as_measured_by_a_client_is_right(hosts: Hosts, tmp_path: Path) -> None:
    """Requests and answers are each held back for 0.2 s, so a round trip takes 0.4 s: within 20 %."""
    boss, device = hosts(2)
    boss.parityfl(
        "coordinator", "--host", "0.0.0.0", "--allow-anyone", "--clients", "1", "--per-round", "1",
        "--min-clients", "1",
        "--set", "rounds.heartbeat_s=0.2", "--rounds", "100000", "--out", str(tmp_path / "live"),
    )  # fmt: skip
    device.start(str(DELAY), "9000", boss.address, "8080", "0.2")
    client(device, "h0", "http://127.0.0.1:9000", "--host", "0.0.0.0")
    measured: list[float] = []

    def enough() -> bool:
        latency = boss.ask("GET", "http://127.0.0.1:8080/clients/h0")["latency_s"]
        if latency is not None and latency not in measured:
            measured.append(latency)
        return len(measured) >= 7

    until(enough, "seven measurements", boss, device)
    assert 0.4 <= min(measured) < 0.6, measured  # a machine that is busy adds to it


def test_a_partition_costs_the_rounds_of_those_cut_off_and_heals(hosts: Hosts, tmp_path: Path) -> None:
    boss, near, far = hosts(3)
    serving = boss.parityfl(
        "coordinator", "--host", "0.0.0.0", "--allow-anyone", "--clients", "2", "--per-round", "2",
        "--min-clients", "2",
        "--rounds", "1000000", "--out", str(tmp_path / "live"), "--set", "rounds.heartbeat_s=1",
        "--set", "rounds.connect_timeout_s=1", "--set", "rounds.train_timeout_s=2", "--set", "rounds.deadline_s=1",
        "--set", "rounds.grace_s=0.5", "--method", "fedavg-uniform",
    )  # fmt: skip
    devices = [client(near, "h0", boss.address), client(far, "h1", boss.address)]

    def info(device: str) -> dict[str, Any]:
        return dict(boss.ask("GET", f"http://127.0.0.1:8080/clients/{device}"))

    def participates(device: str, beyond: int) -> bool:
        return int(info(device)["participated"]) > beyond

    until(lambda: participates("h0", 2) and participates("h1", 2), "rounds with both", boss, near, far)
    far.firewall("-A", "-s", boss.address, "-j", "DROP")
    until(lambda: info("h1")["state"] == "lost", "the loss of h1", boss, far)
    seen = int(info("h0")["participated"])
    until(lambda: participates("h0", seen), "the end of the round that was open", boss, near)
    before = info("h0")["participated"], info("h1")["participated"]
    until(lambda: participates("h0", before[0] + 2), "rounds without h1", boss, near)
    assert info("h1")["participated"] == before[1]
    far.firewall("-D", "-s", boss.address, "-j", "DROP")
    until(lambda: participates("h1", before[1] + 2), "rounds with h1 again", boss, far)
    states = [change["after"] for change in info("h1")["transitions"]]
    assert "rejoined" in states[states.index("lost") :]

    boss.ask("POST", "http://127.0.0.1:8080/training/stop")
    assert serving.wait(60) == 3, "it was stopped before its last round"
    assert [device.wait(60) for device in devices] == [0, 0]
    assert summary(tmp_path / "live")["status"] == "interrupted"
