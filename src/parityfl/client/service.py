"""The devices of one process: they share a workbench and one thread for torch; each has its own identity and state."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

from parityfl.client.device import Device, Proceed
from parityfl.config import Config, resolve
from parityfl.core.arrays import Layout
from parityfl.core.availability import bind
from parityfl.core.errors import PayloadError, UnfinishedError
from parityfl.core.types import AvailabilityProcess, IntArray, Update, Vector
from parityfl.training.memory import ClientMemory, LostMemoryError
from parityfl.web.problems import ProblemError
from parityfl.wire.digests import Parts, known_digest, model_digest
from parityfl.wire.header import Buffer
from parityfl.wire.offload import offload
from parityfl.wire.payload import Form, Payload, assemble, max_bytes, pack, unpack
from parityfl.wire.schemas import (
    Compression,
    DataFormat,
    DeviceReport,
    DeviceStatus,
    Dtype,
    EvaluateReply,
    EvaluateRequest,
    InitialReply,
    Registration,
    RegistrationReply,
    TrainReply,
    TrainRequest,
)

T = TypeVar("T")


class Workbench(Protocol):
    """What trains and evaluates: `parityfl.training.workbench.Workbench`, or a stand-in."""

    layout: Layout
    num_samples: IntArray
    label_counts: IntArray

    def initial_weights(self) -> Vector:
        """Return the model before the first round."""
        ...

    def train(
        self,
        round: int,
        client: int,
        weights: Vector,
        control: Vector | None,
        memory: Vector | None,
        *,
        proceed: Proceed,
    ) -> tuple[Update, Vector | None]:
        """Train a client; return its update and what it keeps; raise what `proceed` raises, called now and then."""
        ...

    def evaluate_client(self, client: int, weights: Vector) -> tuple[float, float, int]:
        """Return loss, accuracy and size of the client's held-out part."""
        ...


WorkbenchFactory = Callable[[Config, Mapping[int, str]], Workbench]
"""Makes the workbench of a configuration for the devices with these indices and names."""

AskerGone = Callable[[], bool]
"""Tells whether whoever asked has hung up."""


def torch_workbench(config: Config, clients: Mapping[int, str]) -> Workbench:
    """Return the real workbench."""
    from parityfl.training.workbench import Workbench as TorchWorkbench  # noqa: PLC0415 - torch takes seconds

    return TorchWorkbench(config, clients=clients)


def import_torch() -> None:
    """Import what takes seconds, so that it is there when the coordinator's configuration arrives."""
    import parityfl.training.workbench  # noqa: F401, PLC0415


@dataclass(frozen=True)
class _Run:
    """The run that the devices belong to, once its data is loaded."""

    config: Config
    workbench: Workbench
    availability: AvailabilityProcess
    keeps_memory: bool


@dataclass(frozen=True)
class _Order:
    """A request to train that was found to be right: what it asks, of whom, and when it came."""

    run: _Run
    device: Device
    index: int
    request: TrainRequest
    vectors: dict[str, Vector]
    received: float


