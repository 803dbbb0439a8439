"""Priority cannot be farmed: what a device gains by checking in and not working, or by lying about its gain.

Four clients that are always there, one slot a round, 80 rounds through the real loop: an honest share is 20 rounds.
"""

import csv
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_runs import QuadraticFleet, make_spec, make_world, run

from parityfl.core.selection.lnu import LeastNormalisedUtility
from parityfl.core.types import Outcome
from parityfl.engine.fleet import Reply, TrainTask

ROUNDS = 80
DEVIANT = 0


class Deviants(QuadraticFleet):
    """Client 0 does not deliver, or claims a gain; the others are honest and gain 1 each time."""

    claim: float | None = None

    async def train(self, task: TrainTask) -> AsyncGenerator[Reply, None]:
        for client in task.clients.tolist():
            update = replace(self.update(task, client), loss_before=1.0, loss_after=0.0)
            if client != DEVIANT:
                yield Reply(client, Outcome.COMPLETED, update)
            elif self.claim is None:
                yield Reply(client, Outcome.REFUSED, reason="not now")
            else:
                yield Reply(client, Outcome.COMPLETED, replace(update, loss_before=self.claim))


def rounds_of_the_deviant(folder: Path, claim: float | None, **keys: Any) -> tuple[int, dict[str, Any]]:
    """Return in how many rounds it was selected, and the notes of the summary."""
    rule = LeastNormalisedUtility(mode="deterministic", **keys)
    spec = make_spec(make_world(4, 1, pi=1.0), select=rule, rounds=ROUNDS, functional="local_gain")
    fleet = Deviants(spec)
    fleet.claim = claim
    summary = run(spec, folder, fleet=fleet)
    with (folder / "clients.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["client_id"] == "h0"]
    return sum(int(row["selected"]) for row in rows), summary["notes"]


@pytest.mark.parametrize("parity", ["opportunity", "utility"])
def test_who_checks_in_and_does_not_deliver_is_charged(parity: str, tmp_path: Path) -> None:
    """Charged like an average participation it gets its fourth and no more; uncharged it would take nearly all."""
    charged, _ = rounds_of_the_deviant(tmp_path / "charged", None, parity=parity)
    free, _ = rounds_of_the_deviant(tmp_path / "free", None, parity=parity, dropout_charge=0.0)
    assert charged <= ROUNDS / 4 + 1
    assert free > 0.9 * ROUNDS


def test_whoever_claims_to_gain_nothing_gets_no_more_than_the_bounds_allow(tmp_path: Path) -> None:
    """It is credited 0.5 average participations at least, an honest client 2 at most: four honest shares of seven."""
    selected, notes = rounds_of_the_deviant(tmp_path, 0.0, parity="utility")
    assert selected <= ROUNDS * 4 / 7 + 1
    assert notes["credit_low_rate"] == pytest.approx(selected / ROUNDS)


def test_whoever_claims_a_giant_gain_only_loses_and_is_seen(tmp_path: Path) -> None:
    selected, notes = rounds_of_the_deviant(tmp_path, 1e6, parity="utility")
    assert selected <= ROUNDS / 4
    assert notes["credit_high_rate"] > 0
