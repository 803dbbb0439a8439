"""The engines `local` and `ray`: clients train in workers, through the code that a container runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from parityfl.config import Config
from parityfl.engine.fleet import Say, Watch
from parityfl.engine.folder import CLIENTS, RunFolder
from parityfl.engine.lockstep import LockstepFleet
from parityfl.engine.loop import run_rounds
from parityfl.experiments.build import (
    build_conditions,
    build_spec,
    build_world,
    document,
    require_aggregator,
    require_selector,
    say_availability,
    say_idle,
)
from parityfl.training.holdings import Holdings, load_holdings
from parityfl.training.memory import ClientMemory
from parityfl.workers.cores import cores
from parityfl.workers.evaluate import WorkbenchEvaluator
from parityfl.workers.fleet import CrewFleet
from parityfl.workers.grouping import choose_grouping
from parityfl.workers.process_workers import local_crew, prepare
from parityfl.workers.ray_workers import ray_crew

SMALL_RUN = 10_000_000
"""Pixels that a whole run trains on, each as often as it is used, below which starting workers takes longer than it
saves: about a second of training."""


def choose_workers(config: Config, holdings: Holdings) -> int:
    """Return how many processes train, by rule; the results do not depend on it. 1: this one does, without workers.

    As many as `engine.workers` says, but no more than there are clients to train.
    """
    if config.engine.workers is not None:
        return min(config.engine.workers, config.population.clients)
    images = config.rounds.count * config.population.per_round * holdings.num_samples.mean() * config.training.epochs
    return 1 if images * np.prod(holdings.shape) < SMALL_RUN else cores()


async def run_local(config: Config, out: Path, *, resume: bool, watch: Watch, say: Say) -> None:
    """Run a configuration of the `local` or `ray` engine into a folder; see `parityfl.experiments.run.execute`."""
    folder, content = RunFolder(out), document(config)
    if folder.check(content, resume):
        return
    elsewhere = config.engine.name == "ray"
    if not elsewhere and (config.engine.workers or 1) > 1:
        prepare()  # else only when it is known how much there is to do
    holdings = load_holdings(config)
    world = build_world(config, holdings.num_samples, holdings.label_counts)
    require_selector(config, world)  # a mistake need not wait for torch
    workers = 1 if elsewhere else choose_workers(config, holdings)
    if workers > 1:
        prepare()
    from parityfl.training.workbench import Workbench  # noqa: PLC0415 - now that the workers import torch as well

    bench = Workbench(config, device="cpu" if elsewhere else None, holdings=holdings)  # as the actors compute
    spec = build_spec(config, world, bench.layout, bench.initial_weights)
    require_aggregator(config, world, bench.layout.size)
    assert world.availability is not None
    with ray_crew(bench, say) if elsewhere else local_crew(bench, workers, say) as crew, watch() as observer:
        folder.prepare(content, resume)
        say_availability(config, world, say)
        say_idle(config, say)
        memory = ClientMemory(out / CLIENTS) if config.objective.build().keeps_memory else None
        grouping = await choose_grouping(bench, crew, say)
        limit = config.security.max_update_norm
        clients = CrewFleet(crew, world.availability, bench.num_samples, memory, grouping, max_norm=limit)
        fleet = LockstepFleet(clients, world, build_conditions(config))
        observers = [] if observer is None else [observer]
        async with folder.locked():
            await run_rounds(spec, fleet, WorkbenchEvaluator(bench, crew), folder, observers=observers)
