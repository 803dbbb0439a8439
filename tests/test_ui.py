"""The page over a folder of runs: a list, each run as far as it is, a comparison, and nothing outside the folder."""

import asyncio
import html
import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import httpx
import pytest

from parityfl.reporting.index import RunIndex
from parityfl.ui import create_app, serve
from parityfl.web.server import bind, port_of

sys.path.insert(0, str(Path(__file__).parent / "reporting"))

from folders import write_run


def get(folder: Path, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(folder)), base_url="http://ui") as client:
            return await client.get(path)

    return asyncio.run(ask())


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs" / "first")
    write_run(tmp_path / "runs" / "second")
    (tmp_path / "runs" / "second" / "summary.json").unlink()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.json").write_text(json.dumps({"seed": 0}))
    return tmp_path / "runs"


def test_index_lists_finished_and_running(runs: Path) -> None:
    page = get(runs, "/").text
    assert 'href="/runs/first"' in page
    assert 'href="/runs/second"' in page
    assert '<th scope="col" class="text">Method</th>' in page  # words to the left, figures to the right
    assert '<td class="text">fedavg</td><td>0</td><td class="text">done</td>' in page


def test_a_run_that_cannot_be_read_is_named_beside_the_others(runs: Path) -> None:
    write_run(runs / "third")
    (runs / "second" / "config.json").write_text("{")
    for page in ("/", "/comparison"):
        answer = get(runs, page)
        assert answer.status_code == 200
        assert "second/config.json is not JSON" in answer.text
        assert re.findall(r'href="/runs/([^"]*)"', answer.text) == ["first", "third"]
    assert get(runs, "/runs/second").status_code == 404


def test_a_list_of_runs_none_of_which_can_be_read_names_them(tmp_path: Path) -> None:
    (write_run(tmp_path / "only") / "rounds.csv").write_text("")
    page = get(tmp_path, "/").text
    assert "only/rounds.csv cannot be read" in page
    assert "no run here yet" not in page
    assert get(tmp_path, "/comparison").status_code == 404


def test_each_run_has_a_page(runs: Path) -> None:
    for name in ("first", "second"):
        answer = get(runs, f"/runs/{name}")
        assert answer.status_code == 200
        assert "<svg" in answer.text


def test_every_link_leads_somewhere(runs: Path) -> None:
    write_run(runs / "50 % #1" / "third")
    assert "Comparison" in get(runs, "/comparison").text
    for page, linked in (("/", 4), ("/comparison", 3)):
        links = re.findall(r'<a href="(/[^"]*)"', get(runs, page).text)
        assert len(links) == linked
        assert {get(runs, html.unescape(link)).status_code for link in links} == {200}


@pytest.mark.parametrize("name", ["third", "../secret", "%2e%2e/secret", ""])
def test_nothing_else_is_served(runs: Path, name: str) -> None:
    answer = get(runs, f"/runs/{name}")
    assert answer.status_code == 404


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "no run here yet" in get(tmp_path, "/").text
    assert get(tmp_path, "/comparison").status_code == 404


def test_a_list_that_is_asked_for_again_reads_what_has_changed(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run neither its clients, of which there may be millions of rows, nor the rest where it is as it was."""
    read: list[str] = []

    def bytes_of(file: Path) -> bytes:
        read.append(str(file.relative_to(runs)))
        with file.open("rb") as handle:
            return handle.read()

    def rounds(page: str) -> list[str]:
        return re.findall(r"<td>(\d of 8)</td>", page)

    monkeypatch.setattr(Path, "read_bytes", bytes_of)
    first = ["first/config.json", "first/rounds.csv", "first/summary.json"]
    index = RunIndex(runs, lambda *_: "")
    assert rounds(index.page()) == ["8 of 8", "8 of 8"]
    assert read == [*first, "second/config.json", "second/rounds.csv"]
    read.clear()
    assert rounds(index.page()) == ["8 of 8", "8 of 8"]
    assert read == []
    lines = (runs / "second" / "rounds.csv").read_text().splitlines(keepends=True)
    (runs / "second" / "rounds.csv").write_text("".join(lines[:4]))
    assert rounds(index.page()) == ["8 of 8", "3 of 8"]
    assert read == ["second/config.json", "second/rounds.csv"]
    shutil.rmtree(runs / "second")
    (runs / "first" / "config.json").write_text("{")
    assert "first/config.json is not JSON" in index.page()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Event, Event]]:
    """Have the comparison take until the second event is set; the first one says that it is being made."""
    begun, ended = Event(), Event()

    def draw(*_: object) -> str:
        begun.set()
        assert ended.wait(60)
        return "drawn"

    monkeypatch.setattr("parityfl.ui.comparison_page", draw)
    yield begun, ended
    ended.set()


def test_a_slow_comparison_does_not_hold_up_the_list(runs: Path, slow: tuple[Event, Event]) -> None:
    begun, ended = slow

    async def ask() -> tuple[str, str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(runs)), base_url="http://ui") as client:
            comparison = asyncio.create_task(client.get("/comparison"))
            assert await asyncio.to_thread(begun.wait, 60)
            try:
                listed = await asyncio.wait_for(client.get("/"), 30)
            finally:
                ended.set()
            return listed.text, (await comparison).text

    listed, compared = asyncio.run(ask())
    assert 'href="/runs/first"' in listed
    assert compared == "drawn"


def test_who_asks_for_a_page_that_is_being_made_gets_that_one(
    runs: Path, slow: tuple[Event, Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that takes longer than those who look at it have patience is not made once for each of their attempts."""
    begun, ended = slow
    compared: list[Path] = []
    monkeypatch.setattr("parityfl.ui.compare_below", compared.append)

    async def ask() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(runs)), base_url="http://ui") as client:
            first = asyncio.create_task(client.get("/comparison"))
            assert await asyncio.to_thread(begun.wait, 60)
            others = [asyncio.create_task(client.get("/comparison")) for _ in range(3)]
            for _ in range(100):  # they come to wait for the page without waiting for anything else
                await asyncio.sleep(0)
            ended.set()
            pages = [(await task).text for task in (first, *others)]
            return [*pages, (await client.get("/comparison")).text]

    assert asyncio.run(ask()) == ["drawn"] * 5
    assert len(compared) == 2


def test_a_server_that_is_stopped_while_it_makes_a_page_says_so(
    runs: Path, slow: tuple[Event, Event], caplog: pytest.LogCaptureFixture
) -> None:
    begun, _ = slow
    listening = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{port_of(listening)}/comparison"

    async def stop() -> httpx.Response:
        server = asyncio.create_task(serve(runs, listening))
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            asked = asyncio.create_task(client.get(url))
            assert await asyncio.to_thread(begun.wait, 60)
            os.kill(os.getpid(), signal.SIGINT)
            answer = await asked
        await server
        return answer

    with caplog.at_level(logging.WARNING):
        answer = asyncio.run(stop())
    assert answer.status_code == 503
    assert "start parityfl ui again" in answer.json()["detail"]
    assert caplog.records == []
