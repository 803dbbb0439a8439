from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from parityfl.client.membership import REPORTS
from parityfl.coordinator.device_registry import LOOKS, LOST_AFTER, SUSPECT_AFTER, DeviceRegistry
from parityfl.coordinator.roster import add_to_roster, read_roster
from parityfl.core.errors import FleetError, FolderError
from parityfl.wire.schemas import DeviceReport, Registration

NAMES = ["h0", "h1", "h2"]


@dataclass
class Clock:
    """Seconds that pass when told to."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def registry(
    clock: Clock | None = None, open_to_others: bool = True, roster: dict[int, str] | None = None
) -> DeviceRegistry:
    return DeviceRegistry(NAMES, open_to_others, 1.0, clock or Clock(), roster)


def enter(who: DeviceRegistry, *names: str, port: int = 5000) -> list[int]:
    return [who.register(Registration(device_id=name, port=port), "127.0.0.1").index for name in names]


def report(who: DeviceRegistry, name: str, available: bool = True, training: int | None = None) -> bool:
    return who.report(DeviceReport(device_id=name, available=available, training=training, latency_s=0.01))


def state(who: DeviceRegistry, name: str) -> str:
    member = who.get(name)
    assert member is not None
    return member.state


def test_the_clients_of_an_experiment_have_their_own_index() -> None:
    assert enter(registry(), "h2", "h0", "h1") == [2, 0, 1]


def test_other_names_take_the_lowest_free_index() -> None:
    """h1 keeps its own; phone takes 0; h0, whose place is taken, takes 2, the last one."""
    who = registry()
    assert enter(who, "h1", "phone", "h0") == [1, 0, 2]
    assert who.device_ids == ["phone", "h1", "h0"]


def test_an_experiment_takes_no_other_names() -> None:
    with pytest.raises(FleetError, match="'phone' is no client of this experiment: its devices are h0 to h2"):
        enter(registry(open_to_others=False), "phone")


def test_a_full_population_takes_nobody() -> None:
    who = registry()
    enter(who, "a", "b", "c")
    with pytest.raises(FleetError, match=r"'d': population.clients = 3 .*raise population.clients"):
        enter(who, "d")
    assert enter(who, "b") == [1]


def test_a_roster_keeps_the_places_of_those_that_have_not_come_back() -> None:
    who = registry(roster={0: "phone", 2: "tablet"})
    assert enter(who, "watch", "tablet", "phone") == [1, 2, 0]
    with pytest.raises(FleetError):
        enter(who, "h0")


def test_a_roster_survives_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "roster.jsonl"
    assert read_roster(path) == {}
    add_to_roster(path, 2, "h0", durable=True)
    add_to_roster(path, 0, "phone", durable=True)
    assert read_roster(path) == {0: "phone", 2: "h0"}


@pytest.mark.parametrize("line", ["[]", "{}", "4", "", "{"])
def test_a_damaged_roster_is_an_error(line: str, tmp_path: Path) -> None:
    path = tmp_path / "roster.jsonl"
    path.write_text(f"{line}\n")
    add_to_roster(path, 0, "phone", durable=False)
    with pytest.raises(FolderError, match=r"roster.jsonl cannot be read"):
        read_roster(path)


def test_presence() -> None:
    """h0 is available, h1 away, h2 has not registered."""
    who = registry()
    enter(who, "h0", "h1")
    report(who, "h0")
    report(who, "h1", available=False)
    assert who.registered().tolist() == [True, True, False]
    assert who.available().tolist() == [True, False, False]
    assert not report(who, "h2")


def test_who_does_not_come_back_after_a_restart_is_registered_and_away() -> None:
    """Its rounds count on: a run does not become fair by forgetting who has left."""
    who = registry(roster={0: "phone", 2: "tablet"})
    enter(who, "tablet")
    report(who, "tablet")
    assert who.registered().tolist() == [True, False, True]
    assert who.reachable().tolist() == [False, False, True]
    assert who.available().tolist() == [False, False, True]


def test_who_is_revoked_stays_so_until_it_is_let_in_again() -> None:
    """Whatever it was still sending when that was decided."""
    who = registry()
    enter(who, "h0")
    who.bar(["h0"])
    member = who.at(0)
    who.move(member, "available", "it has trained")
    assert not report(who, "h0")  # which makes it register again
    assert member.state == "revoked"
    enter(who, "h0")
    assert member.state == "rejoined"
    assert report(who, "h0")
    assert member.state == "available"


def test_who_trains_is_here_but_not_available() -> None:
    who = registry()
    enter(who, "h0")
    report(who, "h0", training=4)
    assert who.available().tolist() == [False, False, False]
    assert state(who, "h0") == "training"


def wait(who: DeviceRegistry, clock: Clock, seconds: float) -> None:
    """Let time pass, looking as often as one should."""
    for _ in range(round(seconds * LOOKS)):
        clock.now += 1 / LOOKS
        who.refresh()
        who.log_losses()


def test_silence_makes_suspect_then_lost_and_a_report_brings_back() -> None:
    """Heartbeats of 1 s, of which looks see twentieths: suspect after more than 1.25 s of silence, lost after 1.6 s."""
    clock = Clock(0.0)
    who = registry(clock)
    enter(who, "h0")
    report(who, "h0")
    seen = []
    for seconds in (1.2, 0.15, 0.2, 0.15):
        wait(who, clock, seconds)
        seen.append((round(clock.now, 2), state(who, "h0"), bool(who.available()[0])))
    assert seen == [
        (1.2, "available", True),
        (1.35, "suspect", False),
        (1.55, "suspect", False),
        (1.7, "lost", False),
    ]
    report(who, "h0")
    assert state(who, "h0") == "available"
    member = who.get("h0")
    assert member is not None
    passed = [(t.before, t.after) for t in member.transitions]
    assert passed == [
        (None, "registered"),
        ("registered", "available"),
        ("available", "suspect"),
        ("suspect", "lost"),
        ("lost", "rejoined"),
        ("rejoined", "available"),
    ]
    at = {t.after: t.time_s for t in member.transitions}
    assert 1.25 <= at["suspect"] <= 1.25 + 1 / LOOKS + 1e-6
    assert 1.6 <= at["lost"] <= 1.6 + 1 / LOOKS + 1e-6


def test_two_processes_of_one_name_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    who = registry(Clock())
    enter(who, "h0")
    report(who, "h0")
    enter(who, "h0", port=5001)
    (warned,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert (
        "h0 registered again (http://127.0.0.1:5001) and was heard just before (http://127.0.0.1:5000): restarted, or"
        in warned
    )


@pytest.mark.parametrize(
    "end", ["silent", "says that it goes", "told to leave", "could not be reached", "same", "polls"]
)
def test_a_device_that_moves_or_comes_back_is_not_warned_of(end: str, caplog: pytest.LogCaptureFixture) -> None:
    who = registry(clock := Clock())
    enter(who, "h0")
    report(who, "h0", available=end != "says that it goes")
    if end == "silent":
        clock.now += 1.01 * SUSPECT_AFTER
    elif end == "told to leave":
        who.dismiss("h0")
    elif end == "could not be reached":
        who.at(0).misplaced = True
    elif end == "polls":
        who.at(0).port = None
    registration = Registration(device_id="h0", port={"same": 5000, "polls": None}.get(end, 5001))
    who.register(registration, "127.0.0.1" if end == "same" else "127.0.0.2")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_every_change_of_state_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """For who debugs; beside it that h0 is lost, for the operator: not that it is suspect, nor that it leaves."""
    caplog.set_level("DEBUG")
    clock = Clock(0.0)
    who = registry(clock)
    enter(who, "h0")
    report(who, "h0")
    report(who, "h0", training=1)
    report(who, "h0", available=False)
    wait(who, clock, 1.7)
    enter(who, "h0", port=6000)
    report(who, "h0")
    who.dismiss("h0")
    who.bar(["h0"])
    changes = [t for t in who.at(0).transitions if t.before is not None]
    said = [record.message for record in caplog.records if record.levelname == "DEBUG"]
    assert said == [f"h0: {t.before} -> {t.after} ({t.reason})" for t in changes]
    assert told(caplog) == [
        ("INFO", "h0 registered as client 0, at http://127.0.0.1:5000"),
        ("WARNING", "h0 is lost, silent for 1.60 s"),
    ]
    states = ["available", "training", "away", "suspect", "lost", "rejoined", "available", "left", "revoked"]
    assert [t.after for t in changes] == states


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return what an operator is told, at the usual level of the log."""
    return [(record.levelname, record.message) for record in caplog.records if record.levelname != "DEBUG"]


