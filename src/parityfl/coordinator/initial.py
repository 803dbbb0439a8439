"""The model before the first round, asked of a device: one that only averages needs no torch."""

from __future__ import annotations

import asyncio
import logging

import httpx

from parityfl.coordinator.answer import Answer
from parityfl.coordinator.device_registry import Member
from parityfl.coordinator.enrolment import RefusedError
from parityfl.coordinator.fleet import HttpFleet
from parityfl.core.arrays import Layout
from parityfl.core.errors import FleetError, PayloadError, UnfinishedError, first_line
from parityfl.core.types import Vector
from parityfl.wire.digests import model_digest
from parityfl.wire.offload import offload
from parityfl.wire.paths import INITIAL
from parityfl.wire.payload import layout_in, unpack
from parityfl.wire.schemas import InitialReply

log = logging.getLogger(__name__)

LIMIT = 2**31
"""Bytes of the largest model that is taken: half a thousand million parameters."""


async def initial_model(fleet: HttpFleet) -> tuple[Layout, Vector]:
    """Return the layout and the initial weights from the first device that has loaded its data and answers well.

    Raises:
        UnfinishedError: the run was stopped first, or no device did in `rounds.max_idle_rounds` heartbeats.
    """
    rounds = fleet.config.rounds
    for _ in range(rounds.max_idle_rounds):
        if fleet.stop.is_set():
            raise UnfinishedError("stopped before the first round, as asked")
        for member in fleet.registry.prepared:
            try:
                with fleet.exchange(member.index, rounds.train_timeout_s) as exchange:
                    async with exchange.patience:
                        return await _model_of(fleet, member)
            except (httpx.TransportError, FleetError, PayloadError, RefusedError, TimeoutError) as error:
                log.warning("%s does not give the initial model: %s", member.device_id, first_line(error))
        await asyncio.sleep(rounds.heartbeat_s)
    raise UnfinishedError(
        f"no device has given the initial model in {rounds.max_idle_rounds} heartbeats (rounds.max_idle_rounds): the "
        "run ends, and can be gone on with once devices are there"
    )


async def _model_of(fleet: HttpFleet, member: Member) -> tuple[Layout, Vector]:
    answer = await fleet.devices.ask(member, INITIAL, None, LIMIT)
    if answer.status != 200:
        raise FleetError(f"it answered {answer.status}")
    return await offload(len(answer.body), _opened, fleet, answer)


def _opened(fleet: HttpFleet, answer: Answer) -> tuple[Layout, Vector]:
    layout, strange = layout_in(answer.body), "it is another model than the one that this run has agreed on"
    if fleet.registry.agreement.layout_hash is None:
        raise PayloadError(
            "no device has told the layout_hash of its model yet, by which this is known to be the run's"
        )
    if layout.digest != fleet.registry.agreement.layout_hash:  # before `unpack`, which remembers layouts
        raise PayloadError(strange)
    reply, vectors = unpack(answer.body, InitialReply, layout)
    wanted = fleet.config.model.name, fleet.config.seed
    if (reply.model, reply.seed) != wanted or model_digest(vectors["model"]) != reply.model_digest:
        raise PayloadError(strange)
    return layout, vectors["model"].copy()
