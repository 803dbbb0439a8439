"""The Ray engine on a cluster of two nodes of this machine: the local engine's hashes, whatever is lost on the way."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import workbenches
from crew_jobs import Blame, Die, DieOnce, Echo, Sleep

from parityfl.config import Config
from parityfl.core.errors import ConfigError, FleetError, PartError
from parityfl.engine.fleet import ClosedRound
from parityfl.experiments.ray_cells import launch_task
from parityfl.experiments.run import execute
from parityfl.training import workbench
from parityfl.training.workbench import Workbench
from parityfl.workers.crew import Crew, Lost
from parityfl.workers.jobs import PooledJob, TrainJob
from parityfl.workers.ray_cluster import import_ray, require_listener
from parityfl.workers.ray_workers import RoundTimer, ray_crew

pytest.importorskip("ray")


def config(name: str, **changes: Any) -> Config:
    engine = {"name": name, "workers": None if name == "ray" else 1}
    return workbenches.config(**{"engine": engine, **changes})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, with which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        jobs = {"env_vars": {"PYTHONPATH": os.pathsep.join(places)}}
        ray.init(address=nodes.address, log_to_driver=False, logging_level="error", runtime_env=jobs)
        yield nodes
        ray.shutdown()
        nodes.shutdown()


def hashes(folder: Path) -> tuple[str, str, bool]:
    summary = json.loads((folder / "summary.json").read_text())
    return summary["model_hash"], summary["ledger_hash"], summary["deterministic"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, bool]:
    out = tmp_path_factory.mktemp("local") / "run"
    execute(config("local"), out)
    return hashes(out)


def test_two_nodes_end_with_the_hashes_of_one_process(cluster: Any, expected: Any, tmp_path: Path) -> None:
    said: list[str] = []
    execute(config("ray"), tmp_path / "run", say=said.append)
    assert hashes(tmp_path / "run") == expected
    assert any(line.startswith("2 Ray actors on a cluster of 2 nodes, one thread each, mlp on cpu") for line in said)


def test_the_main_process_computes_where_the_actors_do(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it measures, and what it does in the place of actors, is as theirs; also beside a GPU."""
    asked: list[str] = []
    choose = workbench.choose_device
    monkeypatch.setattr(workbench, "choose_device", lambda name: (asked.append(name), choose(name))[1])
    execute(config("ray", rounds={"count": 1}), tmp_path / "run")
    assert asked == ["cpu"]


@pytest.mark.parametrize("objective", ["scaffold", "ditto"])
def test_what_clients_and_server_keep_goes_with_the_jobs(cluster: Any, objective: str, tmp_path: Path) -> None:
    for engine in ("local", "ray"):
        execute(config(engine, objective={"name": objective}, rounds={"count": 2}), tmp_path / engine)
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")


def test_sums_made_in_actors_are_those_of_one_process(cluster: Any, tmp_path: Path) -> None:
    """Groups of three of the round's four clients: one of three, one of one."""
    for engine in ("local", "ray"):
        workers = None if engine == "ray" else 1
        run = config(engine, engine={"name": engine, "workers": workers, "pre_aggregate": 3}, rounds={"count": 2})
        execute(run, tmp_path / engine)
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")


class LosesANode:
    """Takes a node from the cluster after the first round, all at once; and may bring another."""

    def __init__(self, cluster: Any, another: bool) -> None:
        self.cluster = cluster
        self.another = another

    def started(self, weights: Any, rounds_done: int, rounds_total: int) -> None: ...

    def round_closed(self, closed: ClosedRound) -> None:
        if closed.record.round == 1:
            lost = min(self.cluster.worker_nodes, key=lambda node: node.node_id)
            self.cluster.remove_node(lost, allow_graceful=False)
            if self.another:
                self.cluster.add_node(num_cpus=1)


