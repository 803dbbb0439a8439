"""Updates on their way from the event loop to the thread that folds them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from parityfl.core.types import Outcome, Update
from parityfl.engine.fleet import Reply
from parityfl.engine.intake import BATCH_BYTES, Intake

HALF = BATCH_BYTES // 2


def update(client: int, size: int) -> Update:
    """Return an update of so many bytes."""
    return Update(client, np.full(size // 4, client, dtype=np.float32), num_samples=1, train_loss=0.0)


def reply(client: int, size: int) -> Reply:
    """Return the reply of who has trained."""
    return Reply(client, Outcome.COMPLETED, update(client, size))


def folded(
    replies: Sequence[Reply], late: Sequence[Update] = (), failure: Exception | None = None
) -> tuple[Intake, list[tuple[int, int]]]:
    """Return the intake, and for each update in order its client and how many replies had been asked for by then."""
    asked = 0

    async def source() -> AsyncIterator[Reply]:
        nonlocal asked
        for each in replies:
            asked += 1
            yield each
        if failure is not None:
            raise failure

    async def run() -> tuple[Intake, list[tuple[int, int]]]:
        intake = Intake(source(), late)
        return intake, await asyncio.to_thread(lambda: [(each.client, asked) for each in intake])

    return asyncio.run(run())


def test_small_updates_are_handed_over_together() -> None:
    """All that fit are there before the first of them is folded."""
    intake, seen = folded([reply(client, 400) for client in range(5)])
    assert seen == [(client, 5) for client in range(5)]
    assert intake.clients == [0, 1, 2, 3, 4]
    assert [each.client for each in intake.replies] == [0, 1, 2, 3, 4]


def test_large_updates_are_handed_over_one_by_one() -> None:
    """Nobody waits for the next while there is one to fold."""
    _, seen = folded([reply(client, BATCH_BYTES) for client in range(3)])
    assert seen == [(0, 1), (1, 2), (2, 3)]


def test_a_batch_ends_where_it_is_full() -> None:
    """Two halves are a whole."""
    _, seen = folded([reply(client, HALF) for client in range(5)])
    assert seen == [(0, 2), (1, 2), (2, 4), (3, 4), (4, 5)]


def test_replies_without_an_update_are_noted_and_not_folded() -> None:
    """They weigh nothing."""
    lost = Reply(1, Outcome.UNREACHABLE, reason="gone")
    intake, seen = folded([reply(0, HALF), lost, reply(2, HALF), reply(3, HALF)])
    assert seen == [(0, 3), (2, 3), (3, 4)]
    assert intake.replies[1] == lost


def test_late_updates_come_first() -> None:
    """They are there already."""
    intake, seen = folded([reply(0, 400)], late=[update(7, 400)])
    assert seen == [(7, 0), (0, 1)]
    assert [each.client for each in intake.replies] == [0]


def test_a_late_update_moves_no_control_variate() -> None:
    """c = 1; client 0 changes its own by 6, client 7 by 2 but late: c = 1 + 6 / 3."""
    ones = np.ones(1, dtype=np.float32)
    now = replace(update(0, 4), control=6 * ones)
    late = replace(update(7, 4), control=2 * ones, staleness=1)
    intake, _ = folded([Reply(0, Outcome.COMPLETED, now)], late=[late])
    assert intake.control(ones, population=3) == [3.0]


def test_replies_are_kept_without_their_vectors() -> None:
    """A round does not hold every client's model."""
    intake, _ = folded([reply(0, 400)])
    kept = intake.replies[0].update
    assert kept is not None
    assert len(kept.delta) == 0


def test_nobody_selected_is_nothing_to_fold() -> None:
    """And no error."""
    intake, seen = folded([])
    assert seen == []
    assert intake.replies == []


def test_what_ends_the_round_is_raised_where_it_is_folded() -> None:
    """Also when it comes after replies that were not handed over yet."""
    with pytest.raises(ZeroDivisionError):
        folded([reply(0, 400)], failure=ZeroDivisionError())
