"""How the devices of the `http` engine are shared out among processes, and what is heard of these."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from types import SimpleNamespace

import pytest

from parityfl.config import Config
from parityfl.core.errors import ConfigError
from parityfl.experiments.processes import PIECE_BYTES, groups, pass_on
from parityfl.wire.schemas import MAX_DEVICES
from parityfl.workers.cores import CORES


@pytest.mark.parametrize(
    ("engine", "cores", "sizes"),
    [({}, "2", [3, 4]), ({}, "1", [7]), ({}, "9", [1] * 7), ({"processes": 3}, "1", [2, 2, 3])],
    ids=["a core each", "one core", "more cores than devices", "as many as asked"],
)
def test_a_process_a_core_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, engine: dict[str, int], cores: str, sizes: list[int]
) -> None:
    monkeypatch.setenv(CORES, cores)
    config = Config(population={"clients": 7, "per_round": 2}, engine={"name": "http", **engine})
    shared = groups(config)
    assert [len(group) for group in shared] == sizes
    assert [name for group in shared for name in group] == config.device_ids


def test_a_process_has_no_more_devices_than_a_report_takes() -> None:
    population = {"clients": 3 * MAX_DEVICES, "per_round": 2}
    enough = Config(population=population, engine={"name": "http", "processes": 3})
    assert [len(group) for group in groups(enough)] == [MAX_DEVICES] * 3
    with pytest.raises(ConfigError, match=r"engine\.processes = 2 .* 30000: .* 10,000 .* to 3 or more"):
        groups(Config(population=population, engine={"name": "http", "processes": 2}))


def heard(script: str) -> str:
    """Run a child and pass on what it says; return its last line."""

    async def main() -> str:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", f"import sys; {script}", stderr=PIPE)
        last, _ = await asyncio.gather(pass_on(process), process.wait())
        return last

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "last"),
    [
        ("one\ntwo\n", "two"),
        ("parityfl: it failed\n\n", "it failed"),
        ("one\nno end", "no end"),
        ("", ""),
    ],
    ids=["lines", "an empty one", "without an end", "nothing"],
)
def test_what_a_child_says_is_passed_on_and_its_last_line_is_kept(
    capsys: pytest.CaptureFixture[str], said: str, last: str
) -> None:
    assert heard(f"sys.stderr.write({said!r})") == last
    assert capsys.readouterr().err == said


def test_a_progress_bar_may_go_on_for_long_without_a_line_that_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert heard(f"[sys.stderr.write(f'\\r{{n}} images') for n in range({PIECE_BYTES})]") == f"{PIECE_BYTES - 1} images"
    assert capsys.readouterr().err == "".join(f"\r{n} images" for n in range(PIECE_BYTES))


def test_a_line_without_an_end_is_passed_on_in_pieces_that_spoil_no_letter(capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of two bytes after one of one: each piece of an even length ends within a letter."""
    heard(f"sys.stderr.buffer.write(('a' + 'é' * {2 * PIECE_BYTES}).encode())")
    assert capsys.readouterr().err == "a" + "é" * (2 * PIECE_BYTES)


def test_lines_of_two_children_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    """Each child says the half of its line and waits until the other one has: what is not whole waits as well."""

    async def main() -> None:
        streams = [asyncio.StreamReader() for _ in range(2)]
        children = [asyncio.create_task(pass_on(SimpleNamespace(stderr=stream))) for stream in streams]  # type: ignore[arg-type]
        for said in (b"begun, ", b"ended\n"):
            for stream in streams:
                stream.feed_data(said)
            for _ in range(5):
                await asyncio.sleep(0)
        for stream in streams:
            stream.feed_eof()
        assert await asyncio.gather(*children) == ["begun, ended"] * 2

    asyncio.run(main())
    assert capsys.readouterr().err == "begun, ended\n" * 2