@pytest.mark.parametrize("another", [True, False], ids=["another comes", "the other one goes on"])
def test_a_lost_node_costs_nobody_a_slot_nor_the_time_to_wait_for_another(
    cluster: Any, expected: Any, tmp_path: Path, another: bool
) -> None:
    """While the lost actor has no room to start again, the rounds go on without it: it has not been given up yet."""
    said: list[str] = []

    @contextmanager
    def watch() -> Iterator[LosesANode]:
        yield LosesANode(cluster, another)

    try:
        execute(config("ray"), tmp_path / "run", watch=watch, say=said.append)
    finally:
        if not another:
            cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
    assert hashes(tmp_path / "run") == expected
    assert not [line for line in said if "going on with 1 worker" in line]


def with_actors(
    work: Callable[[Crew], Any], workers: int | None = None, rounds: Any = None, **options: Any
) -> tuple[Any, list[str]]:
    """Run a coroutine over a crew of actors; return its result and what was said."""
    said: list[str] = []

    async def main() -> Any:
        bench = Workbench(config("ray", engine={"name": "ray", "workers": workers}, rounds=rounds or {}))
        with ray_crew(bench, said.append, **options) as crew:
            return await work(crew)

    return asyncio.run(main()), said


def actors_made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return where each actor is noted that Ray makes."""
    import ray

    actors: list[Any] = []
    remote = ray.remote

    def noting(**options: Any) -> Callable[[type], Any]:
        def described(kind: type) -> Any:
            make = remote(**options)(kind).remote
            return SimpleNamespace(remote=lambda *arguments: (actors.append(make(*arguments)), actors[-1])[1])

        return described

    monkeypatch.setattr(ray, "remote", noting)
    return actors


def test_what_a_lost_actor_had_is_done_again(cluster: Any, tmp_path: Path) -> None:
    results, said = with_actors(lambda crew: crew.gather([DieOnce(str(tmp_path / "died")), *map(Echo, range(4))]))
    assert results[0] == "alive"
    assert [number for number, _ in results[1:]] == [0, 1, 2, 3]
    assert len(said) == 1, "the actor was replaced, so nothing more is said"


def test_an_actor_that_is_lost_before_it_can_work_is_made_again_though_it_has_no_job(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next job would find that out and, with another one behind it, wait for the actor after it."""
    import ray

    actors = actors_made(monkeypatch)

    async def work(crew: Crew) -> Any:
        ray.kill(actors[0])
        while len(actors) < 2:
            await asyncio.sleep(0.05)
        return await crew.gather([Echo(0)])

    [(_, process)], said = with_actors(work, workers=1)
    assert process != os.getpid()
    assert (len(actors), len(said)) == (2, 1)


def test_jobs_that_the_only_actor_was_lost_with_are_given_to_nobody_else(cluster: Any) -> None:
    async def work(crew: Crew) -> list[Any]:
        lost = [result async for result in crew.run([Die()] * 2)]
        return [lost, await crew.gather([Echo(9)])]

    (lost, echoed), said = with_actors(work, workers=1)
    assert all(isinstance(result, Lost) for result in lost)
    assert echoed == [(9, os.getpid())]
    assert "no worker process is left, going on in this process" in said[1]


def test_what_a_part_fails_with_in_an_actor_is_one_line(cluster: Any) -> None:
    with pytest.raises(PartError) as caught:
        with_actors(lambda crew: crew.gather([Blame()]), workers=1)
    assert str(caught.value) == "model 'mine': ValueError: a bug"


def test_without_room_for_an_actor_this_process_goes_on(cluster: Any) -> None:
    results, said = with_actors(lambda crew: crew.gather(map(Echo, range(3))), start_s=0.0)
    assert [number for number, _ in results] == [0, 1, 2]
    assert "no node has room for an actor within 0 s" in said[-1]
    assert said[-1].endswith("no worker process is left, going on in this process")


def test_more_actors_than_the_cluster_has_cpus_are_not_made(cluster: Any) -> None:
    said: list[str] = []
    bench = Workbench(config("ray", engine={"name": "ray", "workers": 9}))

    async def main() -> int:
        with ray_crew(bench, said.append) as crew:
            return crew.size

    assert asyncio.run(main()) == 2
    assert "engine.workers = 9, but there are 2 CPUs" in said[0]


