"""Faults of one device or its wire, each against the contract: the row of the matrix is what was measured.

The contract: every round ends by deadline + grace; the device's selections end in the outcomes that the fault should
have, each with a reason; the honest devices complete every round meanwhile; the model stays finite; the coordinator
lives.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from chaos_rig import (
    DEADLINE_S,
    GRACE_S,
    HEARTBEAT_S,
    SLACK_S,
    THINK_S,
    Rig,
    end,
    until,
)

ROUNDS = 2
"""In how many rounds each fault is seen."""


TRIES = 3
"""How often something that this machine may spoil is tried."""


@dataclass(frozen=True)
class Row:
    """A row of the matrix.

    Attributes:
        fault: what was done.
        outcome: what the coordinator made of it.
        detect_s: how long it took to notice; nan where there was nothing to notice.
        lost: what was lost.
    """

    fault: str
    outcome: str
    detect_s: float
    lost: str


@dataclass(frozen=True)
class Expected:
    """What a fault may end in, and how soon it is known."""

    outcomes: tuple[str, ...]
    within_s: float
    what: str


AT_ONCE = 1.5
BY_DEADLINE = DEADLINE_S + 0.5

FAULTS: dict[str, Expected] = {
    "crash": Expected(("unreachable",), AT_ONCE, "the process exits when it is asked to train"),
    "freeze": Expected(("unreachable",), 2 * HEARTBEAT_S, "the process is stopped (SIGSTOP) when it is asked to train"),
    "hang": Expected(("late",), BY_DEADLINE, "never answers /train and /evaluate, goes on with its heartbeats"),
    "garbage": Expected(("invalid",), AT_ONCE, "answers random bytes"),
    "empty-answer": Expected(("invalid",), AT_ONCE, "answers nothing with status 200"),
    "error-500": Expected(("failed",), AT_ONCE, "answers 500"),
    "redirect": Expected(("failed",), AT_ONCE, "answers a redirect to elsewhere, which is not followed"),
    "refusal": Expected(("refused",), AT_ONCE, "answers 409"),
    "huge-answer": Expected(("invalid",), AT_ONCE, "answers without end; cut off at the largest valid size"),
    "nan": Expected(("invalid",), AT_ONCE, "an update of NaN"),
    "infinity": Expected(("invalid",), AT_ONCE, "an update with one infinite number"),
    "wrong-shape": Expected(("invalid",), AT_ONCE, "an update of another shape"),
    "wire-latency": Expected(("completed",), BY_DEADLINE, "0.3 s more for every piece, both ways"),
    "wire-latency-beyond-deadline": Expected(("late",), BY_DEADLINE, "30 s more for every piece"),
    "wire-cut-at-once": Expected(("unreachable",), AT_ONCE, "the connection is closed before the answer"),
    "wire-cut-in-answer": Expected(("unreachable",), AT_ONCE, "the connection is closed in the middle of the answer"),
    "wire-reset-in-answer": Expected(("unreachable",), AT_ONCE, "the connection is reset in the middle of the answer"),
    "wire-truncated-head": Expected(("unreachable",), AT_ONCE, "the connection is closed within the answer's head"),
    "wire-slow-loris": Expected(("late",), BY_DEADLINE, "the answer comes at five bytes a second"),
    "wire-black-hole": Expected(("late",), BY_DEADLINE, "the connection is taken, nothing is ever answered"),
    "wire-corruption": Expected(("unreachable",), AT_ONCE, "a bit of each 12,000 bytes is flipped"),
    "uplink-latency": Expected(("completed",), AT_ONCE, "0.3 s more for each of its status updates, both ways"),
    "uplink-resets": Expected(
        ("completed",), AT_ONCE, "every connection to the coordinator is reset after 6,000 bytes of its answers"
    ),
    "wire-duplication": Expected(
        ("completed", "invalid", "unreachable"), AT_ONCE, "every piece of the answer comes twice"
    ),
}
"""Faults that a single device shows whenever it is asked."""

BEHIND_THE_LOSS = ("crash", "freeze")
"""Faults after which the device is gone: it is selected once."""


def fault_row(rig: Rig, fault: str) -> Row:
    """Start a device with a fault, let it be selected, and hold what came of it against the contract."""
    expected, name = FAULTS[fault], f"x-{fault}"
    rounds = 1 if fault in BEHIND_THE_LOSS else ROUNDS
    process = rig.device(name, fault)
    try:
        until(lambda: len(rig.rounds_of(name)) >= rounds, f"{name} was selected {rounds} times")
        closed = rig.rounds_of(name)[:rounds]
        rows = rig.rows(name)[:rounds]
    finally:
        end(process)
    seen = sorted({entry["outcomes"][name] for entry in closed})
    assert set(seen) <= set(expected.outcomes), f"{fault}: {seen}, wanted {expected.outcomes}"
    assert all(entry["reasons"].get(name) or entry["outcomes"][name] == "completed" for entry in closed)
    detect_s = max(float(row["latency_s"]) for row in rows)
    assert detect_s <= expected.within_s + THINK_S + SLACK_S, f"{fault}: noticed after {detect_s:.1f} s"
    check_rounds(rig, closed)
    lost = "nothing" if seen == ["completed"] else "its own update of the round"
    return Row(expected.what, ", ".join(seen), detect_s, lost)


def check_rounds(rig: Rig, closed: list[dict], honest: tuple[str, ...] = ("h0", "h1")) -> None:
    """Check that rounds ended in time, with the honest devices and a finite model."""
    for entry in closed:
        took = entry["figures"]["round_s"]
        assert took <= DEADLINE_S + GRACE_S + SLACK_S, f"round {entry['round']} took {took:.1f} s"
        done = [entry["outcomes"].get(name, "completed") for name in honest]
        assert done == ["completed"] * len(honest), f"round {entry['round']}: {entry['outcomes']} {entry['reasons']}"
        assert math.isfinite(entry["figures"]["global_loss"])
    assert rig.get("/health")["phase"] == "training"


def zombie(rig: Rig) -> Row:
    """A device reports, but nobody listens where it says: it is never selected."""
    name = "x-port-closed"
    process = rig.device(name, "port-closed")
    until(lambda: rig.state(name) == "unreachable", f"{name} is unreachable")
    last = rig.last_round()
    until(lambda: rig.last_round() >= last + ROUNDS, "rounds go on")
    assert not rig.rounds_of(name)
    check_rounds(rig, [entry for entry in rig.get("/rounds") if entry["round"] > last][:ROUNDS])
    end(process)
    what = "a zombie: heartbeats, but nobody listens where it says"
    return Row(what, "unreachable, and never selected", math.nan, "nothing")


def silent_loss(rig: Rig) -> Row:
    """Stop a device's process (SIGSTOP): connections stay open and nothing says that it is gone.

    It is noticed within two heartbeats of the last report, unless this machine holds the coordinator itself up.
    """
    process = rig.device("x-silent", think_s=0.0)
    tries = (_stopped_for_a_while(rig, process.pid) for _ in range(TRIES))
    noticed = next((seconds for seconds in tries if seconds < 2 * HEARTBEAT_S), math.inf)
    assert noticed < 2 * HEARTBEAT_S, rig.get("/clients/x-silent")["transitions"]
    end(process)
    return Row(
        "stopped without a word between rounds (SIGSTOP), later continued", "lost, then rejoined", noticed, "nothing"
    )


def _stopped_for_a_while(rig: Rig, pid: int) -> float:
    """Stop a process until it is lost, and return how long after its last report that was noticed."""
    until(lambda: rig.state("x-silent") in ("available", "training"), "x-silent is here")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: rig.state("x-silent") == "lost", "x-silent is lost")
    os.kill(pid, signal.SIGCONT)
    until(lambda: rig.state("x-silent") in ("available", "training"), "x-silent is back")
    moves = rig.get("/clients/x-silent")["transitions"]
    assert ("lost", "rejoined") in [(move["before"], move["after"]) for move in moves], moves
    reason = [move["reason"] for move in moves if move["after"] == "lost"][-1]
    return float(reason.removeprefix("silent for ").removesuffix(" s"))


def long_training(rig: Rig) -> Row:
    """Train for four heartbeats: the device goes on reporting meanwhile and is never suspect.

    Unless this machine holds the device up: then it is tried again.
    """
    assert not all(_suspected(rig, f"x-slow-{number}") for number in range(TRIES)), "it was suspect while it trained"
    return Row("trains for four heartbeats", "completed, never suspect", math.nan, "nothing")


def _suspected(rig: Rig, name: str) -> bool:
    """Return whether a device was suspect before it had trained for the last time, for four heartbeats each."""
    process = rig.device(name, think_s=4 * HEARTBEAT_S)
    until(lambda: len(rig.rounds_of(name)) >= ROUNDS, f"{name} took part")
    closed = rig.rounds_of(name)[:ROUNDS]
    end(process)
    assert {entry["outcomes"][name] for entry in closed} == {"completed"}, closed
    check_rounds(rig, closed)
    passed = [move["after"] for move in rig.get(f"/clients/{name}")["transitions"]]
    assert "training" in passed, passed
    return "suspect" in passed[: len(passed) - passed[::-1].index("training")]


def new_address(rig: Rig) -> Row:
    """Kill a device and start it again: same name, another port, at once in the next rounds."""
    kept = rig.out / "x-moves"
    first = rig.device("x-moves", think_s=0.0, state=kept)
    until(lambda: rig.rounds_of("x-moves"), "x-moves took part")
    before = rig.get("/clients/x-moves")
    end(first)
    began = time.monotonic()
    second = rig.device("x-moves", think_s=0.0, state=kept)
    until(lambda: rig.get("/clients/x-moves")["address"] != before["address"], "x-moves has another address")
    moved, last = time.monotonic() - began, rig.last_round()
    until(
        lambda: any(
            entry["round"] > last and entry["outcomes"]["x-moves"] == "completed" for entry in rig.rounds_of("x-moves")
        ),
        "x-moves takes part again",
    )
    after = rig.get("/clients/x-moves")
    assert after["index"] == before["index"]
    assert "rejoined" in [move["after"] for move in after["transitions"]]
    end(second)
    return Row(
        "killed (-9) and back at another port", "rejoined as the same client", moved, "at most its update of a round"
    )


def skewed_clock(rig: Rig) -> Row:
    """Both clocks of the device are a day ahead and three times as fast."""
    process = rig.device("x-skew", think_s=0.0, skew=86400)
    until(lambda: len(rig.rounds_of("x-skew")) >= ROUNDS, "x-skew took part")
    closed = rig.rounds_of("x-skew")[:ROUNDS]
    seen = {entry["outcomes"]["x-skew"] for entry in closed}
    assert seen == {"completed"}, closed
    check_rounds(rig, closed)
    end(process)
    return Row("clocks a day ahead and three times as fast", "completed", math.nan, "nothing")


def half_open_requests(rig: Rig) -> Row:
    """A hundred connections to the coordinator that send half a request and stay."""
    import socket

    holders = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(100)]
    for holder in holders:
        holder.sendall(b"POST /status_update HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{")
    last = rig.last_round()
    until(lambda: rig.last_round() >= last + ROUNDS, "rounds go on")
    closed = [entry for entry in rig.get("/rounds") if entry["round"] > last][:ROUNDS]
    check_rounds(rig, closed)
    for holder in holders:
        holder.close()
    return Row(
        "100 strangers that send half a request to the coordinator and stay", "rounds go on", math.nan, "nothing"
    )


def mass_outage(rig: Rig) -> Row:
    """Every device is stopped for six heartbeats: rounds are empty and do not spin; then all come back."""
    processes = [process for process in rig.devices if process.poll() is None]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: rig.state("h0") in ("suspect", "lost") and rig.state("h1") in ("suspect", "lost"), "all are suspect")
    noticed = time.monotonic() - began
    last = rig.last_round()
    time.sleep(6 * HEARTBEAT_S)
    idle = [entry for entry in rig.get("/rounds") if entry["round"] > last]
    assert 1 <= len(idle) <= 6 + 2, f"{len(idle)} rounds in six heartbeats"
    for process in processes:
        os.kill(process.pid, signal.SIGCONT)
    last = rig.last_round()
    until(
        lambda: any(
            entry["round"] > last and entry["outcomes"].get("h0") == entry["outcomes"].get("h1") == "completed"
            for entry in rig.get("/rounds")
        ),
        "both honest devices complete again",
    )
    return Row(
        "every device is stopped for six heartbeats, then continued",
        f"{len(idle)} empty rounds, a heartbeat each; then on with all",
        noticed,
        "the updates of the round that it hit",
    )


def coordinator_killed(rig: Rig) -> Row:
    """The live coordinator is killed (-9) in mid-round and started again: the devices find it, the run goes on."""
    last = rig.last_round()
    end(rig.coordinator)
    began = time.monotonic()
    rig.start("--resume")
    until(lambda: rig.rounds_of("h0") and rig.rounds_of("h1"), "rounds with both")
    took = time.monotonic() - began
    first = rig.get("/rounds")[0]["round"]
    assert first in (last + 1, last + 2), f"round {last} was closed, the resumed run began with {first}"
    return Row(
        "the coordinator killed (-9) in a live round, started with --resume",
        "goes on with all devices",
        took,
        "the round that was under way",
    )


EVENTS: dict[str, Callable[[Rig], Row]] = {
    "port-closed": zombie,
    "silent-loss": silent_loss,
    "long-training": long_training,
    "new-address": new_address,
    "skewed-clock": skewed_clock,
    "half-open-requests": half_open_requests,
    "mass-outage": mass_outage,
    "coordinator-killed": coordinator_killed,
}
"""Faults that happen once, or to all."""


def row(rig: Rig, name: str) -> Row:
    """Return the row of a fault."""
    return fault_row(rig, name) if name in FAULTS else EVENTS[name](rig)