@pytest.mark.parametrize(
    ("hosted", "who_are", "up_to"),
    [(1, "h0 is", ""), (2, "2 devices are", "up to "), (300, "300 devices are", "up to ")],
)
def test_devices_that_are_lost_together_are_one_line_and_so_is_their_return(
    hosted: int, who_are: str, up_to: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The process of all stalls for 2 s, and their reports then come at once; one more device is there throughout."""
    names = [f"h{index}" for index in range(hosted + 1)]
    who = DeviceRegistry(names, True, 1.0, clock := Clock(0.0))
    enter(who, *names)
    for name in names:
        report(who, name)
    caplog.set_level("DEBUG")
    caplog.clear()
    for _ in range(2 * LOOKS):
        wait(who, clock, 1 / LOOKS)
        report(who, names[-1])
    for name in names[:-1]:
        report(who, name)
    wait(who, clock, 0.1)
    listed = {1: "", 2: " (h0, h1)", 300: " (h0, h1, h2 and 297 more)"}[hosted]
    assert told(caplog) == [
        ("WARNING", f"{who_are} lost{listed}, silent for {up_to}1.60 s"),
        ("INFO", f"{who_are} back{listed}, after a silence of {up_to}2.00 s"),
    ]


def test_who_is_told_to_leave_or_revoked_while_lost_is_not_back(caplog: pytest.LogCaptureFixture) -> None:
    who = registry(clock := Clock(0.0))
    enter(who, "h0", "h1")
    wait(who, clock, 2.0)
    caplog.set_level("INFO")
    caplog.clear()
    who.dismiss("h0")
    who.bar(["h1"])
    wait(who, clock, 1.0)
    assert told(caplog) == []


def test_a_loss_is_noticed_within_two_heartbeats_and_a_report_may_be_one_late() -> None:
    """The last report may have come just after a look, and the look that notices is one after the threshold."""
    assert LOST_AFTER + 1 / LOOKS < 2
    assert LOST_AFTER - 1 / REPORTS > 1
    assert 2 / REPORTS < SUSPECT_AFTER < LOST_AFTER


def test_what_is_lost_is_not_merely_suspect() -> None:
    clock = Clock()
    who = registry(clock)
    enter(who, "h0")
    wait(who, clock, 2.0)
    who.move(who.at(0), "suspect", "a call failed")
    assert state(who, "h0") == "lost"


def test_nobody_is_silent_while_the_coordinator_is_held_up() -> None:
    """Stopped for ten heartbeats it finds nobody lost: what they sent is still to be read. h1 sends nothing: lost."""
    clock = Clock()
    who = registry(clock)
    enter(who, "h0", "h1")
    report(who, "h0")
    report(who, "h1")
    clock.now += 10.0
    who.refresh()
    assert (state(who, "h0"), state(who, "h1")) == ("available", "available")
    report(who, "h0")
    wait(who, clock, 1.0)
    report(who, "h0")
    wait(who, clock, 0.7)
    assert (state(who, "h0"), state(who, "h1")) == ("available", "lost")
    member = who.get("h0")
    assert member is not None
    assert [t.after for t in member.transitions] == ["registered", "available"]


def test_a_device_may_come_back_at_another_address() -> None:
    who = registry()
    enter(who, "h0", port=5000)
    report(who, "h0")
    who.register(Registration(device_id="h0", port=6000), "10.0.0.9")
    assert who.at(0).url == "http://10.0.0.9:6000"
    assert state(who, "h0") == "rejoined"
    who.register(Registration(device_id="h0", port=6000), "::1")
    assert who.at(0).url == "http://[::1]:6000"


def test_who_could_not_be_reached_and_reports_is_asked_to_register_again() -> None:
    """Somebody has registered with its name from elsewhere, or it has moved."""
    who = registry()
    enter(who, "h0", port=9)
    assert report(who, "h0")
    who.at(0).misplaced = True
    assert not report(who, "h0")
    assert state(who, "h0") == "available"
    enter(who, "h0", port=5000)
    assert report(who, "h0")


def test_registering_again_with_the_data_changes_no_state() -> None:
    who = registry()
    enter(who, "h0")
    report(who, "h0")
    assert len(who.prepared) == 0
    who.register(Registration(device_id="h0", port=5000, num_samples=7, label_counts=[3, 4]), "127.0.0.1")
    assert (state(who, "h0"), len(who.prepared)) == ("available", 1)
    np.testing.assert_array_equal(who.num_samples(), [7, np.nan, np.nan])


def test_somebody_silent_is_still_to_be_dismissed() -> None:
    clock = Clock()
    who = registry(clock)
    assert who.dismissed()
    enter(who, "h0", "h1")
    report(who, "h0")
    assert not who.dismissed()
    who.dismiss("h0")
    who.dismiss("h2")
    wait(who, clock, 2.0)
    assert (state(who, "h0"), state(who, "h1")) == ("left", "lost")
    assert not who.dismissed()
    who.dismiss("h1")
    assert who.dismissed()
