"""Who is here: the devices that have registered, where to call them, and how they are. Plain data; time is given."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan

import numpy as np

from parityfl.coordinator.agreement import Agreement
from parityfl.core.errors import FleetError
from parityfl.core.types import BoolArray, FloatArray, IntArray
from parityfl.core.wording import listed
from parityfl.web.server import authority
from parityfl.wire.payload import PLAIN, Form
from parityfl.wire.schemas import DeviceReport, Registration, State, Transition

log = logging.getLogger(__name__)

SUSPECT_AFTER = 1.25
LOST_AFTER = 1.6
"""After how many silent heartbeats a device is suspect, and lost.

A device reports twice a heartbeat. One missing report changes nothing, nor do two for a quarter of a heartbeat: then it
is suspect, and lost when the third is missing.
With `LOOKS` a heartbeat that is noticed at most 1.65 heartbeats after the last report.
"""

LOOKS = 20
"""How often in a heartbeat the coordinator looks who has come and, with `refresh`, who has gone."""

HELD_UP = 0.5
"""After how many heartbeats without a look this process itself was held up."""

GONE: frozenset[State] = frozenset({"suspect", "lost"})
UNHEARD: frozenset[State] = frozenset({"registered", "unreachable", "rejoined", "left", "revoked", *GONE})
"""States of devices that are not known to be up: not since they registered, or not any more."""


@dataclass
class Member:
    """A device that has registered.

    Attributes:
        index: its index in the population.
        device_id: its name.
        host: where to call it.
        port: where it listens; None for one that polls for its requests.
        tls: whether it listens with TLS.
        last_seen: when it was last heard of.
        state: what the coordinator makes of it.
        training: the round that it trains for, or None.
        completed: the last round that it has completed, or None.
        misplaced: whether it could not be reached where it registered; until it registers again.
        answered: whether it has answered where it registered, and was not unreachable since.
        latency_s: round trip of its status updates, nan before the first.
        num_samples: training examples, None until it has loaded its data.
        label_counts: training examples per label, empty where unknown.
        version: its version of parityfl.
        dtypes: the tensors that it takes, and can answer with.
        compressions: the compressions that it takes, and can answer with.
        transitions: its latest changes of state.
    """

    index: int
    device_id: str
    host: str
    port: int | None
    tls: bool
    last_seen: float
    state: State = "registered"
    training: int | None = None
    completed: int | None = None
    misplaced: bool = False
    answered: bool = False
    latency_s: float = nan
    num_samples: int | None = None
    label_counts: list[int] = field(default_factory=list)
    version: str = ""
    dtypes: frozenset[str] = frozenset({PLAIN.dtype})
    compressions: frozenset[str] = frozenset()
    transitions: deque[Transition] = field(default_factory=lambda: deque(maxlen=50))

    @property
    def polls(self) -> bool:
        """Whether the device asks for its requests instead of being called."""
        return self.port is None

    def form(self, wanted: Form) -> Form:
        """Return how vectors travel to it: of what is wanted all that it takes."""
        return Form(
            wanted.dtype if wanted.dtype in self.dtypes else PLAIN.dtype,
            wanted.compression if wanted.compression in self.compressions else None,
        )

    @property
    def url(self) -> str:
        """Where the device is called, or that it polls."""
        if self.port is None:
            return "polls"
        return f"{'https' if self.tls else 'http'}://{authority(self.host, self.port)}"


class DeviceRegistry:
    """The devices of a run, at most as many as its population has places.

    Args:
        names: the names that own a place, by index: the clients of an experiment.
        open_to_others: whether other names may take the places that are free.
        heartbeat_s: within how many seconds devices report, twice.
        clock: monotonic seconds.
        roster: names that took a place earlier in this run, by index.
        agreement: what every device must fit; None: nothing is settled yet.
        probing: whether devices that listen are available only once they have answered where they registered; a
            `Prober` asks them.

    Attributes:
        agreement: the agreement, with what the devices have settled since.
    """

    def __init__(
        self,
        names: Sequence[str],
        open_to_others: bool,
        heartbeat_s: float,
        clock: Callable[[], float],
        roster: Mapping[int, str] | None = None,
        *,
        agreement: Agreement | None = None,
        probing: bool = False,
    ) -> None:
        self._probing = probing
        self.agreement = agreement or Agreement()
        self.device_ids = list(names)
        self._own = {name: index for index, name in enumerate(names)}
        self._open = open_to_others
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._began = self._looked = clock()
        self._members: dict[str, Member] = {}
        self._lost: dict[str, float] = {}
        self._back: dict[str, float] = {}
        self._places: dict[str, int] = {}
        self._lowest = 0
        for index, name in (roster or {}).items():
            self._take(name, index)

    @property
    def members(self) -> list[Member]:
        """All that have registered, in index order, as of now."""
        self.refresh()
        return sorted(self._members.values(), key=lambda member: member.index)

    @property
    def prepared(self) -> list[Member]:
        """Those that have loaded their data and reported since they registered, in index order."""
        return [m for m in self.members if m.num_samples is not None and m.state not in UNHEARD]

    def __len__(self) -> int:
        return len(self._members)

    def get(self, device_id: str) -> Member | None:
        """Return the device of that name, as of now."""
        self._excuse_silence()
        member = self._members.get(device_id)
        if member is not None:
            self._check_silence(member)
        return member

    def at(self, index: int) -> Member:
        """Return the device with that index, which has registered."""
        return self._members[self.device_ids[index]]

    def registered(self) -> BoolArray:
        """Return who has registered in this run, whether or not it has come back after a restart, shape (N,)."""
        return self._mask(self._places.values())

    def reachable(self) -> BoolArray:
        """Return who has registered since this process began, so that there is an address to call, shape (N,)."""
        return self._mask(member.index for member in self.members)

    def available(self) -> BoolArray:
        """Return who reported lately that it could train, and does not train, shape (N,)."""
        return self._mask(member.index for member in self.members if member.state == "available")

    def unreached(self) -> list[Member]:
        """Return who has yet to answer where it registered, of those that are not silent, have left or are revoked."""
        gone = {"left", "revoked", *GONE}
        return [
            member for member in self._members.values() if not self._is_reached(member) and member.state not in gone
        ]

    def num_samples(self) -> FloatArray:
        """Return the training examples of each client, nan where unknown, shape (N,)."""
        known = {member.index: member.num_samples for member in self._members.values()}
        counts = [known.get(index) for index in range(len(self.device_ids))]
        return np.asarray([nan if count is None else count for count in counts], dtype=np.float64)

    def label_counts(self) -> IntArray:
        """Return the training examples of each client by label, 0 where unknown, shape (N, C); C = 0 if all are."""
        known = {member.index: member.label_counts for member in self._members.values()}
        counts = np.zeros((len(self.device_ids), max(map(len, known.values()), default=0)), dtype=np.int64)
        for index, labels in known.items():
            counts[index, : len(labels)] = labels
        return counts

    def with_device(self, registration: Registration) -> tuple[int | None, Agreement]:
        """Return the place that a device will take and the agreement as it will be; change nothing.

        The place is None for a device that has one, also one that has not yet come back after a restart.

        Raises:
            FleetError: there is no place for it, or it does not fit what has been agreed.
        """
        agreed, name = self.agreement.with_device(registration), registration.device_id
        return None if name in self._places else self._place(name), agreed

    def register(self, registration: Registration, host: str) -> Member:
        """Take a device in, or note what has changed about it.

        Raises:
            FleetError: there is no place for it, or it does not fit what has been agreed.
        """
        agreed = self.agreement.with_device(registration)
        member = self._members.get(registration.device_id)
        member = self._enter(registration, host) if member is None else self._return(member, registration, host)
        member.last_seen, member.misplaced = self._clock(), False
        if registration.num_samples is not None:
            member.num_samples = registration.num_samples
            member.label_counts = registration.label_counts
        member.version = registration.version
        member.dtypes, member.compressions = frozenset(registration.dtypes), frozenset(registration.compressions)
        self.agreement = agreed
        return member

    def report(self, report: DeviceReport) -> bool:
        """Note how a device is; return whether it is known, and where it is.

        One that reports and could not be reached is not where it last registered, or another has registered with its
        name since: it is asked to register again. So is one that was revoked and has been allowed again since, before
        it heard of either. A report that it trains for a round which it has completed was written before that, and
        overtaken on the way.
        """
        member = self._members.get(report.device_id)
        if member is None:
            return False
        self._excuse_silence()
        self._check_silence(member)
        if member.state in GONE:
            self.move(member, "rejoined", f"heard of again after {self.silence_s(member):.2f} s")
        member.last_seen = self._clock()
        member.latency_s = report.latency_s
        member.training = None if report.training == member.completed else report.training
        here: State = ("available" if self._is_reached(member) else "unreachable") if report.available else "away"
        self.move(member, here if member.training is None else "training", "its own report")
        return not member.misplaced and member.state != "revoked"

    def move(self, member: Member, state: State, reason: str) -> None:
        """Change a device's state, for which `reason` is a few words.

        One that is lost does not become merely suspect, and one that is revoked stays so until it is let in again.
        Every change is logged for who debugs; that devices are lost, or are back, is for `log_losses`.
        """
        kept = (member.state, state) == ("lost", "suspect") or (member.state == "revoked" and state != "rejoined")
        if state == member.state or kept:
            return
        time_s = self._clock() - self._began
        member.transitions.append(Transition(time_s=time_s, before=member.state, after=state, reason=reason))
        log.debug("%s: %s -> %s (%s)", member.device_id, member.state, state, reason)
        if state == "lost":
            self._lost[member.device_id] = self.silence_s(member)
        elif member.state == "lost" and state not in {"left", "revoked"}:
            self._back[member.device_id] = self.silence_s(member)
        member.state = state

    def reach(self, member: Member) -> None:
        """Note that a device has answered where it registered."""
        member.answered = True
        if member.state == "unreachable":
            self.move(member, "available", f"answers at {member.url}")

    def miss(self, member: Member) -> None:
        """Note that a device could not be reached where it registered, which says nothing of one that polls."""
        if not member.polls:
            member.misplaced, member.answered = True, False
            if member.state == "available" and not self._is_reached(member):
                self.move(member, "unreachable", f"did not answer at {member.url}")

    def hear(self, member: Member) -> None:
        """Note a sign of life."""
        member.last_seen = self._clock()

    def silence_s(self, member: Member) -> float:
        """Return for how long a device has not been heard of."""
        return self._clock() - member.last_seen

    def dismiss(self, device_id: str) -> None:
        """Note that a device has been told to leave."""
        member = self._members.get(device_id)
        if member is not None:
            self.move(member, "left", "told to leave")

    def bar(self, device_ids: Collection[str]) -> None:
        """Note that devices are revoked."""
        for device_id in device_ids:
            member = self._members.get(device_id)
            if member is not None:
                self.move(member, "revoked", "revoked by the operator")

    def barred(self) -> BoolArray:
        """Return who is revoked, shape (N,)."""
        return self._mask(member.index for member in self._members.values() if member.state == "revoked")

    def dismissed(self) -> bool:
        """Return whether nobody is left to be told to leave; who is silent may only be late."""
        return all(member.state in {"left", "revoked"} for member in self._members.values())

    def _enter(self, registration: Registration, host: str) -> Member:
        name = registration.device_id
        index = self._places[name] if name in self._places else self._take(name, self._place(name))
        member = Member(index, name, host, registration.port, registration.tls, self._clock())
        first = Transition(time_s=self._clock() - self._began, before=None, after="registered", reason=member.url)
        member.transitions.append(first)
        self._members[name] = member
        log.info("%s registered as client %d, %s", name, index, "polls" if member.polls else f"at {member.url}")
        return member

    def _return(self, member: Member, registration: Registration, host: str) -> Member:
        moved = (member.host, member.port) != (host, registration.port)
        before = member.url if moved and self._is_heard(member) else ""
        member.host, member.port, member.tls = host, registration.port, registration.tls
        if moved or member.state in {*GONE, "left", "revoked"}:
            member.training = None
            member.answered = False
            self.move(member, "rejoined", f"registered again at {member.url}")
        if before not in {"", member.url}:  # one that polls has no address of its own
            log.warning(
                "%s registered again (%s) and was heard just before (%s): restarted, or two processes of its name",
                member.device_id,
                member.url,
                before,
            )
        return member

    def _is_reached(self, member: Member) -> bool:
        """Return whether a device can be asked where it registered, as far as is known: it polls, or answers probes."""
        return member.answered or member.polls or not self._probing

    def _is_heard(self, member: Member) -> bool:
        """Return whether a device, as far as is known, is where it last registered; one that goes says it is away."""
        lately = self.silence_s(member) <= SUSPECT_AFTER * self._heartbeat_s
        return lately and not member.misplaced and member.state not in {"away", "left", "revoked", *GONE}

    def _place(self, name: str) -> int:
        """Return the place of a newcomer: its own where it has one, else the lowest that is free."""
        own = self._own.get(name)
        if own is not None and self._is_free(own):
            return own
        if not self._open:
            raise FleetError(
                f"device {name!r} is no client of this experiment: its devices are {self.device_ids[0]} to "
                f"{self.device_ids[-1]}; use one of these, or serve with --set rounds.clock=wall"
            )
        while self._lowest < len(self.device_ids) and not self._is_free(self._lowest):
            self._lowest += 1  # a place that was taken is never free again
        if self._lowest == len(self.device_ids):
            raise FleetError(
                f"there is no place for device {name!r}: population.clients = {len(self.device_ids)} devices have "
                "registered; raise population.clients"
            )
        return self._lowest

    def _is_free(self, index: int) -> bool:
        """Return whether nobody has that place, whose name is then that of whom it was meant for."""
        return self._places.get(self.device_ids[index]) != index

    def _take(self, name: str, index: int) -> int:
        self._places[name] = index
        self.device_ids[index] = name
        return index

    def refresh(self) -> None:
        """Notice who has gone silent."""
        self._excuse_silence()
        for member in self._members.values():
            self._check_silence(member)

    def log_losses(self) -> None:
        """Log who is lost and who is back since the last time.

        All in one line: a process may host hundreds of devices, and all go silent with it.
        """
        if self._lost:
            log.warning("%s, silent for %s", _said("lost", self._lost), _longest(self._lost))
        if self._back:
            log.info("%s, after a silence of %s", _said("back", self._back), _longest(self._back))
        self._lost, self._back = {}, {}

    def _excuse_silence(self) -> None:
        """Count no silence of which this process was the cause: what devices sent while it was held up is unread."""
        now = self._clock()
        unseen_s, self._looked = now - self._looked, now
        if unseen_s > HELD_UP * self._heartbeat_s:
            for member in self._members.values():
                member.last_seen = min(member.last_seen + unseen_s, now)

    def _check_silence(self, member: Member) -> None:
        silent = 0.0 if member.state in {"left", "revoked"} else self.silence_s(member)
        if silent > LOST_AFTER * self._heartbeat_s:
            self.move(member, "lost", f"silent for {silent:.2f} s")
        elif silent > SUSPECT_AFTER * self._heartbeat_s:
            self.move(member, "suspect", f"silent for {silent:.2f} s")

    def _mask(self, indices: Iterable[int]) -> BoolArray:
        mask = np.zeros(len(self.device_ids), dtype=np.bool_)
        mask[list(indices)] = True
        return mask


def _said(what: str, silences_s: Mapping[str, float]) -> str:
    """Return the beginning of a sentence on devices that were silent, of which it names the first three."""
    names = list(silences_s)
    return f"{names[0]} is {what}" if len(names) == 1 else f"{len(names)} devices are {what} ({listed(names, 3)})"


def _longest(silences_s: Mapping[str, float]) -> str:
    return f"{'up to ' if len(silences_s) > 1 else ''}{max(silences_s.values()):.2f} s"