class DeviceHost:
    """Hosts devices: it loads their data, answers for them, and trains one of them at a time.

    On the wall clock a device that is busy refuses. On the virtual clock it takes the time that it needs, since no
    result may depend on when what an interrupted coordinator has left behind comes to its end.

    Args:
        device_ids: the devices' names.
        factory: makes the workbench from the configuration that the coordinator sends.
        state: the folder for what devices keep between rounds; None keeps it in memory.
        prepare: what the torch thread may do while there is no configuration yet.
        formats: what the devices' own data look like, by name, where they bring any.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        device_ids: Sequence[str],
        factory: WorkbenchFactory = torch_workbench,
        state: Path | None = None,
        *,
        prepare: Callable[[], None] | None = None,
        formats: Mapping[str, DataFormat] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.devices = {device_id: Device(device_id) for device_id in device_ids}
        self.run_id: str | None = None
        self._factory = factory
        self._formats = formats or {}
        self._memory = ClientMemory(state)
        self._clock = clock
        self._began: float | None = None
        self._run: _Run | None = None
        self._loaded = asyncio.Event()
        self._leaving = False
        self._torch = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch")
        if prepare is not None:
            self._torch.submit(prepare)

    @property
    def is_loaded(self) -> bool:
        """Whether the devices can train."""
        return self._loaded.is_set()

    def assign(self, device_id: str, reply: RegistrationReply) -> None:
        """Note a device's place and run."""
        self.devices[device_id].index = reply.index
        self.run_id = reply.run_id

    async def load(self, document: dict[str, Any], clients: Mapping[int, str]) -> None:
        """Load what the devices with these indices and names need for the run of a configuration.

        Raises:
            ParityflError: the configuration is not understood here, or its data cannot be loaded.
        """
        self._loaded.clear()
        self._run = None
        config = resolve([document], {})
        self._run = await self._in_torch_thread(lambda: self._open(config, clients))
        self._loaded.set()

    def synchronise(self, time_s: float) -> None:
        """Note how long the run has been going on; nan where it has not begun."""
        self._began = None if isnan(time_s) else self._clock() - time_s

    def registration(
        self, device_id: str, port: int | None, host: str | None, version: str, *, with_data: bool
    ) -> Registration:
        """Return a device's introduction; `with_data` adds what is known of its data and model once they are loaded."""
        introduction = Registration(
            device_id=device_id,
            port=port,
            host=host,
            data=self._formats.get(device_id),
            version=version,
            dtypes=list(get_args(Dtype)),
            compressions=list(get_args(Compression)),
        )
        index, run = self.devices[device_id].index, self._run
        if not with_data or run is None or index is None:
            return introduction
        data = {
            "num_samples": int(run.workbench.num_samples[index]),
            "label_counts": run.workbench.label_counts[index].tolist(),
            "layout_hash": run.workbench.layout.digest,
        }
        return introduction.model_copy(update=data)

    def report(self, device_id: str, latency_s: float) -> DeviceReport:
        """Return how a device is."""
        device = self.devices[device_id]
        return DeviceReport(
            device_id=device_id, available=self._is_available(device), training=device.training, latency_s=latency_s
        )

    def statuses(self) -> list[DeviceStatus]:
        """Return how all devices are."""
        return [self._status(device) for device in self.devices.values()]

    async def max_bytes(self) -> int:
        """Return how large a document may be, once the model is known."""
        return max_bytes((await self._when_loaded()).workbench.layout, 2)

    async def train(self, body: Buffer, asker_gone: AskerGone, *, parts: Parts = ()) -> Payload:
        """Train as a document asks and return the reply's document; stop where this is cancelled.

        Args:
            body: the document.
            asker_gone: whether whoever asked has hung up.
            parts: those of the document that are hashed: a model that is one of them needs no hashing once more.

        Raises:
            PayloadError: the document is not what it should be.
            ProblemError: the device is away, busy, unknown, or of another run.
        """
        received, run = self._clock(), await self._when_loaded()
        layout = run.workbench.layout
        request, vectors = await offload(layout.nbytes, _open_train_request, body, layout, parts)
        device = self._device(request.device_id)
        order = _Order(run, device, self._check_run(device, request.run_id), request, vectors, received)
        _check_settings(request, run.config)
        self._check_available(order)
        key = (request.run_id, request.round, request.model_digest)

        async def work(asked: Proceed) -> Payload:
            return await self._in_torch_thread(lambda: self._train(order, asked))

        reply = await device.once(key, work, patient=run.config.rounds.virtual)
        if not asker_gone():
            device.forget(key)
        return reply

    async def evaluate(self, body: Buffer, *, parts: Parts = ()) -> EvaluateReply:
        """Evaluate as a document asks; see `train`.

        Raises:
            PayloadError: the document is not what it should be.
            ProblemError: the device is unknown, or of another run.
        """
        run = await self._when_loaded()
        layout = run.workbench.layout
        request, weights = await offload(layout.nbytes, _open_evaluate_request, body, layout, parts)
        device = self._device(request.device_id)
        index = self._check_run(device, request.run_id)
        bench = run.workbench
        loss, accuracy, size = await self._in_torch_thread(lambda: bench.evaluate_client(index, weights))
        return EvaluateReply(
            device_id=device.device_id, round=request.round, loss=loss, accuracy=accuracy, num_samples=size
        )

    async def initial(self) -> Payload:
        """Return the document of the model before the first round, as this process has built it."""
        run = await self._when_loaded()
        weights = await asyncio.to_thread(lambda: pack(run.workbench.initial_weights()))
        reply = InitialReply(model=run.config.model.name, seed=run.config.seed, model_digest=weights.digest)
        return assemble(reply, {"model": weights}, run.workbench.layout)

    def close(self) -> None:
        """Take no more work; what is running runs to its end."""
        self._leaving = True
        self._torch.shutdown(wait=False, cancel_futures=True)

    async def _in_torch_thread(self, work: Callable[[], T]) -> T:
        self._require_staying()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._torch, work)
        except asyncio.CancelledError:
            self._require_staying()
            raise

    def _require_staying(self) -> None:
        if self._leaving:
            raise ProblemError(503, "this process is leaving") from None

    async def _when_loaded(self) -> _Run:
        while self._run is None:
            await self._loaded.wait()
        return self._run

    def _open(self, config: Config, clients: Mapping[int, str]) -> _Run:
        bench = self._factory(config, clients)
        world = config.world(bench.num_samples, bench.label_counts)
        availability = bind(config.availability.build(), world)
        run = _Run(config, bench, availability, config.objective.build().keeps_memory)
        gc.freeze()  # what stands now stays: the collector need not look through torch's objects again and again
        return run

    def _train(self, order: _Order, asked: Proceed) -> Payload:
        """Train and pack the reply, for as long as somebody waits for it; for the torch thread."""
        began, request, bench = self._clock(), order.request, order.run.workbench

        def proceed() -> None:
            asked()
            if request.deadline_s is not None and self._clock() - order.received > request.deadline_s:
                raise ProblemError(503, f"{order.device.device_id} is not done by the round's deadline")

        proceed()
        weights, control = order.vectors["model"], order.vectors.get("control")
        memory = self._recall(order)
        update, keep = bench.train(request.round, order.index, weights, control, memory, proceed=proceed)
        if keep is not None:
            self._keep(order, keep)
        train_s = self._clock() - began
        order.device.log.info("round %d: trained in %.2f s", request.round, train_s)
        learned = {"model": update.delta} | ({} if update.control is None else {"control": update.control})
        form = Form(request.dtype, request.compression)
        packed = {prefix: pack(vector, form) for prefix, vector in learned.items()}
        return assemble(_train_reply(order, update, train_s), packed, bench.layout)

    def _keep(self, order: _Order, vector: Vector) -> None:
        try:
            self._memory.store(order.index, order.request.round, vector, base=order.request.memory_round)
        except UnfinishedError as error:
            raise ProblemError(507, f"{order.device.device_id}: {error}") from None

    def _recall(self, order: _Order) -> Vector | None:
        """Return what the device kept when it completed the round that the request names.

        Raises:
            ProblemError: it is lost, and starting afresh would change the result of an experiment.
        """
        if not order.run.keeps_memory:
            return None
        try:
            return self._memory.recall(order.index, order.request.memory_round)
        except LostMemoryError as error:
            if order.run.config.rounds.virtual:
                raise ProblemError(410, f"{order.device.device_id}: {error}") from None
            order.device.log.warning("%s: it starts afresh", error)
            return None

    def _device(self, device_id: str | None) -> Device:
        if device_id is None and len(self.devices) == 1:
            return next(iter(self.devices.values()))
        if device_id is None:
            raise ProblemError(422, f"device_id: this process hosts {len(self.devices)} devices: say which is asked")
        if device_id not in self.devices:
            raise ProblemError(404, f"there is no device {device_id!r} here; GET /status lists those that are")
        return self.devices[device_id]

    def _check_run(self, device: Device, run_id: str) -> int:
        """Return the device's index in the run that it belongs to."""
        if run_id != self.run_id or device.index is None:
            raise ProblemError(409, f"{device.device_id} belongs to run {self.run_id}, not {run_id}")
        return device.index

    def _check_available(self, order: _Order) -> None:
        virtual = order.run.config.rounds.virtual
        time_s = order.request.time_s if virtual else self._scaled_time(order.run)
        if not order.run.availability.available(time_s)[order.index]:
            raise ProblemError(409, f"{order.device.device_id} is away at {time_s:g} s")

    def _is_available(self, device: Device) -> bool:
        """Return whether a device could train now; on the virtual clock it says only that it is ready."""
        run = self._run
        if run is None or device.index is None:
            return False
        if run.config.rounds.virtual:
            return True
        return bool(run.availability.available(self._scaled_time(run))[device.index])

    def _scaled_time(self, run: _Run) -> float:
        elapsed = 0.0 if self._began is None else self._clock() - self._began
        return elapsed * run.config.rounds.time_scale

    def _status(self, device: Device) -> DeviceStatus:
        run, index = self._run, device.index
        return DeviceStatus(
            device_id=device.device_id,
            index=index,
            available=self._is_available(device),
            training=device.training,
            last_round=device.last_round,
            num_samples=None if run is None or index is None else int(run.workbench.num_samples[index]),
        )


