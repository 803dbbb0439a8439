"""Deadlines, quorum, lateness and drop-outs on the virtual clock, by hand."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import pytest
from engine_runs import (
    InterruptedRunError,
    QuadraticFleet,
    Raising,
    assert_same_end,
    make_spec,
    make_world,
    run,
)

from parityfl.core.aggregation.fedavg import FedAvg
from parityfl.core.conditions import Dropout, Latency
from parityfl.core.deadline import Deadline
from parityfl.core.types import Outcome
from parityfl.engine.fleet import Late, TrainTask
from parityfl.engine.lockstep import Conditions, LockstepFleet

SECONDS = Latency(median_s=0.0, spread=0.0, jitter=0.0, per_sample_s=1.0)
"""Client k of `make_world` has 10 + k examples, so it takes 10 + k seconds."""


def replies(late="discard", quorum=None, deadline_s=np.inf, dropout=0.0, *, interval_s=600.0, patience_s=600.0):
    """Return the replies of clients 0 to 3 in round 1, whom the fleet behind was asked, and the late updates."""
    world = replace(make_world(pi=1.0), interval_s=interval_s)
    spec = make_spec(world)
    behind = QuadraticFleet(spec, fates=(Outcome.COMPLETED,))
    fleet = LockstepFleet(behind, world, Conditions(SECONDS, Dropout(dropout), quorum, late, patience_s))
    weights = np.zeros(spec.layout.size, np.float32)
    asked = TrainTask(1, 0.0, np.arange(4), weights, lambda _: weights, None, np.zeros(7, np.int64), deadline_s)

    async def main():
        return [reply async for reply in fleet.train(asked)]

    return asyncio.run(main()), behind.tasks[0].clients.tolist(), fleet.late_updates()


def outcomes(found):
    return [reply.outcome.value for reply in found]


def test_without_a_deadline_everyone_completes_in_its_own_time():
    found, asked, late = replies()
    assert outcomes(found) == ["completed"] * 4
    assert [reply.latency_s for reply in found] == [10.0, 11.0, 12.0, 13.0]
    assert (asked, late) == ([0, 1, 2, 3], [])


@pytest.mark.parametrize("late", ["discard", "next-round"])
def test_who_is_slower_than_the_deadline_is_late(late):
    """The deadline is 11.5 s: 2 and 3 are late, and nobody waits for them longer than that.

    Discarded they need not train; else they enter the next round.
    """
    found, asked, kept = replies(late, deadline_s=11.5)
    assert outcomes(found) == ["completed", "completed", "late", "late"]
    assert [reply.latency_s for reply in found] == [10.0, 11.0, 11.5, 11.5]
    assert asked == ([0, 1] if late == "discard" else [0, 1, 2, 3])
    assert [(one.update.client, one.update.staleness) for one in kept] == (
        [] if late == "discard" else [(2, 1), (3, 1)]
    )


def test_a_late_update_enters_the_round_that_begins_when_it_has_come():
    """Rounds begin every 6 s. What is asked at 0 s and takes 11 or 12 s is there at 12 s, when round 3 begins; 13 s are
    too many for that."""
    _, _, kept = replies("next-round", deadline_s=10.5, interval_s=6.0)
    assert [(one.update.client, one.update.staleness, one.enters, one.origin) for one in kept] == [
        (1, 2, 3, 1),
        (2, 2, 3, 1),
        (3, 3, 4, 1),
    ]


def test_who_takes_longer_than_anybody_waits_need_not_train():
    found, asked, kept = replies("next-round", deadline_s=10.5, patience_s=11.5)
    assert outcomes(found) == ["completed", "late", "late", "late"]
    assert asked == [0, 1]
    assert [one.update.client for one in kept] == [1]


@pytest.mark.parametrize("late", ["discard", "next-round"])
def test_who_takes_longer_than_a_request_may_times_out_before_the_deadline(late):
    found, asked, kept = replies(late, deadline_s=100.0, patience_s=11.5)
    assert outcomes(found) == ["completed", "completed", "timed_out", "timed_out"]
    assert [reply.latency_s for reply in found] == [10.0, 11.0, 11.5, 11.5]
    assert all(reply.reproducible for reply in found)
    assert (asked, kept) == ([0, 1], [])


def test_who_times_out_is_no_part_of_the_quorum():
    found, _, _ = replies(quorum=3, deadline_s=100.0, patience_s=11.5)
    assert outcomes(found) == ["completed", "completed", "timed_out", "timed_out"]


@pytest.mark.parametrize("late", ["discard", "next-round"])
def test_a_quorum_of_all_who_reply_closes_the_round_as_well(late):
    """0 and 1 reply within the patience of 11.5 s, and are the quorum: nobody waits for the others any longer."""
    found, _, _ = replies(late, quorum=2, deadline_s=100.0, patience_s=11.5)
    assert outcomes(found) == ["completed", "completed", "late", "late"]
    assert [reply.latency_s for reply in found] == [10.0, 11.0, 11.0, 11.0]


def listening(folded):
    """Return FedAvg that notes of each round the clients and the staleness of what it folds."""

    class Heard(FedAvg):
        def aggregate(self, state, context, updates):
            read = list(updates)
            folded.append((context.round, [(update.client, update.staleness) for update in read]))
            return super().aggregate(state, context, read)

    return Heard()


def test_late_updates_wait_for_their_round_also_in_a_run_that_is_resumed(tmp_path):
    """All 7 clients are asked every 6 s; 0 is on time, 1 and 2 come two rounds late, the others three."""
    folded = []
    world = replace(make_world(per_round=7, pi=1.0), interval_s=6.0)
    spec = make_spec(world, select="uniform", aggregate=listening(folded), rounds=6, deadline=Deadline(10.5))
    conditions = Conditions(SECONDS, Dropout(), None, "next-round", patience_s=600.0)

    def fleet():
        return LockstepFleet(QuadraticFleet(spec, fates=(Outcome.COMPLETED,)), world, conditions)

    whole = run(spec, tmp_path / "whole", fleet=fleet())
    two, three = [(1, 2), (2, 2)], [(3, 3), (4, 3), (5, 3), (6, 3)]
    late = [[], [], two, [*two, *three], [*two, *three], [*two, *three]]
    assert folded == [(number, [*came, (0, 0)]) for number, came in enumerate(late, 1)]
    for after in (3, 4):
        with pytest.raises(InterruptedRunError):
            run(spec, tmp_path / "cut", resume=True, fleet=fleet(), observers=[Raising(after)])
    assert_same_end(run(spec, tmp_path / "cut", resume=True, fleet=fleet()), whole)


def test_a_late_update_does_not_enter_after_a_newer_one_of_its_client(tmp_path):
    """Of client 0 the reply of round 2 enters round 3, so that of round 1 does not enter round 4; 1's are in order."""
    folded = []

    class Slow(QuadraticFleet):
        def late_updates(self):
            task = self.tasks[-1]
            enters = {0: {1: 4, 2: 3}, 1: {1: 3, 2: 4}}
            due = [(client, rounds[task.round]) for client, rounds in enters.items() if task.round in rounds]
            return [Late(replace(self.update(task, client), staleness=at - task.round), at) for client, at in due]

    spec = make_spec(select="uniform", aggregate=listening(folded), rounds=5)
    run(spec, tmp_path, fleet=Slow(spec, fates=(Outcome.FAILED,)))
    assert folded == [(1, []), (2, []), (3, [(0, 1), (1, 2)]), (4, [(1, 2)]), (5, [])]


