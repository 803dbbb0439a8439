"""Evaluation in a live run: devices measure the model on their own data while they are there; nobody else can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import nan

import httpx
import numpy as np

from parityfl.coordinator.device_registry import Member
from parityfl.coordinator.enrolment import RefusedError
from parityfl.coordinator.fleet import HttpFleet
from parityfl.coordinator.packing import Forms
from parityfl.core.errors import PayloadError
from parityfl.core.types import Vector
from parityfl.engine.fleet import ClientEvaluation, Evaluation
from parityfl.wire.offload import offload
from parityfl.wire.paths import EVALUATE
from parityfl.wire.payload import Payload, assemble
from parityfl.wire.schemas import EvaluateReply, EvaluateRequest

TestSet = Callable[[Vector], tuple[float, float]]
"""Returns loss and accuracy of a model on a test set that the coordinator holds."""

_REPLY_LIMIT = 2**16
_LONGEST_REST = 64
"""For how many rounds a device that does not answer is left out of the evaluation at most."""

log = logging.getLogger(__name__)


class HttpEvaluator:
    """Implements `Evaluator`: asks every device that is available; nan for the others.

    One that did not answer in time rests for a round, then for 2, 4, ... 64 until it does: it would hold up every round
    to its end.

    Args:
        fleet: the fleet whose devices are asked, within what is left of the round's deadline and grace.
        test_set: measures the global figures, in a thread of its own; None leaves them nan.
    """

    def __init__(self, fleet: HttpFleet, test_set: TestSet | None = None) -> None:
        self._fleet = fleet
        self._test_set = test_set
        self._rests: dict[int, tuple[int, int]] = {}
        """Of devices that did not answer: from which round on they are asked again, and how many rounds they rest."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluate")

    async def __call__(self, round: int, weights: Vector, average: Vector, *, on_test_set: bool = True) -> Evaluation:
        """Measure the model on the test set and, at the same time, on the devices that are there."""
        test_set = self._test_set if on_test_set else None
        clients, (loss, accuracy), (_, average_accuracy) = await asyncio.gather(
            self._on_devices(round, weights), self._globally(test_set, weights), self._globally(test_set, average)
        )
        return Evaluation(loss, accuracy, average_accuracy, clients)

    async def _globally(self, test_set: TestSet | None, weights: Vector) -> tuple[float, float]:
        if test_set is None:
            return nan, nan
        return await asyncio.get_running_loop().run_in_executor(self._thread, test_set, weights)

    async def _on_devices(self, round: int, weights: Vector) -> ClientEvaluation:
        model = await asyncio.to_thread(self._fleet.packed, weights)
        available = np.flatnonzero(self._fleet.registry.available()).tolist()
        present = [client for client in available if self._rests.get(client, (0, 0))[0] <= round]
        replies = await asyncio.gather(*(self._ask(client, round, model) for client in present))
        loss, accuracy = np.full((2, len(self._fleet.registry.device_ids)), nan)
        for client, reply in zip(present, replies, strict=True):
            if reply is not None:
                loss[client], accuracy[client] = reply.loss, reply.accuracy
        return ClientEvaluation(loss, accuracy)

    async def _ask(self, client: int, round: int, model: Forms) -> EvaluateReply | None:
        """Return what a device measured, or None where it did not answer in time or answered something else."""
        fleet = self._fleet
        member = fleet.registry.at(client)
        payload = await offload(model.nbytes, self._payload, member, round, model)
        budget_s = 0.0
        try:
            with fleet.exchange(client, fleet.remaining_s) as exchange:
                async with exchange.patience, fleet.devices.slot(member):
                    budget_s = fleet.remaining_s  # it has not had the time for which it waited for its turn
                    answer = await fleet.devices.ask(member, EVALUATE, payload, _REPLY_LIMIT)
            reply = EvaluateReply.model_validate_json(bytes(answer.body))
        except TimeoutError:
            if not exchange.loss and budget_s >= fleet.config.rounds.heartbeat_s:  # else it had little time
                self._let_rest(client, round, budget_s)
            return None
        except (httpx.TransportError, PayloadError, RefusedError, ValueError):
            return None
        self._rests.pop(client, None)
        return reply if (reply.device_id, reply.round) == (member.device_id, round) else None

    def _let_rest(self, client: int, round: int, budget_s: float) -> None:
        """Leave a device out for twice as many rounds as the last time."""
        rest = min(2 * self._rests.get(client, (0, 0))[1] or 1, _LONGEST_REST)
        self._rests[client] = round + rest + 1, rest
        name = self._fleet.registry.device_ids[client]
        log.warning(
            "%s did not answer /evaluate in %.3g s; it is asked again from round %d on",
            name,
            budget_s,
            round + rest + 1,
        )

    def _payload(self, member: Member, round: int, model: Forms) -> Payload:
        fleet, name = self._fleet, member.device_id
        request = EvaluateRequest(run_id=fleet.run_id, round=round, device_id=name, model_digest=model.digest)
        return assemble(request, {"model": model[fleet.form_of(member)]}, fleet.layout)
