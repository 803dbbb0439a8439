"""Trace files: every rule of parsing by a small file, the replay against a naive one, and the golden FLASH trace."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parityfl.core.availability import Trace, self_check
from parityfl.core.availability.fitting import fit_diurnal, fit_gilbert_elliott
from parityfl.core.availability.flash import RULES
from parityfl.core.availability.recording import recording
from parityfl.core.availability.trace import read_recording
from parityfl.core.availability.trace_statistics import trace_statistics
from parityfl.core.errors import ConfigError, DataError
from parityfl.core.types import World

FLASH = Path(__file__).parents[2].parent / "shared" / "data" / "flash-100.json"
needs_flash = pytest.mark.skipif(not FLASH.exists(), reason="the FLASH trace is not here")

DAY = 86400
MIDNIGHT = 1580256000  # 2020-01-29 00:00:00 UTC
SENTINEL = [("30 00:00:00", "screen_on"), ("30 00:00:00", "2G")]


def world(num_clients, interval_s=600.0, seed=0):
    sizes = np.full(num_clients, 100)
    return World(seed, num_clients, 1, interval_s, sizes, np.zeros((num_clients, 0), dtype=np.int64))


def flash_file(folder, **devices):
    """Write devices whose lines are (day of January and time, event)."""
    log = {
        name: {"guid": 1, "model": "x", "messages": "\n".join(f"2020-01-{stamp} \t{event}" for stamp, event in lines)}
        for name, lines in devices.items()
    }
    file = folder / "trace.json"
    file.write_text(json.dumps(log))
    return str(file)


def csv_file(folder, *rows):
    file = folder / "trace.csv"
    file.write_text("\n".join(["client_id,start_s,end_s", *rows, ""]))
    return str(file)


def on_intervals(path, rule="charging_wifi", max_gap_h=None):
    """Return the device 0 on-intervals in seconds after its first record's midnight."""
    steps = read_recording(path, rule, max_gap_h)
    ends = steps.ends_s(steps.last_s) - steps.midnight_s
    starts = steps.start_s - steps.midnight_s
    return [(s, e) for s, e, d, on in zip(starts, ends, steps.device, steps.on, strict=True) if d == 0 and on and e > s]


def hours(*intervals):
    return [(start * 3600.0, end * 3600.0) for start, end in intervals]


# --- the numbered rules of the format


def test_everything_is_false_at_the_start_and_rules_combine(tmp_path):
    """Wi-Fi at 1, charging at 2, screen off at 3 to 5, locked 4 to 6; charging ends at 8."""
    lines = [("29 00:00:00", "98.0%"), ("29 01:00:00", "wifi"), ("29 02:00:00", "battery_charged_on")]
    lines += [("29 03:00:00", "screen_off"), ("29 04:00:00", "screen_lock"), ("29 05:00:00", "screen_on")]
    lines += [("29 06:00:00", "screen_unlock"), ("29 08:00:00", "battery_charged_off"), ("29 09:00:00", "4G")]
    path = flash_file(tmp_path, a=lines + SENTINEL)
    assert on_intervals(path, "wifi") == hours((1, 9))
    assert on_intervals(path, "charging_wifi") == hours((2, 8))
    assert on_intervals(path, "charging_wifi_off") == hours((3, 5))
    assert on_intervals(path, "charging_wifi_locked") == hours((4, 6))


@pytest.mark.parametrize("word", ["2G", "3G", "4G", "5G", "Unknown", "UNKNOWN", "2g"])
def test_every_other_network_turns_wifi_off(tmp_path, word):
    path = flash_file(tmp_path, a=[("29 00:00:00", "WiFi"), ("29 01:00:00", word), *SENTINEL])
    assert on_intervals(path, "wifi") == hours((0, 1))


def test_an_unknown_word_is_counted_and_changes_nothing(tmp_path, caplog):
    lines = [("29 00:00:00", "wifi"), ("29 01:00:00", "bluetooth"), ("29 02:00:00", "bluetooth"), ("29 03:00:00", "7%")]
    path = flash_file(tmp_path, a=lines + SENTINEL)
    with caplog.at_level(logging.WARNING):
        assert on_intervals(path, "wifi") == hours((0, 24))
    assert read_recording(path).ignored == {"bluetooth": 2}
    assert "ignored 2 records of unknown events: bluetooth" in caplog.text