def test_cells_of_a_suite_run_as_tasks(cluster: Any, tmp_path: Path) -> None:
    """The first cell is a run of one round; the second one's configuration file is no configuration."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(config("local", rounds={"count": 1}).document()))
    bad.write_text('{"seed": "x"}')

    async def work(file: Path) -> int:
        import ray

        with (tmp_path / f"{file.stem}.log").open("wb") as errors:
            out = str(tmp_path / file.stem)
            async with launch_task(["run", str(file), "--out", out, "--resume"], errors, ray=ray) as running:
                return await running.wait()

    assert asyncio.run(work(good)) == 0
    assert json.loads((tmp_path / "good" / "summary.json").read_text())["rounds_completed"] == 1
    assert asyncio.run(work(bad)) == 2
    assert "seed = 'x'" in (tmp_path / "bad.log").read_text()


def test_a_round_closes_its_seconds_after_its_first_job() -> None:
    """A job of round 2 begins to count anew; one that belongs to no round has all the time."""
    timer = RoundTimer(1000.0)
    first = timer.left(TrainJob(1, 0, None, False, None, 1))
    pooled = timer.left(PooledJob((TrainJob(1, 2, None, False, None, 1),)))
    again = timer.left(TrainJob(1, 1, None, False, None, 1))
    assert first is not None
    assert again is not None
    assert pooled is not None
    assert 0 < again <= pooled <= first <= 1000
    assert timer.left(Echo(0)) is None
    assert RoundTimer(0.0).left(TrainJob(1, 0, None, False, None, 1)) == 0


def test_a_seeded_deadline_is_no_bound_of_real_training(cluster: Any, tmp_path: Path) -> None:
    """Latencies of a nanosecond are in time for a deadline of two, however long Ray takes."""
    conditions = {
        "rounds": {"count": 1, "deadline_s": 2e-9},
        "latency": {"median_s": 1e-9, "spread": 0.0, "jitter": 0.0},
    }
    execute(config("ray", **conditions), tmp_path / "ray")
    execute(config("local", **conditions), tmp_path / "local")
    ray, local = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("ray", "local"))
    assert (ray["num_participated"], ray["deterministic"]) == (4, True)
    assert (ray["model_hash"], ray["ledger_hash"]) == (local["model_hash"], local["ledger_hash"])


def test_a_client_that_takes_longer_than_a_round_may_fails(cluster: Any, tmp_path: Path) -> None:
    rounds = {"count": 1, "deadline_s": 1e-9, "train_timeout_s": 1e-9, "grace_s": 0.0}
    execute(config("ray", rounds=rounds), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["num_participated"], summary["num_failed"], summary["deterministic"]) == (0, 4, False)


def test_when_a_round_has_taken_too_long_only_those_at_work_are_ended(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two actors sleep past the end of round 1: they are replaced, once each; the other jobs are lost without them."""
    actors = actors_made(monkeypatch)

    async def work(crew: Crew) -> list[Any]:
        await crew.gather([Echo(0), Echo(1)])
        return [result async for result in crew.run([Sleep(1, 0, None, False, None, 1)] * 12)]

    results, said = with_actors(work, rounds={"deadline_s": 2.0, "train_timeout_s": 2.0, "grace_s": 0.0})
    assert all(isinstance(result, Lost) for result in results)
    assert (len(actors), len(said)) == (4, 1)


def test_an_address_without_a_cluster_is_a_clear_error() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(FleetError, match=f"engine.address .suite: --ray. = '{address}': nobody answers"):
            require_listener(address)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"engine\.name = 'ray' .* needs the package ray.*pip install '\.\[ray\]'"):
        import_ray()


def test_what_nodes_cannot_import_is_refused() -> None:
    bench: Any = SimpleNamespace(config=config("ray"), modules=("__main__",))
    with pytest.raises(ConfigError, match="put it into a module"), ray_crew(bench, lambda line: None):
        pass
