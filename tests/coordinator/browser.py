"""A real browser, asked over its own debugging protocol what a page shows."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from network import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")

Page = Callable[[str], Awaitable[Any]]
"""Returns what an expression of JavaScript is on the page."""


@asynccontextmanager
async def showing(url: str) -> AsyncIterator[Page]:
    """Open a page in a browser that is gone afterwards."""
    assert CHROMIUM is not None, "tests that need a browser skip without one"
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        port = Path(profile) / "DevToolsActivePort"
        quiet = asyncio.subprocess.DEVNULL
        browser = await asyncio.create_subprocess_exec(
            CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", url, stdout=quiet, stderr=quiet
        )
        try:
            await until(lambda: port.exists() and "\n" in port.read_text())
            base = f"http://127.0.0.1:{port.read_text().split()[0]}"
            async with aiohttp.ClientSession(base) as http, http.ws_connect(await _first_page(http)) as protocol:
                yield _evaluating(protocol)
        finally:
            browser.kill()
            await browser.wait()


async def _first_page(http: aiohttp.ClientSession) -> str:
    """Return where to speak with the page, once there is one: the port is open before."""
    while True:
        async with http.get("/json/list") as answer:
            for each in await answer.json():
                if each["type"] == "page":
                    return str(each["webSocketDebuggerUrl"])
        await asyncio.sleep(0.05)


async def shows(page: Page, expression: str, wanted: Any) -> None:
    """Return once an expression is what is wanted; the test's own time limit says when it never is."""
    while (found := await page(expression)) != wanted:
        print(f"{expression} is {found!r}")  # what a test that fails shows
        await asyncio.sleep(0.05)


def _evaluating(protocol: aiohttp.ClientWebSocketResponse) -> Page:
    numbers = count(1)

    async def evaluate(expression: str) -> Any:
        number, asked = next(numbers), {"expression": expression, "returnByValue": True}
        await protocol.send_str(json.dumps({"id": number, "method": "Runtime.evaluate", "params": asked}))
        while (answer := await protocol.receive_json()).get("id") != number:
            pass
        return answer.get("result", {}).get("result", {}).get("value")  # an error while it goes to another page

    return evaluate
