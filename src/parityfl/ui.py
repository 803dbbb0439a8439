"""The page over a folder of runs, finished and running; it reads files and changes none."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from parityfl.core.errors import FolderError
from parityfl.reporting.load import load_run
from parityfl.reporting.report import compare_below, comparison_page, index_page, run_folders, run_page
from parityfl.web.problems import ProblemError, install
from parityfl.web.server import on_signals, serving


def create_app(folder: Path) -> FastAPI:
    """Return the application over the runs below `folder`."""
    app = FastAPI(title="parityfl runs", docs_url=None, redoc_url=None)
    install(app)
    # Figures are drawn under a lock of the whole process (matplotlib's settings), so one at a time.
    drawing = ThreadPoolExecutor(1, thread_name_prefix="draw")

    async def page(draw: Callable[[], str]) -> str:
        try:
            return await asyncio.get_running_loop().run_in_executor(drawing, draw)
        except FolderError as error:
            raise ProblemError(404, str(error)) from None

    @app.get("/", response_class=HTMLResponse)
    async def index() -> str:
        """List the runs."""
        return await page(lambda: index_page(folder, _page_of))

    @app.get("/comparison", response_class=HTMLResponse)
    async def comparison() -> str:
        """Compare the runs."""
        return await page(lambda: _comparison(folder))

    @app.get("/runs/{name:path}", response_class=HTMLResponse)
    async def run(name: str) -> str:
        """Show one run as far as it is."""
        if folder / name not in run_folders(folder):
            raise ProblemError(404, f"there is no run {name!r} here; / lists those that are")
        return await page(lambda: run_page(load_run(folder / name)))

    return app


async def serve(folder: Path, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    async with serving(create_app(folder), listening):
        with on_signals(lambda _: stopped.set()):
            await stopped.wait()


def _comparison(folder: Path) -> str:
    runs, comparison = compare_below(folder)
    return comparison_page(folder, runs, comparison, _page_of)


def _page_of(folder: Path, run: Path) -> str:
    return f"/runs/{run.relative_to(folder).as_posix()}"