def test_a_quorum_closes_before_the_deadline():
    found, _, _ = replies(quorum=3, deadline_s=100.0)
    assert outcomes(found) == ["completed", "completed", "completed", "late"]
    assert [reply.latency_s for reply in found] == [10.0, 11.0, 12.0, 12.0]


def test_who_drops_out_is_no_part_of_the_quorum():
    found, asked, _ = replies(quorum=1, dropout=[1.0, 0, 0, 0, 0, 0, 0])
    assert outcomes(found) == ["failed", "completed", "late", "late"]
    assert np.isnan(found[0].latency_s)
    assert asked == [1]


def test_the_round_loop_gives_each_round_its_deadline(tmp_path):
    """Latencies are 1.5 k s for client k. The limit counts until three are known, then the rule: in every later round
    median + 1 x median absolute deviation of what is known by then, which the file has as well.
    """
    spec = replace(make_spec(rounds=9), deadline=Deadline(100.0, adaptive=True, spread=1.0))
    fleet = QuadraticFleet(spec, fates=(Outcome.COMPLETED,))
    run(spec, tmp_path / "run", fleet=fleet)
    given, known = [task.deadline_s for task in fleet.tasks], set()
    for task in fleet.tasks:
        seconds = np.array([1.5 * client for client in sorted(known)])
        far = np.median(np.abs(seconds - np.median(seconds))) if known else 0
        assert task.deadline_s == (np.median(seconds) + far if len(known) >= 3 else 100.0)
        known |= set(task.clients.tolist())
    lines = (tmp_path / "run" / "rounds.csv").read_text().splitlines()
    place = lines[0].split(",").index("deadline_s")
    assert [float(line.split(",")[place]) for line in lines[1:]] == given
    assert given[0] == 100.0 > given[-1]


@dataclass
class KeepingFleet(QuadraticFleet):
    """Clients that keep a control variate by option II of SCAFFOLD, with one local step of -0.3 grad."""

    def __post_init__(self):
        super().__post_init__()
        self.kept = defaultdict(lambda: np.zeros(self.spec.layout.size))

    def update(self, task, client):
        plain = super().update(task, client)
        change = -task.control - plain.delta / np.float32(0.3)
        self.kept[client, task.round] = self.kept[client, task.memory_round[client]] + change
        return replace(plain, control=change)


@pytest.mark.parametrize("late", ["discard", "next-round"])
def test_the_control_variate_is_the_mean_of_the_clients(tmp_path, late):
    """c = (1/N) sum_k c_k in every round, each c_k as of the last round that the client completed."""
    world, jittery = make_world(), Latency(median_s=0.0, spread=0.0, jitter=0.3, per_sample_s=1.0)
    spec = make_spec(world, aggregate="fedavg", uses_control=True, rounds=12, deadline=Deadline(13.0))
    behind = KeepingFleet(spec, fates=(Outcome.COMPLETED,))
    summary = run(
        spec,
        tmp_path / "run",
        fleet=LockstepFleet(behind, world, Conditions(jittery, Dropout(), None, late, patience_s=600.0)),
    )
    assert sum(summary["late"].values()) > 3
    for task in behind.tasks:
        own = [behind.kept[client, seen] for client, seen in enumerate(task.memory_round.tolist())]
        np.testing.assert_allclose(task.control, np.mean(own, axis=0), rtol=1e-5, atol=1e-6)
    assert any(task.memory_round.all() for task in behind.tasks)
