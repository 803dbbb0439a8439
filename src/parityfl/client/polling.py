"""For devices that cannot be called: they ask the coordinator for their requests, and send the answers after them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from operator import not_

import httpx
from starlette.types import ASGIApp
from tenacity import AsyncRetrying, retry_if_exception_type, retry_if_result

from parityfl.client.absence import PATIENT
from parityfl.web.problems import detail_of
from parityfl.wire.digests import CONTENT_DIGEST, is_intact
from parityfl.wire.paths import RESULT, WORK
from parityfl.wire.schemas import WORK_ID, WORK_PATH, WORK_UNWANTED, WorkRequest

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long the coordinator may take to answer: it does within a heartbeat, and a model takes its time."""
DESCRIBING = ("Content-Type", CONTENT_DIGEST)
"""What is told of a request, and of a result beside its status."""
FINAL = (404, 413)
"""Answers to a result after which it is not sent again: nobody waits for it, or it is too large."""


@asynccontextmanager
async def polling(app: ASGIApp, http: httpx.AsyncClient, device_ids: Iterable[str]) -> AsyncIterator[None]:
    """Poll while the context is open.

    Args:
        app: the devices' application, which answers the requests as if it had been called.
        http: calls the coordinator.
        device_ids: the devices' names.
    """
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://device") as local:
        poller = asyncio.create_task(_Poller(local, http, list(device_ids)).run(), name="polling")
        try:
            yield
        finally:
            poller.cancel()
            with suppress(asyncio.CancelledError):
                await poller


class _Poller:
    """Has one request for work under way at any time, also while its devices work."""

    def __init__(self, local: httpx.AsyncClient, http: httpx.AsyncClient, device_ids: list[str]) -> None:
        self._local = local
        self._http = http
        self._device_ids = device_ids
        self._held: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Poll until cancelled, then drop what is under way."""
        try:
            while True:
                await _until_done(self._poll)
        finally:
            for task in self._held.values():
                task.cancel()
            await asyncio.gather(*self._held.values(), return_exceptions=True)

    async def _poll(self) -> bool:
        """Ask once; return whether the coordinator had an answer. Work is done in a task of its own.

        An answer that got lost comes again: it is not among `holding`.
        """
        request = WorkRequest(devices=self._device_ids, holding=list(self._held))
        answer = await self._http.post(WORK, json=request.model_dump(mode="json"), timeout=WAIT_S)
        for unwanted in answer.headers.get(WORK_UNWANTED, "").split():
            if unwanted in self._held:
                self._held[unwanted].cancel()
        if await _is_work(answer):
            work_id = answer.headers[WORK_ID]
            self._held[work_id] = asyncio.create_task(self._do(work_id, answer))
        elif answer.status_code != 204:
            log.debug("no work: %s", detail_of(answer.content))
            return False
        return True

    async def _do(self, work_id: str, work: httpx.Response) -> None:
        try:
            method = "POST" if work.content else "GET"
            path, about = work.headers[WORK_PATH], _described(work)
            result = await self._local.request(method, path, content=work.content, headers=about)
            await _until_done(partial(self._deliver, work_id, result))
        finally:
            self._held.pop(work_id, None)

    async def _deliver(self, work_id: str, result: httpx.Response) -> bool:
        """Send a result; return whether the coordinator has taken it, or wants it no more."""
        answer = await self._http.post(
            RESULT.format(work_id=work_id),
            params={"status": result.status_code},
            content=result.content,
            headers=_described(result),
            timeout=WAIT_S,
        )
        return answer.is_success or answer.status_code in FINAL


async def _until_done(step: Callable[[], Awaitable[bool]]) -> None:
    """Take a step again until it reaches the coordinator and returns true, with longer and longer waits between."""
    undone = retry_if_exception_type(httpx.HTTPError) | retry_if_result(not_)
    await AsyncRetrying(retry=undone, wait=PATIENT)(step)


async def _is_work(answer: httpx.Response) -> bool:
    """Return whether an answer carries a request, as it was sent; one that was changed on the way counts as lost."""
    if answer.status_code != 200 or WORK_ID not in answer.headers:
        return False
    local = answer.headers.get(WORK_PATH, "").startswith("/")
    return local and await is_intact(answer.headers.get(CONTENT_DIGEST), answer.content)


def _described(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[name] for name in DESCRIBING if name in answer.headers}