def test_of_records_at_one_instant_the_final_state_counts(tmp_path):
    """At 2 h charging goes off and on again: no gap. At 4 h it goes on and off: no interval of zero length."""
    lines = [("29 00:00:00", "wifi"), ("29 01:00:00", "battery_charged_on"), ("29 02:00:00", "battery_charged_off")]
    lines += [("29 02:00:00", "battery_charged_on"), ("29 03:00:00", "battery_charged_off")]
    lines += [("29 04:00:00", "battery_charged_on"), ("29 04:00:00", "battery_charged_off")]
    path = flash_file(tmp_path, a=lines + SENTINEL)
    assert on_intervals(path) == hours((1, 3))
    assert trace_statistics(read_recording(path)).on.count == 1


def test_lines_are_sorted_by_time_and_blank_ones_skipped(tmp_path):
    body = "\n2020-01-29 02:00:00\t4G\n\n  2020-01-29 01:00:00 \t wifi \n"
    body += "2020-01-29 00:00:00 \tscreen_on\r\n\n2020-01-29 04:00:00\t2G\n"
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"a": {"messages": body}}))
    assert on_intervals(str(file), "wifi") == hours((1, 2))


def test_a_state_persists_through_a_gap_or_expires(tmp_path):
    """Wi-Fi at 0 h, a percentage at 2 h, the sentinel at 24 h: with a cap of 3 h it holds until 2 + 3 = 5 h."""
    path = flash_file(tmp_path, a=[("29 00:00:00", "wifi"), ("29 02:00:00", "50%"), *SENTINEL])
    assert on_intervals(path, "wifi") == hours((0, 24))
    assert on_intervals(path, "wifi", max_gap_h=3) == hours((0, 5))
    assert on_intervals(path, "wifi", max_gap_h=1) == hours((0, 1), (2, 3))


