"""Serving a process of devices, from binding the port to leaving."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

import httpx

from parityfl.client.app import create_app
from parityfl.client.identity import Identity
from parityfl.client.membership import TIMEOUT_S, Membership
from parityfl.client.own import format_of, own_workbench, read_devices
from parityfl.client.polling import polling
from parityfl.client.service import DeviceHost, WorkbenchFactory, import_torch, torch_workbench
from parityfl.client.settings import Settings
from parityfl.web.secrets import JOIN_TOKEN
from parityfl.web.server import bind, is_loopback, on_signals, port_of, serving

log = logging.getLogger(__name__)


async def serve(settings: Settings, factory: WorkbenchFactory | None = None) -> None:
    """Serve devices until the coordinator tells them to leave, or SIGTERM does.

    Raises:
        FleetError: the port is taken, or the coordinator was absent for too long or refuses one of these devices.
        ParityflError: the data of the run cannot be loaded here.
        KeyboardInterrupt: SIGINT came.
    """
    own = {} if settings.data is None else await asyncio.to_thread(read_devices, settings.data, settings.device_ids)
    host = DeviceHost(
        settings.device_ids,
        factory or (own_workbench(own) if own else torch_workbench),
        settings.state,
        prepare=import_torch if factory is None else None,
        formats={name: format_of(data) for name, data in own.items()},
    )
    listening = None if settings.pull else bind(settings.listen_host, settings.port)
    port = None if listening is None else port_of(listening)
    log.info("%s %s", ", ".join(settings.device_ids), "polling" if port is None else f"listening on port {port}")
    timeout = httpx.Timeout(connect=TIMEOUT_S, read=TIMEOUT_S, write=TIMEOUT_S, pool=TIMEOUT_S)
    identity, tls = Identity(settings.token, settings.state), settings.tls
    async with httpx.AsyncClient(
        base_url=settings.server, timeout=timeout, trust_env=False, auth=identity, verify=tls.calling()
    ) as http:
        membership = Membership(
            host, http, port, settings.advertise, settings.patience_s, process_key=identity.key, tls=tls.serves
        )
        if listening is None:
            reached = polling(create_app(host), http, settings.device_ids)
        else:
            _warn_of_strangers(listening, identity)
            reached = serving(create_app(host, identity), listening, tls)
        async with reached:
            try:
                await _stay(membership)
            finally:
                host.close()


def _warn_of_strangers(listening: socket.socket, identity: Identity) -> None:
    if not identity.asks and not is_loopback(listening.getsockname()[0]):
        log.warning(
            "listening on %s without a join token: whoever reaches this port can have these devices train; give them "
            "and their coordinator one (%s), or use --pull",
            listening.getsockname()[0],
            JOIN_TOKEN,
        )


async def _stay(membership: Membership) -> None:
    """Be a member until it ends by itself or a signal comes."""
    signals: list[signal.Signals] = []
    staying = asyncio.create_task(membership.run(), name="membership")

    def leave(number: signal.Signals) -> None:
        signals.append(number)
        staying.cancel()

    with on_signals(leave):
        await asyncio.wait({staying})
        if not staying.cancelled():
            staying.result()
            return
        log.warning("%s: leaving", signals[0].name)
        await membership.farewell()
    if signals[0] == signal.SIGINT:
        raise KeyboardInterrupt
