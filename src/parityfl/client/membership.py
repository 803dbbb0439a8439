"""A process of devices as a member of a run: it registers, reports, comes back, and leaves when told to."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from math import nan
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from parityfl.client.absence import LONGEST_WAIT_S, PATIENT, PLAIN_REMEDY, remedy
from parityfl.client.service import DeviceHost
from parityfl.core.errors import FleetError
from parityfl.web.problems import PROBLEM_JSON, detail_of
from parityfl.web.version import VERSION
from parityfl.wire.paths import REGISTER, STATUS_UPDATE
from parityfl.wire.schemas import RegistrationReply, StatusReply, StatusUpdate

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

REPORTS = 2
"""How often in a heartbeat a device reports, so that the coordinator can do without one of them."""

TIMEOUT_S = 5.0
FAREWELL_S = 1.0
PASSING = frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS})
"""Errors of who asks that another attempt may not meet."""


class _AbsentError(Exception):
    """The coordinator does not answer, or only as one that is not up yet.

    Args:
        reason: what there is instead.
        remedy: what its user can do about it.
        status: of the answer; None where there is none.
    """

    def __init__(self, reason: str, remedy: str = PLAIN_REMEDY, status: int | None = None) -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.status = status

    @property
    def kind(self) -> int | str | None:
        """What tells it apart from others that its user should know of; None where it may just not be up yet."""
        return self.status if self.remedy == PLAIN_REMEDY else self.remedy


class _OverError(Exception):
    """The run is over."""


class _StrangerError(Exception):
    """The coordinator does not know this process: it was restarted, or knows a newer one with these devices."""


class Membership:
    """Keeps the devices of one process in the run of a coordinator.

    Args:
        host: the devices.
        http: calls the coordinator; its base URL is the coordinator's.
        port: where the devices listen; None if they poll.
        advertise: the host to be called at; None: the address that the coordinator sees.
        patience_s: how long the coordinator may be absent.
        process_key: the key with which this process signs.
        tls: whether this process has a certificate: its devices listen with TLS, and it shows it where asked.
    """

    def __init__(
        self,
        host: DeviceHost,
        http: httpx.AsyncClient,
        port: int | None,
        advertise: str | None,
        patience_s: float,
        *,
        process_key: str | None = None,
        tls: bool = False,
    ) -> None:
        self._host = host
        self._http = http
        self._port = port
        self._advertise = advertise
        self._patience_s = patience_s
        self._process_key = process_key
        self._tls = tls
        self._heard = time.monotonic()
        self._told: set[int | str] = set()
        self._heartbeat_s = LONGEST_WAIT_S
        self._latency_s = nan
        self._round_trip_s = nan  # of the latest request that was answered, whichever it was
        self._loading: asyncio.Task[None] | None = None
        self._wanted: tuple[dict[str, Any], dict[int, str]] | None = None

    async def run(self) -> None:
        """Stay in the run until told to leave.

        Raises:
            FleetError: the coordinator was absent for too long, or refuses one of these devices.
            ParityflError: the data of the run cannot be loaded here.
        """
        try:
            await self._join()
            while not await self._report_is_last():
                await self._pause()
        except _OverError:
            log.info("the run is over")
        finally:
            if self._loading is not None:
                self._loading.cancel()

    async def farewell(self) -> None:
        """Say that the devices go, if the coordinator listens."""
        devices = [self._host.report(name, self._latency_s) for name in self._host.devices]
        away = [device.model_copy(update={"available": False, "training": None}) for device in devices]
        with suppress(httpx.HTTPError):
            body = StatusUpdate(devices=away).model_dump(mode="json")
            await self._http.post(STATUS_UPDATE, json=body, timeout=FAREWELL_S)

    async def _join(self) -> None:
        """Register all devices, and begin to load what the run needs unless that is what was loaded last.

        What is loaded is not told before it is known to be this run's: another one may be served here by now.
        """
        await self._register(with_data=False)
        if self._loading is None:
            await self._register(with_data=True)

    async def _register(self, *, with_data: bool) -> None:
        replies = {name: await self._introduce(name, with_data=with_data) for name in self._host.devices}
        last = [*replies.values()][-1]
        self._heartbeat_s = last.heartbeat_s
        wanted = last.config, {reply.index: device_id for device_id, reply in replies.items()}
        if wanted != self._wanted:
            self._wanted = wanted
            if self._loading is not None:
                self._loading.cancel()  # what another run needed must not come in after what this one needs
            self._loading = asyncio.create_task(self._host.load(*wanted))

    async def _introduce(self, device_id: str, *, with_data: bool) -> RegistrationReply:
        introduction = self._host.registration(device_id, self._port, self._advertise, VERSION, with_data=with_data)
        introduction = introduction.model_copy(update={"process_key": self._process_key, "tls": self._tls})
        reply = await self._patiently(REGISTER, introduction, RegistrationReply)
        self._host.assign(device_id, reply)
        return reply

    async def _report_is_last(self) -> bool:
        """Send a status update; return whether the coordinator answered that it is time to leave."""
        devices = [self._host.report(name, self._latency_s) for name in self._host.devices]
        try:
            reply = await self._patiently(STATUS_UPDATE, StatusUpdate(devices=devices), StatusReply)
        except _StrangerError:
            reply = StatusReply(known=False, leave=False, time_s=nan)
        self._latency_s = self._round_trip_s
        self._host.synchronise(reply.time_s)
        if not reply.known and not reply.leave:
            log.warning("the coordinator does not know these devices (any more), or where they are: registering again")
            await self._join()
        return reply.leave

    async def _pause(self) -> None:
        """Wait until the next report is due, or less if the data is loaded before: then say so, and what data that is.

        In this order, since a coordinator may begin with the last device that it waits for.
        """
        wait_s = max(self._heartbeat_s / REPORTS - self._latency_s, 0)
        if self._loading is None:
            await asyncio.sleep(wait_s)
            return
        loading = self._loading
        await asyncio.wait({loading}, timeout=wait_s)
        if loading.done():
            self._loading = None
            loading.result()
            await self._report_is_last()
            if self._loading is None:  # else the report has met another run
                await self._register(with_data=True)

    async def _patiently(self, path: str, message: BaseModel, schema: type[M]) -> M:
        """Post until there is an answer, for as long as the coordinator may be absent."""
        asking = AsyncRetrying(
            retry=retry_if_exception_type(_AbsentError),
            wait=PATIENT,
            before_sleep=self._bear,
        )
        reply: M = await asking(self._post, path, message, schema)
        self._heard = time.monotonic()
        self._told.clear()
        return reply

    def _bear(self, attempt: RetryCallState) -> None:
        """Warn of what is no mere absence, once each; raise once the coordinator was absent for too long."""
        error = attempt.outcome.exception() if attempt.outcome else None
        assert isinstance(error, _AbsentError), "nothing else is asked again"
        if time.monotonic() - self._heard >= self._patience_s:
            what = "no coordinator" if error.remedy == PLAIN_REMEDY else "no use of the coordinator"
            raise FleetError(
                f"{what} at {self._http.base_url} for {self._patience_s:g} s ({error}): {error.remedy}"
            ) from None
        if error.kind is not None and error.kind not in self._told:
            self._told.add(error.kind)
            hint = "" if error.remedy == PLAIN_REMEDY else f"; {error.remedy}"
            log.warning("the coordinator at %s: %s%s; asking again", self._http.base_url, error, hint)

    async def _post(self, path: str, message: BaseModel, schema: type[M]) -> M:
        try:
            answer = await self._http.post(path, json=message.model_dump(mode="json"))
        except httpx.TransportError as error:
            hint = remedy(error, tls=self._http.base_url.scheme == "https", certified=self._tls)
            raise _AbsentError(str(error) or type(error).__name__, hint) from None  # in full: it may end with why
        self._round_trip_s = answer.elapsed.total_seconds()
        if _is_absence(answer):
            said = f"it answers {answer.status_code}: {detail_of(answer.content)}"
            raise _AbsentError(said, status=answer.status_code)
        if answer.status_code == 410:
            raise _OverError
        if answer.status_code == 401 and path != REGISTER:
            raise _StrangerError
        if answer.status_code != 200:
            raise FleetError(f"the coordinator at {self._http.base_url} refuses: {detail_of(answer.content)}")
        try:
            return schema.model_validate_json(answer.content)
        except ValidationError:
            raise FleetError(
                f"what answers at {self._http.base_url} is no coordinator of this version: correct --server"
            ) from None


def _is_absence(answer: httpx.Response) -> bool:
    """Return whether the coordinator cannot answer for now, or something before it, such as a proxy, has answered."""
    own = answer.headers.get("Content-Type", "").startswith(PROBLEM_JSON)
    return answer.status_code >= 500 or answer.status_code in PASSING or (answer.is_client_error and not own)