def test_times_do_not_depend_on_the_machines_zone(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    path = flash_file(tmp_path, a=[("29 00:00:00", "wifi"), *SENTINEL])
    assert read_recording(path).first_s[0] == MIDNIGHT
    monkeypatch.undo()
    time.tzset()


# --- replay


def test_looping_keeps_the_time_of_day_and_devices_stay_aligned(tmp_path):
    """Device a is on 1 h to 2 h of the 29th, b (a day later) 1 h to 2 h of the 30th; both every day at that hour."""
    a = [("29 00:30:00", "3G"), ("29 01:00:00", "wifi"), ("29 02:00:00", "4G"), ("30 00:30:00", "2G")]
    b = [("30 00:00:00", "3G"), ("30 01:00:00", "wifi"), ("30 02:00:00", "4G"), ("31 00:00:00", "2G")]
    process = Trace(path=flash_file(tmp_path, a=a, b=b), rule="wifi").bind(world(2))
    for day in (0, 1, 7, 1000):
        hourly = [process.available(day * DAY + hour * 3600.0).tolist() for hour in range(24)]
        assert hourly == [[hour == 1, hour == 1] for hour in range(24)]
    assert process.probability(0.0).tolist() == [1 / 24, 1 / 24]


def test_outside_a_recording_that_does_not_loop_is_unknown(tmp_path):
    """a is known from 0 h to 24 h and on from 1 h; b from 12 h to 36 h, never on."""
    a = [("29 00:00:00", "3G"), ("29 01:00:00", "wifi"), ("30 00:00:00", "2G")]
    b = [("29 12:00:00", "3G"), ("30 12:00:00", "2G")]
    process = Trace(path=flash_file(tmp_path, a=a, b=b), rule="wifi", loop=False).bind(world(2))
    states = [process.state(hour * 3600.0).tolist() for hour in (0, 1, 12, 24, 36)]
    assert states == [[0, -1], [1, -1], [1, 0], [-1, 0], [-1, -1]]
    assert process.available(24 * 3600.0).tolist() == [False, False]
    assert np.isnan(process.probability(24 * 3600.0)).tolist() == [True, False]
    check = self_check(process, 40, 3600.0)
    assert check.realised.tolist() == [23 / 24, 0.0]
    assert check.requested == pytest.approx([23 / 24, 0.0])


def test_start_s_is_seconds_after_midnight(tmp_path):
    path = flash_file(tmp_path, a=[("29 05:00:00", "wifi"), ("29 06:00:00", "2G"), ("30 05:00:00", "2G")])
    process = Trace(path=path, rule="wifi", start_s=5 * 3600.0).bind(world(1))
    assert [process.available(hour * 3600.0)[0] for hour in (0, 1, 24)] == [True, False, True]


def test_a_full_round_must_fit_and_may_cross_the_seam(tmp_path):
    """On from 23 h to 1 h across midnight, rounds of an hour: rounds may begin from 23 h to 0 h, 1 of 24 hours."""
    lines = [("29 00:00:00", "wifi"), ("29 01:00:00", "2G"), ("29 23:00:00", "wifi"), ("30 00:00:00", "screen_on")]
    process = Trace(path=flash_file(tmp_path, a=lines), rule="wifi", require_full_round=True).bind(world(1, 3600.0))
    available = [hour for hour in np.arange(0, 24, 0.5) if process.available(hour * 3600.0)[0]]
    assert available == [0, 23, 23.5]
    assert process.probability(0.0)[0] == pytest.approx(1 / 24)


def test_a_device_that_never_leaves_has_every_full_round(tmp_path):
    process = Trace(path=csv_file(tmp_path, "a,0,7200", "b,0,3600"), require_full_round=True).bind(world(2, 9000.0))
    assert process.available(1800.0).tolist() == [True, False]
    assert process.probability(0.0).tolist() == [1.0, 0.0]


def test_fewer_clients_take_the_first_devices(tmp_path):
    path = csv_file(tmp_path, "z,0,600", "a,600,1200", "m,0,1200")
    assert Trace(path=path).bind(world(2)).available(0.0).tolist() == [True, False]


def test_more_clients_are_shifted_copies(tmp_path):
    """A device with 48 different hours: its 30 copies are on in 30 of them, the first in its own."""
    path = csv_file(tmp_path, "a,0,3600", f"b,3600,{2 * DAY}")
    process = Trace(path=path).bind(world(60))
    on = np.array([process.available(half * 1800.0)[::2] for half in range(96)])
    assert np.array_equal(on[::2], on[1::2])
    when = on[::2].argmax(axis=0)
    assert on[::2].sum(axis=0).tolist() == [1] * 30
    assert when[0] == 0
    assert len(set(when.tolist())) == 30
    assert process.probability(0.0)[::2] == pytest.approx(1 / 48)
    other = Trace(path=path).bind(world(60, seed=1))
    assert any(not np.array_equal(other.available(h * 3600.0), process.available(h * 3600.0)) for h in range(48))


def test_replication_can_be_refused(tmp_path):
    path = csv_file(tmp_path, "a,0,600")
    with pytest.raises(ConfigError, match=r"holds 1 devices for 3 clients: set availability.replicate = true, or pop"):
        Trace(path=path, replicate=False).bind(world(3))


@st.composite
def replays(draw):
    devices = draw(st.integers(1, 4))
    interval = st.tuples(st.integers(0, 3 * DAY), st.integers(0, DAY))
    rows = [(k, s, s + d) for k in range(devices) for s, d in draw(st.lists(interval, min_size=1, max_size=6))]
    return rows, draw(st.booleans()), draw(st.lists(st.floats(0, 10 * DAY), min_size=1, max_size=20))


@given(replays())
@settings(max_examples=60, deadline=None)
def test_replay_equals_a_naive_one(tmp_path_factory, case):
    rows, loop, times = case
    begin = min(start for _, start, _ in rows) // DAY * DAY
    span = max(end for _, _, end in rows) - begin
    if span == 0:
        return
    period = span if span < DAY / 2 or not loop else max(round(span / DAY), 1) * DAY
    path = csv_file(tmp_path_factory.mktemp("replay"), *(f"h{k},{s},{e}" for k, s, e in rows))
    devices = len({k for k, _, _ in rows})
    process = Trace(path=path, loop=loop).bind(world(devices))
    for time_s in times:
        clock = begin + time_s % period
        naive = [any(k == device and s <= clock < e for k, s, e in rows) for device in range(devices)]
        known = loop or time_s < span
        assert process.available(time_s).tolist() == [on and known for on in naive]


def test_the_copies_of_every_device_are_shifted(tmp_path):
    """b, the second device, is on in one hour of 48: it and its 47 copies have one each."""
    process = Trace(path=csv_file(tmp_path, f"a,0,{2 * DAY}", "b,0,3600")).bind(world(96))
    assert all(process.available(hour * 3600.0)[1::2].sum() == 1 for hour in range(48))


def test_the_clock_begins_at_the_last_midnight_before_the_earliest_record(tmp_path):
    a = [("30 03:00:00", "wifi"), ("30 04:00:00", "screen_on")]
    b = [("29 06:00:00", "wifi"), ("29 12:00:00", "screen_on")]
    assert read_recording(flash_file(tmp_path, a=a, b=b), "wifi").midnight_s == MIDNIGHT


def test_intervals_of_a_real_clock_begin_at_its_midnight(tmp_path):
    path = csv_file(tmp_path, f"a,{MIDNIGHT + 3600},{MIDNIGHT + 7200}")
    assert read_recording(path).first_s.tolist() == [MIDNIGHT]


def test_a_state_expires_within_its_own_device(tmp_path):
    a = [("29 00:00:00", "wifi"), ("29 02:00:00", "screen_on")]
    b = [("29 00:00:00", "wifi"), ("29 06:00:00", "screen_on")]
    steps = read_recording(flash_file(tmp_path, a=a, b=b), "wifi", 3)
    assert steps.device.tolist() == [0, 1, 1, 1]
    assert (steps.start_s - MIDNIGHT).tolist() == [0, 0, 3 * 3600, 6 * 3600]
    assert steps.on.tolist() == [True, True, False, True]


def test_a_devices_last_state_does_not_expire_into_the_next_device(tmp_path):
    a = [("29 00:00:00", "wifi"), ("29 02:00:00", "screen_on")]
    b = [("31 00:00:00", "wifi"), ("31 02:00:00", "screen_on")]
    assert on_intervals(flash_file(tmp_path, a=a, b=b), "wifi", max_gap_h=3) == hours((0, 2))


def test_a_round_that_outlasts_the_recording_is_not_full(tmp_path):
    process = Trace(path=csv_file(tmp_path, "a,0,3600"), loop=False, require_full_round=True).bind(world(1))
    assert [bool(process.available(at)[0]) for at in (0.0, 3000.0, 3300.0)] == [True, True, False]


def test_as_many_clients_as_devices_are_no_replication(tmp_path):
    path = csv_file(tmp_path, "a,0,600", "b,0,600")
    assert Trace(path=path, replicate=False).bind(world(2)).available(0.0).all()


# --- the plain CSV


def test_intervals_may_overlap_touch_and_come_in_any_order(tmp_path):
    path = csv_file(tmp_path, "a,3600,7200", "b, 0, 0", "a,0,1800", "a,1800,1900", "a,1000,2000", "", "b,86400,86400")
    assert on_intervals(path) == [(0.0, 2000.0), (3600.0, 7200.0)]
    stats = trace_statistics(read_recording(path))
    assert stats.devices == ("a", "b")
    assert stats.pi.tolist() == [5600 / DAY, 0.0]


def test_a_short_recording_repeats_as_it_is_and_a_long_one_by_whole_days(tmp_path):
    assert read_recording(csv_file(tmp_path, "a,0,1200")).period_s.tolist() == [1200.0]
    assert read_recording(csv_file(tmp_path, f"a,0,{7 * DAY - 600}")).period_s.tolist() == [7.0 * DAY]


def test_a_changed_file_is_read_again(tmp_path):
    path = csv_file(tmp_path, "a,0,600")
    assert len(read_recording(path).devices) == 1
    assert len(read_recording(csv_file(tmp_path, "a,0,600", "b,0,600")).devices) == 2
    assert read_recording(path) is read_recording(path)


# --- malformed files


def device(messages):
    return json.dumps({"7": {"messages": messages}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is not a trace: neither JSON \(.*\) nor CSV"),
        ("{", r"is not a trace: neither JSON \(.*line 1 column 2"),
        ("[" * 100_000, "is not a trace"),
        ("[]", "must be a JSON object of devices and holds an empty list"),
        ("{}", "holds an empty dict"),
        ('"x"', "holds a str"),
        ('{"a": 1}', "device 'a' is not a FLASH device"),
        ('{"a": {"messages": 3}}', "device 'a' is not a FLASH device"),
        (device("2020-01-29 00:00:00\twifi\nnonsense\n"), "device '7', line 2 of its messages is 'nonsense'"),
        (device("2020-01-29 00:00:00 wifi"), "line 1 of its messages is '2020-01-29 00:00:00 wifi'"),
        (device("2020-01-32 00:00:00\twifi"), "line 1 of its messages"),
        (device("2020-01-29\twifi"), "line 1 of its messages"),
        (device("\n"), "device '7': its messages span no time"),
        (device("2020-01-29 00:00:00\twifi"), "device '7': its messages span no time"),
        ("client_id,start,end\na,0,1\n", "nor CSV with the header client_id,start_s,end_s"),
        ("client_id,start_s,end_s\n", "holds no interval"),
        ("client_id,start_s,end_s\na,0,1\n\na,5\n", "line 4 is 'a,5'"),
        ("client_id,start_s,end_s\na,0,x\n", "line 2 is 'a,0,x'"),
        ("client_id,start_s,end_s\na,2,1\n", "line 2 is 'a,2,1'.*start_s not above end_s"),
        ("client_id,start_s,end_s\na,0,nan\n", "line 2"),
        ("client_id,start_s,end_s\na,0,inf\n", "line 2"),
        ("client_id,start_s,end_s\n,0,1\n", "line 2"),
        ("client_id,start_s,end_s\na,0,1,2\n", "line 2"),
        ("client_id,start_s,end_s\na,0,0\n", "spans no time"),
        (
            "client_id,start_s,end_s\na,0,3600\n\nb,0,9999999999999\n",
            r"line 4 ends at 9999999999999, more than 100 years after 0 in line 2: are these milliseconds",
        ),
        ("client_id,start_s,end_s\na,0,1e300\n", r"line 2 ends at 1e\+300, more than 100 years after 0 in line 2"),
        ("client_id,start_s,end_s\na,-1e308,1\nb,0,1e308\n", r"line 3 ends at 1e\+308, more than 100 years after -1e"),
        (
            device("1970-01-01 00:00:00\twifi\n9999-12-31 23:59:59\tunknown"),
            r"device '7': its last record is of 9999-12-31 23:59:59, more than 100 years after 1970-01-01 00:00:00 of",
        ),
    ],
)
def test_a_malformed_file_is_named_with_its_place(tmp_path, text, message):
    file = tmp_path / "bad.trace"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_recording(str(file))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the trace .*absent.json: No such file"):
        read_recording(str(tmp_path / "absent.json"))
    with pytest.raises(DataError, match="Is a directory"):
        read_recording(str(tmp_path))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="not UTF-8"):
        read_recording(str(binary))


