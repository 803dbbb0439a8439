"""The crew as a fleet: what becomes of the clients that it is given."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parityfl.core.types import Outcome, Update, Vector
from parityfl.engine.fleet import Reply, TrainTask
from parityfl.training.memory import ClientMemory
from parityfl.workers import fleet
from parityfl.workers.crew import Crew, WorkerLostError
from parityfl.workers.fleet import CrewFleet
from parityfl.workers.shared_memory import Board


class Unlucky:
    """Loses the client 2."""

    depth = 1
    starting = False

    async def run(self, job: Any) -> Any:
        if job.client == 2:
            raise WorkerLostError("its worker process died", charge=1, usable=True)
        return Update(job.client, np.zeros(1, dtype=np.float32), 1, 0.0), None

    def close(self) -> None: ...


def test_a_lost_client_fails_with_its_reason_and_the_run_is_no_longer_deterministic() -> None:
    weights = np.zeros(1, dtype=np.float32)
    task = TrainTask(1, 0.0, np.arange(4), weights, lambda client: weights, None, np.zeros(4, dtype=np.int64))

    async def work() -> list[Reply]:
        crew = Crew([Unlucky()], Board(1), Unlucky)
        clients = CrewFleet(crew, None, np.ones(4, dtype=np.int64), ClientMemory())  # type: ignore[arg-type]
        return [reply async for reply in clients.train(task)]

    replies = asyncio.run(work())
    assert [reply.client for reply in replies] == [0, 1, 2, 3]
    assert [reply.outcome for reply in replies if reply.client != 2] == [Outcome.COMPLETED] * 3
    assert (replies[2].outcome, replies[2].reason) == (Outcome.FAILED, "its worker process died")
    assert [reply.reproducible for reply in replies] == [True, True, False, True]


class Watched(ClientMemory):
    """Remembers for whom files were read, and in which threads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: dict[int, int] = {}

    def _load(self, client: int, round: int) -> Vector:
        self.read[client] = threading.get_ident()
        return super()._load(client, round)


class Returning:
    """Returns what a client kept, as its update and what it keeps."""

    depth = 1
    starting = False

    async def run(self, job: Any) -> Any:
        kept = np.zeros(1, dtype=np.float32) if job.memory is None else job.memory
        return Update(job.client, kept, 1, 0.0), kept

    def close(self) -> None: ...


def test_what_clients_keep_is_read_off_the_event_loop_where_it_must_be_read(tmp_path: Path) -> None:
    """Clients 1 to 3 kept their number in round 7, client 3 in this process; client 0 has never completed a round."""
    weights, memory = np.zeros(1, dtype=np.float32), Watched(tmp_path)
    for client in range(1, 4):
        process = memory if client == 3 else ClientMemory(tmp_path)
        process.store(client, 7, np.full(1, client, dtype=np.float32), 0)
    rounds = np.array([0, 7, 7, 7])
    task = TrainTask(8, 0.0, np.arange(4), weights, lambda client: weights, None, rounds)

    async def work() -> list[Reply]:
        clients = CrewFleet(Crew([Returning()], Board(1), Returning), None, np.ones(4, dtype=np.int64), memory)  # type: ignore[arg-type]
        return [reply async for reply in clients.train(task)]

    replies = asyncio.run(work())
    assert [float(reply.update.delta[0]) for reply in replies if reply.update] == [0, 1, 2, 3]
    assert list(memory.read) == [1, 2]
    assert threading.get_ident() not in memory.read.values()


class Prompt:
    """A worker that answers at once."""

    depth = 1
    starting = False

    def __init__(self, begun: list[int]) -> None:
        self._begun = begun

    async def run(self, job: Any) -> tuple[Update, Vector | None]:
        self._begun.append(job.client)
        await asyncio.sleep(0)
        return Update(job.client, np.zeros(1, dtype=np.float32), job.cost, 0.0), None

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("held_bytes", "workers", "expected"),
    [(40, 2, "9876543210"), (39, 2, "7654321098"), (40, 1, "3210765498")],
    ids=["as many as fit", "too much to hold", "one worker"],
)
def test_the_largest_clients_begin_first_and_replies_come_in_order(
    monkeypatch: pytest.MonkeyPatch, held_bytes: int, workers: int, expected: str
) -> None:
    """Ten updates of one float32 are 40 bytes; where they are too much, four for each worker are looked at."""
    monkeypatch.setattr(fleet, "HELD_BYTES", held_bytes)
    weights, begun, sizes = np.zeros(1, dtype=np.float32), [], np.arange(1, 11)
    task = TrainTask(1, 0.0, np.arange(10), weights, lambda client: weights, None, np.zeros(10, dtype=np.int64))

    async def work() -> list[tuple[int, int]]:
        crew = Crew([Prompt(begun) for _ in range(workers)], Board(1), lambda: Prompt(begun))
        clients = CrewFleet(crew, None, sizes, None)  # type: ignore[arg-type]
        return [(reply.client, reply.update.num_samples) async for reply in clients.train(task) if reply.update]

    assert asyncio.run(work()) == list(enumerate(sizes))
    assert "".join(map(str, begun)) == expected
