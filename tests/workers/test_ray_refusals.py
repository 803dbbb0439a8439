"""The Ray engine refuses the updates that the local engine refuses, for the same reasons."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from test_ray import cluster, config, hashes

from parityfl.engine.fleet import ClosedRound
from parityfl.experiments.run import execute

__all__ = ["cluster"]

LIMIT = 0.12
"""Among the norms that occur: some updates are within it and some beyond."""


class Reasons:
    """Keeps why clients did not complete, by round and client, and how many did."""

    def __init__(self) -> None:
        self.given: dict[tuple[int, int], str] = {}
        self.completed = 0

    def started(self, weights: Any, rounds_done: int, rounds_total: int) -> None: ...

    def round_closed(self, closed: ClosedRound) -> None:
        self.given |= {(closed.record.round, client): reason for client, reason in closed.reasons.items()}
        self.completed += int(closed.record.participated.sum())


def refused(folder: Path, engine: str, pre_aggregate: int | None) -> Reasons:
    """Run an engine and return what it refused."""
    seen = Reasons()

    @contextmanager
    def watch() -> Iterator[Reasons]:
        yield seen

    workers = None if engine == "ray" else 1
    own = {"name": engine, "workers": workers, "pre_aggregate": pre_aggregate}
    execute(config(engine, engine=own, security={"max_update_norm": LIMIT}), folder / engine, watch=watch)
    return seen


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("pre_aggregate", [None, 3])
def test_an_update_beyond_the_largest_norm_is_invalid_as_in_one_process(
    tmp_path: Path, pre_aggregate: int | None
) -> None:
    local, ray = (refused(tmp_path, engine, pre_aggregate) for engine in ("local", "ray"))
    assert ray.given == local.given
    assert local.given
    assert local.completed
    assert all(f"at most security.max_update_norm = {LIMIT:g}" in reason for reason in local.given.values())
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")
    assert hashes(tmp_path / "ray")[2] is True