def test_where_a_relative_path_was_looked_for_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        read_recording("sub/absent.csv")
    remedy = "give an absolute path, or run from the folder that it is relative to"
    told = f"looked for from the current folder, {tmp_path}: {remedy}"
    assert f"cannot read the trace sub/absent.csv: No such file or directory ({told}); " in str(error.value)
    with pytest.raises(DataError, match="No such file or directory; name a FLASH JSON"):
        read_recording(str(tmp_path / "absent.csv"))


def test_a_century_is_not_too_long(tmp_path):
    """36,525 days of 86,400 s are 3,155,760,000 s."""
    assert read_recording(csv_file(tmp_path, "a,0,3155760000")).span_s.tolist() == [3155760000]
    with pytest.raises(DataError, match="more than 100 years"):
        read_recording(csv_file(tmp_path, "a,0,3155760001"))


# --- statistics and fits


def test_statistics_by_hand(tmp_path):
    """One day. a: on 0 h to 6 h and 12 h to 13:30; b: never. On-runs 6 and 1.5 h, off-runs 6, 10.5 and 24 h."""
    path = csv_file(tmp_path, "a,0,21600", "a,43200,48600", "b,86400,86400")
    stats = trace_statistics(read_recording(path))
    assert stats.pi.tolist() == [7.5 / 24, 0.0]
    assert stats.span_days.tolist() == [1.0, 1.0]
    assert (stats.on.count, stats.on.mean_s, stats.on.median_s) == (2, 3.75 * 3600, 3.75 * 3600)
    assert (stats.off.count, stats.off.mean_s, stats.off.median_s) == (3, 13.5 * 3600, 10.5 * 3600)
    expected = np.zeros(24)
    expected[[0, 1, 2, 3, 4, 5, 12]], expected[13] = 1.0, 0.5
    assert stats.heat_map[0] == pytest.approx(expected)
    assert stats.hourly == pytest.approx(expected / 2)


