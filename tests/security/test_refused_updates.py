"""Updates that are refused are refused alike wherever they come from."""

import csv
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import differing, fixed, fleet_of, honest, replies, task
from fastapi.responses import Response
from test_serve import Seen, the_round_loop

from network import run, small_config
from parityfl.config import Config
from parityfl.core.availability.always import Always
from parityfl.core.types import Outcome
from parityfl.experiments.run import execute
from parityfl.testing.selection import small_world
from parityfl.web.problems import problem


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"delta": np.array([3e4, 4e4, 0], dtype=np.float32)}, "norm 5e+04, at most security.max_update_norm = 10000"),
        ({"delta": np.array([0, np.nan, 0], dtype=np.float32)}, "not finite"),
        ({"delta": np.array([0, -np.inf, 0], dtype=np.float32)}, "not finite"),
        ({"train_loss": 1.7e308}, "must be at most 1e+12"),
        ({"loss_before": -1.0}, "must be at least 0"),
        ({"loss_after": 2e12}, "must be at most 1e+12"),
        ({"personal_accuracy": 1.5}, "must be at most 1"),
        ({"round": 7}, "round 7, asked was 1"),
        ({"model_digest": "0" * 64}, "model_digest"),
        ({"device_id": "h1"}, "device_id 'h1'"),
    ],
)
def test_what_a_device_gets_wrong_is_invalid_with_its_reason(change: dict[str, object], reason: str) -> None:
    """The round goes on with the other device."""

    async def main() -> None:
        async with fleet_of(small_config(), differing(**change), honest) as (fleet, _):
            wrong, right = await replies(fleet, task(0, 1))
            assert (wrong.outcome, wrong.update) == (Outcome.INVALID, None)
            assert reason in wrong.reason
            assert wrong.reproducible == ("delta" in change)
            assert right.outcome is Outcome.COMPLETED

    run(main())


@pytest.mark.parametrize(
    ("behave", "deterministic"),
    [
        (fixed(Response("boom", 500)), False),
        (fixed(Response(b"garbage")), False),
        (fixed(problem(409, "h0 is away")), False),
        (differing(delta=np.array([0, np.nan, 0], dtype=np.float32)), True),
        (differing(delta=np.array([3e4, 4e4, 0], dtype=np.float32)), True),
        (honest, True),
    ],
)
def test_an_experiment_that_a_broken_client_has_changed_is_not_deterministic(
    tmp_path: Path, behave: Callable[..., Awaitable[Response]], deterministic: bool
) -> None:
    async def main() -> None:
        config = small_config(rounds={"count": 2})
        always = Always().bind(small_world((1.0,) * 4, 1))
        async with fleet_of(config, behave, honest, honest, honest, availability=always) as (fleet, _):
            await the_round_loop(config, tmp_path / "run", Seen())(fleet, Seen())

    run(main())
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["deterministic"] is deterministic


def on_both_engines(settings: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Run a configuration on either engine and return the summaries."""
    summaries = []
    for engine in ("local", "http"):
        config = Config.preset("parityfl", {**settings, "engine.name": engine, "engine.processes": 1})
        execute(config, path / engine)
        summaries.append(json.loads((path / engine / "summary.json").read_text()))
    return summaries


def test_engines_agree_on_a_run_that_diverges(tmp_path: Path) -> None:
    """With a huge learning rate every update overflows: refused by both engines, in a run that can be repeated."""
    wild = {"training.lr": 1e30, "population.clients": 4, "population.per_round": 2, "rounds.count": 2}
    summaries = on_both_engines(wild, tmp_path)
    assert summaries[0]["num_participated"] == 0
    for key in ("model_hash", "ledger_hash"):
        assert summaries[0][key] == summaries[1][key], key
    assert [summary["deterministic"] for summary in summaries] == [True, True]


def test_both_engines_refuse_the_same_updates(tmp_path: Path) -> None:
    """With a limit among the norms that occur some updates are refused, and the runs end with the same hashes."""
    limit = {"security.max_update_norm": 0.775, "population.clients": 4, "population.per_round": 2, "rounds.count": 3}
    summaries = on_both_engines(limit, tmp_path)
    with (tmp_path / "local" / "clients.csv").open() as handle:
        outcomes = {row["outcome"] for row in csv.DictReader(handle)}
    assert {"invalid", "completed"} <= outcomes
    for key in ("model_hash", "ledger_hash", "deterministic"):
        assert summaries[0][key] == summaries[1][key], key
