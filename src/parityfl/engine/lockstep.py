"""A fleet on the virtual clock: seeded latencies and drop-outs decide who completes, is late or fails."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import numpy as np

from parityfl.core.conditions import Dropout, Latency, dropouts, latencies
from parityfl.core.types import BoolArray, FloatArray, Outcome, World
from parityfl.engine.fleet import Fleet, Late, Presence, Reply, TrainTask


@dataclass(frozen=True)
class Conditions:
    """What the seeded world does to a round.

    Attributes:
        latency: how long clients take.
        dropout: how often they leave in mid-round.
        quorum: how many completed replies close the round; None waits for the deadline.
        late: what becomes of a late update.
        patience_s: how long a client may take until it is given up, in its own round or late.
    """

    latency: Latency
    dropout: Dropout
    quorum: int | None
    late: Literal["discard", "next-round"]
    patience_s: float

    @property
    def has_latency(self) -> bool:
        """Whether the latency model says anything."""
        return self.latency.median_s > 0 or self.latency.per_sample_s > 0


class LockstepFleet:
    """Wraps any fleet: clients that drop out or will be given up are not asked at all."""

    def __init__(self, fleet: Fleet, world: World, conditions: Conditions) -> None:
        self._fleet = fleet
        self._world = world
        self._conditions = conditions
        self._late: list[Late] = []

    async def look(self, round: int, time_s: float) -> Presence:
        """Return what the fleet itself sees."""
        return await self._fleet.look(round, time_s)

    async def train(self, task: TrainTask) -> AsyncGenerator[Reply, None]:
        """Yield a reply for each client in order, with the virtual latency where there is a model of it.

        For a client that was late or timed out it is how long it was waited for: the server sees no more.
        """
        seconds = latencies(self._conditions.latency, self._world, task.round)
        dropped = dropouts(self._conditions.dropout, self._world, task.round)
        closes_s, patience_s = self._closes_s(task, seconds, dropped), self._conditions.patience_s
        waits_s = min(closes_s, patience_s)
        overdue = (seconds > waits_s) & ~dropped
        given_up = overdue & ((self._conditions.late == "discard") | (seconds > patience_s))
        asked = ~dropped & ~given_up
        async with aclosing(self._fleet.train(replace(task, clients=task.clients[asked[task.clients]]))) as replies:
            for client in task.clients.tolist():
                if dropped[client]:
                    reply = Reply(client, Outcome.FAILED, reason="dropped out in mid-round (seeded)")
                elif given_up[client]:
                    reply = self._lateness(client) if closes_s <= patience_s else self._time_out(client)
                else:
                    reply = await anext(replies)
                    reply = self._keep(task, reply, float(seconds[client])) if overdue[client] else reply
                known = self._conditions.has_latency and not dropped[client]
                yield replace(reply, latency_s=min(float(seconds[client]), waits_s)) if known else reply

    def late_updates(self) -> list[Late]:
        """Return the late updates of the round, each for the round that begins when it has come."""
        arrived, self._late = [*self._late, *self._fleet.late_updates()], []
        return arrived

    def _closes_s(self, task: TrainTask, seconds: FloatArray, dropped: BoolArray) -> float:
        """Return after how many seconds the round stops waiting: at its deadline, or when the quorum is reached."""
        replies = ~dropped & (seconds <= self._conditions.patience_s)
        replying = task.clients[replies[task.clients]]
        if self._conditions.quorum is None or len(replying) < self._conditions.quorum:
            return task.deadline_s
        return min(task.deadline_s, float(np.sort(seconds[replying])[self._conditions.quorum - 1]))

    def _keep(self, task: TrainTask, reply: Reply, seconds: float) -> Reply:
        """Keep an update that is late, if there is one, and return the reply that there is by the end of the round."""
        if reply.update is None:
            return reply
        staleness = max(1, ceil(seconds / self._world.interval_s))
        self._late.append(Late(replace(reply.update, staleness=staleness), task.round + staleness))
        return replace(self._lateness(reply.client), bytes_up=reply.bytes_up, bytes_down=reply.bytes_down)

    @staticmethod
    def _lateness(client: int) -> Reply:
        return Reply(client, Outcome.LATE, reason="replied after the round had closed (seeded)")

    def _time_out(self, client: int) -> Reply:
        reason = f"no reply within train_timeout_s = {self._conditions.patience_s:g} s (seeded)"
        return Reply(client, Outcome.TIMED_OUT, reason=reason)