def test_hours_that_nobody_saw_are_unknown(tmp_path):
    stats = trace_statistics(read_recording(csv_file(tmp_path, "a,0,5400")))
    assert stats.heat_map[0, :2].tolist() == [1.0, 1.0]
    assert np.isnan(stats.heat_map[0, 2:]).all()
    assert np.isnan(stats.hourly[2:]).all()
    assert stats.off.count == 0
    assert np.isnan(stats.off.mean_s)


def test_gilbert_elliott_fit_by_hand(tmp_path):
    """Rounds of 600 s: a is on in 1 2 3, off in 4, on in 5 6, off in 7 8: 5 on with successors, 2 departures: 2.5.

    b is never on; c always, 7 rounds with successors and no departure, which counts as one.
    """
    path = csv_file(tmp_path, "a,0,1800", "a,2400,3600", "b,4800,4800", "c,0,4800")
    model = fit_gilbert_elliott(read_recording(path), 600.0)
    assert model.pi == [5 / 8, 0.0, 1.0]
    assert model.mean_on_rounds == [2.5, 1.0, 7.0]
    assert model.bind(world(3)).probability(0.0).tolist() == model.pi


def sinusoid(mean, amplitude, peak_h):
    """Return a day in which the device is on for the first mean + amplitude cos(...) of every half hour."""
    begin = np.arange(48) * 1800.0
    share = mean + amplitude * np.cos(2 * np.pi * ((begin + 900) / 3600 - peak_h) / 24)
    times = np.stack([begin, begin + share * 1800], axis=1).ravel()
    window = np.zeros(1), np.full(1, 86400.0)
    return recording(("a",), window, np.zeros(96, dtype=np.int64), times, np.tile([True, False], 48))