def _open_train_request(body: Buffer, layout: Layout, parts: Parts) -> tuple[TrainRequest, dict[str, Vector]]:
    request, vectors = unpack(body, TrainRequest, layout, ("model",), ("control",))
    _check_digest(request.model_digest, vectors["model"], body, parts)
    return request, vectors


def _open_evaluate_request(body: Buffer, layout: Layout, parts: Parts) -> tuple[EvaluateRequest, Vector]:
    request, vectors = unpack(body, EvaluateRequest, layout)
    _check_digest(request.model_digest, vectors["model"], body, parts)
    return request, vectors["model"]


def _check_digest(expected: str, weights: Vector, body: Buffer, parts: Parts) -> None:
    found = known_digest(weights, body, parts) or model_digest(weights)
    if found != expected:
        raise PayloadError(f"model_digest is {expected}, but the parameters that came have {found}")


def _check_settings(request: TrainRequest, config: Config) -> None:
    """Require that both sides have the same idea of how to train."""
    expected = {
        "seed": config.seed,
        "model": config.model.name,
        "training": config.training,
        "objective": config.objective,
    }
    for name, value in expected.items():
        if getattr(request, name) != value:
            raise ProblemError(409, f"{name} is {getattr(request, name)!r}, but this run's configuration has {value!r}")


def _train_reply(order: _Order, update: Update, train_s: float) -> TrainReply:
    return TrainReply(
        device_id=order.device.device_id,
        round=order.request.round,
        num_samples=update.num_samples,
        train_loss=update.train_loss,
        loss_before=update.loss_before,
        loss_after=update.loss_after,
        personal_accuracy=update.personal_accuracy,
        model_digest=order.request.model_digest,
        train_s=train_s,
    )
