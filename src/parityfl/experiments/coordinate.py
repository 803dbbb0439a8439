"""A coordinator's run: the round loop over the devices that register."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parityfl.config import Config
from parityfl.coordinator.agreement import Agreement
from parityfl.coordinator.enrolment import Enrolment
from parityfl.coordinator.evaluate import HttpEvaluator
from parityfl.coordinator.finished import read_finished
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.initial import initial_model
from parityfl.coordinator.serve import Service, serve
from parityfl.coordinator.service import Coordinator
from parityfl.core.errors import ConfigError
from parityfl.core.types import World
from parityfl.engine.fleet import Evaluator, Fleet, Say, Watch
from parityfl.engine.folder import RunFolder
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
from parityfl.training.datasets.own import read_own
from parityfl.training.own_holdings import judging_holdings
from parityfl.wire.schemas import DataFormat
from parityfl.workers.evaluate import WorkbenchEvaluator

if TYPE_CHECKING:
    from parityfl.training.workbench import Workbench


async def coordinate(
    config: Config,
    out: Path,
    listening: socket.socket,
    service: Service,
    *,
    resume: bool,
    watch: Watch,
    say: Say = lambda _: None,
) -> None:
    """Serve a run into a folder until its rounds are done and the devices have left, or with `keep_serving` on and on.

    How it is served, `service` says, apart from what is the folder's. On the virtual clock, `say` is told how
    availability comes out against what was requested.

    Raises:
        ParityflError: see `parityfl.core.errors`.
        KeyboardInterrupt: a signal came first; the run can be resumed.
    """
    most = config.population.clients
    if service.min_clients is not None and not 1 <= service.min_clients <= most:
        raise ConfigError(f"--min-clients {service.min_clients}: give a number from 1 to population.clients = {most}")
    if service.start_within_s is not None and not service.start_within_s > 0:
        raise ConfigError(f"--start-within {service.start_within_s:g}: give a number of seconds above 0")
    folder, content = RunFolder(out), document(config)
    service = replace(service, folder=out, run_id=_run_id(config, out))
    if folder.check(content, resume):
        if service.keep_serving:
            await _serve_finished(config, folder, listening, service)
        return
    agreed, workbench = _prepare(config)
    world = _world(config, workbench)
    require_selector(config, world)
    if workbench is not None:  # else the devices have yet to say how large the model is
        require_aggregator(config, world, workbench.layout.size)
    folder.prepare(content, resume)
    say_availability(config, world, say)
    say_idle(config, say)

    async def drive(devices: HttpFleet, coordinator: Coordinator) -> None:
        if workbench is None:
            layout, weights = await initial_model(devices)
            devices.adopt(layout)
            spec = build_spec(config, world, layout, weights.copy)
        else:
            spec = build_spec(config, world, workbench.layout, workbench.initial_weights)
        fleet: Fleet = LockstepFleet(devices, world, build_conditions(config)) if spec.virtual else devices
        with ExitStack() as stack:
            observers = [coordinator, *filter(None, [stack.enter_context(watch())])]
            # A live device may have any name: those that the registry gives out are the ones to write.
            named = replace(spec, device_ids=devices.registry.device_ids)
            evaluate = _evaluator(config, workbench, devices)
            await run_rounds(named, fleet, evaluate, folder, observers=observers, stop=devices.stop)

    service = replace(service, roster=out / "roster.jsonl", agreement=out / "agreement.json", agreed=agreed)
    layout = None if workbench is None else workbench.layout
    async with folder.locked():  # before the first device comes: who has which place is kept there
        await serve(config, layout, drive, listening, service, availability=world.availability)
        Enrolment(out).retire()


async def _serve_finished(config: Config, folder: RunFolder, listening: socket.socket, service: Service) -> None:
    """Serve a run that is done until a signal: it shows how it ended, and tells devices that it is over."""
    finished = read_finished(folder)

    async def recall(_: HttpFleet, coordinator: Coordinator) -> None:
        coordinator.recall(finished)

    await serve(config, finished.layout, recall, listening, replace(service, min_clients=0))
    Enrolment(folder.path).retire()


def _run_id(config: Config, out: Path) -> str:
    """Return the identity of the run in a folder, the same after a restart."""
    return sha256(f"{config.hash}/{out.resolve()}".encode()).hexdigest()[:32]


def _prepare(config: Config) -> tuple[Agreement, Workbench | None]:
    """Return what is settled before the first device comes, and the workbench of this machine.

    Where devices have their own data and there is no test set here, there is none: this machine only averages, and
    needs no torch.
    """
    agreed = Agreement.of(config.data)
    if config.data.is_own and config.data.test is None:
        return agreed, None
    from parityfl.training.workbench import Workbench  # noqa: PLC0415 - torch, which a coordinator may do without

    if config.data.test is None:
        return agreed, Workbench(config)
    test = read_own(Path(config.data.test))
    told = DataFormat(classes=list(test.classes), shape=list(test.shape), dtype=test.dtype)
    agreed = agreed.with_data(f"the test set {config.data.test}", told)
    data = config.data.model_copy(update=agreed.keys)
    complete = config.model_copy(update={"data": data})
    return agreed, Workbench(complete, holdings=judging_holdings(complete, test))


def _world(config: Config, workbench: Workbench | None) -> World:
    """Return what is known of the run before its first round: of the devices' own data nothing."""
    if config.data.is_own or workbench is None:
        nobody = np.zeros(config.population.clients, dtype=np.int64)
        return build_world(config, nobody, nobody.reshape(-1, 1)[:, :0])
    return build_world(config, workbench.num_samples, workbench.label_counts)


def _evaluator(config: Config, workbench: Workbench | None, devices: HttpFleet) -> Evaluator:
    if workbench is None:
        return HttpEvaluator(devices)
    virtual = config.rounds.virtual
    return WorkbenchEvaluator(workbench) if virtual else HttpEvaluator(devices, workbench.evaluate_test)
