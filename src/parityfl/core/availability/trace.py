"""Availability replayed from a recording of real devices."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import ClassVar

import numpy as np

from parityfl.core.availability.base import AvailabilityModel, availability
from parityfl.core.availability.flash import RULES, FlashLog, apply_rule, read_flash
from parityfl.core.availability.intervals import is_intervals, read_intervals
from parityfl.core.availability.recording import HOUR_S, Recording
from parityfl.core.errors import ConfigError, DataError
from parityfl.core.keys import require
from parityfl.core.seeding import generator
from parityfl.core.types import BoolArray, FloatArray, IntArray, World

UNKNOWN, ON = -1, 1


@availability("trace")
@dataclass(frozen=True)
class Trace(AvailabilityModel):
    """Replay a recording: FLASH's JSON, or a CSV of intervals ``client_id,start_s,end_s``.

    Client k is device k of the file; where there are fewer clients than devices, the first ones are taken. Time 0 of
    the run is the last midnight at or before the file's earliest record, plus `start_s`; all devices stay on the
    file's clock. A client is available in a round when its device is at the instant at which the round begins.

    Where there are more clients than devices, client k is device k mod D, and each copy after the first is rotated
    within the recording by a whole number of hours of its own, drawn by the seed, so that copies do not move together.

    Attributes:
        path: the file.
        rule: what makes a device available: `charging_wifi`, `charging_wifi_off` (and the screen off),
            `charging_wifi_locked` (and locked, FLASH's own rule) or `wifi`. A CSV says it itself.
        replicate: whether devices may stand for several clients.
        start_s: seconds from the midnight to time 0 of the run.
        loop: start again at the end, at the same time of day. Without it clients are unknown (not available, true
            probability nan) outside their recording.
        require_full_round: count a device available only if it is so for the whole of the round's interval.
        max_gap_h: hours after which a state that no later record confirms expires to unavailable, but for that of a
            device's last record (FLASH's JSON only).
    """

    source: ClassVar[str] = "Yang et al., WWW 2021 (FLASH)"

    path: str = ""
    rule: str = "charging_wifi"
    replicate: bool = True
    start_s: float = 0.0
    loop: bool = True
    require_full_round: bool = False
    max_gap_h: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"unknown availability.rule {self.rule!r}: there are {', '.join(RULES)}")
        require(isfinite(self.start_s), "availability.start_s", self.start_s, "give seconds after midnight")
        valid = self.max_gap_h is None or self.max_gap_h > 0
        require(valid, "availability.max_gap_h", self.max_gap_h, "give hours above 0, or leave it out")

    @property
    def recorded(self) -> bool:
        """A trace is a recording."""
        return True

    @property
    def files(self) -> tuple[str, ...]:
        """The file."""
        return (self.path,)

    def bind(self, world: World) -> "TraceProcess":
        """Return the process of the first clients, or of copies.

        Raises:
            ConfigError: `path` is empty, or there are too few devices and `replicate` is off.
            DataError: the file cannot be read.
        """
        if not self.path:
            raise ConfigError("availability.path is empty: name a trace file")
        recording = read_recording(self.path, self.rule, self.max_gap_h)
        devices = len(recording.devices)
        if world.num_clients > devices and not self.replicate:
            raise ConfigError(
                f"{self.path} holds {devices} devices for {world.num_clients} clients: set availability.replicate = "
                f"true, or population.clients to {devices} at most"
            )
        return _replay(recording, self, world)


def read_recording(path: str, rule: str = "charging_wifi", max_gap_h: float | None = None) -> Recording:
    """Read a trace file of either format; an unchanged file is parsed once in a process.

    Raises:
        DataError: the file is missing or malformed; the message names file, place and remedy.
    """
    try:
        file = Path(path).expanduser().resolve()
        status = file.stat()
        content = _parse(path, file, status.st_mtime_ns, status.st_size)
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"{error.strerror}{_where(path)}"
        raise DataError(f"cannot read the trace {path}: {reason}; name a FLASH JSON or a CSV of intervals") from None
    return content if isinstance(content, Recording) else apply_rule(content, rule, max_gap_h)


def _where(path: str) -> str:
    """Say where a relative path was looked for, and what helps; '' for an absolute one."""
    with suppress(OSError):  # the current folder may be gone
        if not Path(path).expanduser().is_absolute():
            remedy = "give an absolute path, or run from the folder that it is relative to"
            return f" (looked for from the current folder, {Path.cwd()}: {remedy})"
    return ""


@lru_cache(maxsize=4)
def _parse(path: str, file: Path, mtime_ns: int, size: int) -> FlashLog | Recording:
    """Parse the file; its time and size are part of the cache's key, so that a changed file is parsed again."""
    text = file.read_text(encoding="utf-8-sig")
    return read_intervals(text, path) if is_intervals(text) else read_flash(text, path)


