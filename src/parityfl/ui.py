"""The page over a folder of runs, finished and running; it reads files and changes none."""

import asyncio
import socket
from asyncio import FIRST_COMPLETED
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from parityfl.core.errors import FolderError
from parityfl.reporting.index import RunIndex
from parityfl.reporting.load import load_run, run_folders
from parityfl.reporting.report import compare_below, comparison_page, run_page
from parityfl.web.problems import ProblemError, install
from parityfl.web.server import on_signals, serving


def create_app(folder: Path, stopped: asyncio.Event | None = None) -> FastAPI:
    """Return the application over the runs below `folder`.

    Args:
        folder: of runs.
        stopped: set when nobody waits any longer for a page that is still being made; None where that never happens.
    """
    app = FastAPI(title="parityfl runs", docs_url=None, redoc_url=None)
    install(app)
    stopped = stopped or asyncio.Event()
    runs = RunIndex(folder, _page_of)
    # Figures are drawn with settings of the whole process (matplotlib's), so one page at a time; the list has none.
    listing, drawing = Lock(), Lock()
    making: dict[str, Future[str]] = {}

    async def page(name: str, make: Callable[[], str], turn: Lock = drawing) -> str:
        try:
            return await _made(_making(making, name, make, turn), stopped)
        except FolderError as error:
            raise ProblemError(404, str(error)) from None

    @app.get("/", response_class=HTMLResponse)
    async def index() -> str:
        """List the runs."""
        return await page("/", runs.page, listing)

    @app.get("/comparison", response_class=HTMLResponse)
    async def comparison() -> str:
        """Compare the runs."""
        return await page("/comparison", lambda: _comparison(folder))

    @app.get("/runs/{name:path}", response_class=HTMLResponse)
    async def run(name: str) -> str:
        """Show one run as far as it is."""
        return await page(f"/runs/{name}", lambda: _run(folder, name))

    return app


async def serve(folder: Path, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    async with serving(create_app(folder, stopped), listening):
        with on_signals(lambda _: stopped.set()):
            await stopped.wait()


def _making(making: dict[str, "Future[str]"], name: str, make: Callable[[], str], turn: Lock) -> "Future[str]":
    """Return what a thread makes in its turn; whoever asks for a page that is being made gets that one."""
    under_way = making.get(name)
    if under_way is not None:
        return under_way
    future: Future[str] = Future()
    future.set_running_or_notify_cancel()  # from here on nobody can cancel it under the thread's hands
    making[name] = future
    future.add_done_callback(lambda _: making.pop(name))
    Thread(target=_fulfil, args=(future, make, turn), name="page", daemon=True).start()
    return future


async def _made(future: "Future[str]", stopped: asyncio.Event) -> str:
    """Return a page once it is made, unless the server is stopped before.

    Raises:
        ProblemError: it is. The thread is left behind: it changes nothing, and the process does not wait for it.
    """
    page = asyncio.wrap_future(future)
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({page, stopping}, return_when=FIRST_COMPLETED)
    stopping.cancel()
    if not page.done():
        page.cancel()
        raise ProblemError(503, "the server is being stopped: start parityfl ui again for this page")
    return page.result()


def _fulfil(future: "Future[str]", make: Callable[[], str], turn: Lock) -> None:
    try:
        with turn:
            future.set_result(make())
    except Exception as error:
        future.set_exception(error)


def _run(folder: Path, name: str) -> str:
    if folder / name not in run_folders(folder):
        raise FolderError(f"there is no run {name!r} here; / lists those that are")
    return run_page(load_run(folder / name))


def _comparison(folder: Path) -> str:
    return comparison_page(folder, compare_below(folder), _page_of)


def _page_of(folder: Path, run: Path) -> str:
    return f"/runs/{run.relative_to(folder).as_posix()}"