def test_diurnal_fit_finds_what_was_put_in():
    """0.4 + 0.3 cos with its peak at 20 h: the room is 0.4, so the amplitude is 0.3 / 0.4 = 0.75."""
    model = fit_diurnal(sinusoid(0.4, 0.3, 20.0))
    assert model.pi == pytest.approx([0.4], abs=1e-9)
    assert model.amplitude == pytest.approx([0.75], abs=2e-3)
    assert model.peak_h == pytest.approx([20.0], abs=1e-6)


def test_a_diurnal_fit_needs_whole_days(tmp_path):
    with pytest.raises(DataError, match="device 'a' was not observed in every hour"):
        fit_diurnal(read_recording(csv_file(tmp_path, "a,0,5400")))


# --- the FLASH trace


@needs_flash
def test_flash_golden_devices():
    process = Trace(path=str(FLASH)).bind(world(100))
    pi = process.probability(0.0)
    assert [f"{value:.6f}" for value in pi[:6]] == [
        "0.218250",
        "0.004519",
        "0.454907",
        "0.138929",
        "0.358659",
        "0.360145",
    ]
    assert f"{pi.mean():.6f}" == "0.098046"
    assert np.sum(pi == 0) == 26


@needs_flash
def test_flash_first_run_of_device_5():
    """22:35:32 to 04:20:03 is 344.52 minutes."""
    steps = read_recording(str(FLASH))
    first = np.flatnonzero((steps.device == 5) & steps.on)[0]
    start, end = steps.start_s[first], steps.ends_s(steps.last_s)[first]
    assert time.strftime("%H:%M:%S", time.gmtime(start)) == "22:35:32"
    assert time.strftime("%H:%M:%S", time.gmtime(end)) == "04:20:03"
    assert f"{(end - start) / 60:.2f}" == "344.52"