@dataclass(frozen=True)
class TraceProcess:
    """N clients that replay devices.

    A client's position is how far into its device's period it is. The steps of all devices lie on one axis, device
    after device, so that one binary search answers for every client.

    Attributes:
        axis: where on the axis each step begins, ascending, shape (M,).
        on: whether the device is available there, shape (M,).
        run_ends: where on the axis the on-run of each step ends, maybe beyond its device's part, shape (M,).
        base: where on the axis each client's device begins, shape (N,).
        offset_s: from the time of the run to the time since the client's device's first record, shape (N,).
        shift_s: by how much each client is rotated, shape (N,).
        span_s: how long each client's device was observed, shape (N,).
        period_s: after how long it repeats, shape (N,).
        pi: the long-run fraction of time in which each client is available, shape (N,).
        loop: whether it repeats at all.
        hold_s: how long a client must stay on to count, 0 for the instant.
    """

    axis: FloatArray
    on: BoolArray
    run_ends: FloatArray
    base: FloatArray
    offset_s: FloatArray
    shift_s: FloatArray
    span_s: FloatArray
    period_s: FloatArray
    pi: FloatArray
    loop: bool
    hold_s: float

    def state(self, time_s: float) -> IntArray:
        """Return 1 for available, 0 for not, and -1 for unknown, shape (N,)."""
        place = self.base + np.mod(time_s + self.offset_s + self.shift_s, self.period_s)
        step = np.searchsorted(self.axis, place, side="right") - 1
        on = self.on[step] & (self.run_ends[step] - place >= self.hold_s)
        return np.where(self._known(time_s), on.astype(np.int64), UNKNOWN)

    def available(self, time_s: float) -> BoolArray:
        """Return who is known to be available, shape (N,)."""
        return np.equal(self.state(time_s), ON)

    def probability(self, time_s: float) -> FloatArray:
        """Return each client's long-run fraction of time, nan where `time_s` is outside its recording, shape (N,)."""
        return np.where(self._known(time_s), self.pi, np.nan)

    def _known(self, time_s: float) -> BoolArray:
        since_first = time_s + self.offset_s
        return np.logical_or(self.loop, (since_first >= 0) & (since_first < self.span_s))


def _replay(recording: Recording, keys: Trace, world: World) -> TraceProcess:
    """Lay the recording out on one axis and assign the clients to its devices."""
    device, first_s = recording.device, recording.first_s
    period_s = recording.period_s if keys.loop else recording.span_s
    hold_s = world.interval_s if keys.require_full_round else 0.0
    start = np.minimum(recording.start_s - first_s[device], period_s[device])
    end = np.minimum(recording.ends_s(first_s + period_s) - first_s[device], period_s[device])
    run_end = _run_ends(recording, end, period_s) if keys.loop else end
    on_s = recording.on * np.clip(np.minimum(end, run_end - hold_s) - start, 0.0, None)
    pi = np.bincount(device, weights=on_s) / period_s
    base = np.concatenate([[0.0], np.cumsum(period_s + 1.0)[:-1]])  # a second apart, so that the ends do not meet
    client = np.arange(world.num_clients) % len(recording.devices)
    return TraceProcess(
        axis=start + base[device],
        on=recording.on,
        run_ends=run_end + base[device],
        base=base[client],
        offset_s=(recording.midnight_s + keys.start_s - first_s)[client],
        shift_s=_shifts(period_s, world),
        span_s=recording.span_s[client],
        period_s=period_s[client],
        pi=pi[client],
        loop=keys.loop,
        hold_s=hold_s,
    )


def _run_ends(recording: Recording, end: FloatArray, period_s: FloatArray) -> FloatArray:
    """Return when the on-run of each step ends in a loop, where a run may go on across the seam, shape (M,)."""
    device = recording.device
    head = np.flatnonzero(np.append(True, device[1:] != device[:-1]))
    head_run = np.where(recording.on[head], end[head], 0.0)
    head_run[head_run >= period_s] = np.inf
    return np.where(end >= period_s[device], (period_s + head_run)[device], end)


def _shifts(period_s: FloatArray, world: World) -> FloatArray:
    """Return by how much each client is rotated, shape (N,).

    The copies of a device take distinct whole hours of its period, in an order of their own, as long as there are
    enough; a period of less than a day is cut in 24 instead.
    """
    shift_s, devices = np.zeros(world.num_clients), len(period_s)
    for device in range(min(devices, world.num_clients - devices)):
        unit = min(HOUR_S, period_s[device] / 24)
        parts = round(period_s[device] / unit)
        order = 1 + generator(world.seed, "trace shift", client=device).permutation(parts - 1)
        copies = shift_s[device + devices :: devices]
        copies[:] = unit * np.resize(order, len(copies))
    return shift_s