TABLE = {
    "charging_wifi": (".0980 .125 .000 .042 .145 .275 .361 .560", (26, 52, 65), "57.0 15.4"),
    "charging_wifi_off": (".0691 .103 .000 .018 .098 .212 .242 .550", (33, 61, 77), "22.9 4.2"),
    "charging_wifi_locked": (".0612 .093 .000 .017 .087 .182 .262 .466", (32, 65, 80), "34.9 3.5"),
    "wifi": (".4177 .369 .039 .302 .799 .971 .992 1.000", (11, 26, 31), "131.5 14.1"),
}


@needs_flash
@pytest.mark.parametrize("rule", RULES)
def test_flash_statistics(rule):
    stats = trace_statistics(read_recording(str(FLASH), rule))
    figures = [stats.pi.std(), *np.quantile(stats.pi, [0.25, 0.5, 0.75, 0.9, 0.95, 1])]
    printed = " ".join([f"{stats.pi.mean():.4f}", *(f"{figure:.3f}" for figure in figures)]).replace("0.", ".")
    runs = f"{stats.on.mean_s / 60:.1f} {stats.on.median_s / 60:.1f}"
    assert (printed, tuple(np.sum(stats.pi <= limit) for limit in (0, 0.05, 0.1)), runs) == TABLE[rule]


@needs_flash
def test_flash_runs_and_spans():
    stats = trace_statistics(read_recording(str(FLASH)))
    assert stats.on.count == 1032
    assert stats.ignored == {}
    days, devices = np.unique(stats.span_days, return_counts=True)
    assert dict(zip(days, devices, strict=True)) == {1: 12, 2: 9, 3: 11, 4: 8, 5: 21, 6: 35, 7: 3, 10: 1}


@needs_flash
@pytest.mark.parametrize(("cap_h", "mean"), [(12, "0.0965"), (6, "0.0900"), (2, "0.0735")])
def test_flash_with_a_cap_on_gaps(cap_h, mean):
    stats = trace_statistics(read_recording(str(FLASH), max_gap_h=cap_h))
    assert f"{stats.pi.mean():.4f}" == mean


@needs_flash
def test_flash_fits_keep_pi():
    steps = read_recording(str(FLASH))
    pi = trace_statistics(steps).pi
    assert fit_gilbert_elliott(steps, 600.0).pi == pi.tolist()
    assert fit_diurnal(steps).pi == pytest.approx(pi)


@needs_flash
def test_the_published_hours_are_those_of_four_days():
    """The profile in the research notes is the pooled share of device-time on 30 January to 2 February 2020 (UTC), at
    the instants of a grid of ten minutes; all observed time would differ by up to .023 in an hour."""
    published = [94, 89, 94, 91, 92, 88, 97, 93, 77, 66, 64, 62, 79, 70, 86, 97, 96, 104, 108, 113, 114, 124, 106, 101]
    found = read_recording(str(FLASH))
    grid = MIDNIGHT + DAY + np.arange(4 * 144) * 600
    on, seen = np.zeros(len(grid)), np.zeros(len(grid))
    for index, steps in enumerate(found.steps()):
        known = (grid >= found.first_s[index]) & (grid < found.last_s[index])
        state = found.on[steps][np.searchsorted(found.start_s[steps], grid[known], side="right") - 1]
        on[known] += state
        seen[known] += 1
    hours = on.reshape(4, 24, 6).sum(axis=(0, 2)) / seen.reshape(4, 24, 6).sum(axis=(0, 2))
    assert hours == pytest.approx(np.array(published) / 1000, abs=0.0006)
    assert seen.mean() / len(found.devices) == pytest.approx(0.717, abs=0.001)


@needs_flash
def test_the_published_off_runs_count_six_of_no_length():
    """515 / 29 minutes over 1,119 runs: 6 devices are on until their last record, which begins a run of length 0."""
    found = read_recording(str(FLASH))
    minutes = ((found.ends_s(found.last_s) - found.start_s) / 60)[~found.on]
    assert (len(minutes), np.sum(minutes == 0)) == (1119, 6)
    assert (round(minutes.mean()), round(np.median(minutes))) == (515, 29)
    stats = trace_statistics(found)
    assert (stats.off.count, round(stats.off.mean_s / 60), round(stats.off.median_s / 60)) == (1113, 518, 31)
