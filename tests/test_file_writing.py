import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parityfl.files import append_line, replace_file, whole_lines


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has no room for what is to be durable."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    (tmp_path / "state.json.part").write_text("what a killed process had left")
    replace_file(path, b"first")
    replace_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_shared_file_is_whole_while_two_write_it(tmp_path: Path) -> None:
    path, whole = tmp_path / "report.html", {bytes([letter]) * 2**22 for letter in b"ab"}

    def write(data: bytes) -> None:
        for _ in range(20):
            replace_file(path, data, shared=True)

    write(min(whole))
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, data) for data in whole]
        while not all(writer.done() for writer in writers):
            assert path.read_bytes() in whole
    for writer in writers:
        writer.result()
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_never_to_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "key"
    (tmp_path / "key.part").touch(0o644)
    replace_file(path, b"secret", 0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.usefixtures("full_disk")
def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace_file(path, b"first")
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"second", durable=True)
    assert path.read_bytes() == b"first"


def test_durable_is_the_content_before_the_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced, fsync = tmp_path / "state.json", [], os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    replace_file(path, b"kept")
    assert synced == []
    replace_file(path.with_name("other"), b"kept", durable=True)
    path.unlink()
    synced.clear()
    replace_file(path, b"kept", durable=True)
    assert synced == [(False, False), (True, True)]


def test_a_file_system_that_syncs_no_folders_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    replace_file(tmp_path / "state.json", b"kept", durable=True)
    assert (tmp_path / "state.json").read_bytes() == b"kept"


@pytest.mark.usefixtures("full_disk")
def test_a_disk_that_is_full_is_not_left_fuller(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "state.json", b"large", durable=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_longer_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "roster.jsonl"
    append_line(path, b"one", 0o600, durable=True)
    append_line(path, b"two")
    assert path.read_bytes() == b"one\ntwo\n"
    assert whole_lines(path) == [b"one", b"two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("before", [b"", b"one\n", b"one\ntwo\n"])
@pytest.mark.parametrize("torn", [b"", b"x", b"xyz"])
def test_a_line_that_is_not_whole_never_counted(before: bytes, torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "roster.jsonl"
    path.write_bytes(before + torn)
    assert whole_lines(path) == before.splitlines()
    append_line(path, b"last")
    assert path.read_bytes() == before + b"last\n"


@pytest.mark.usefixtures("full_disk")
def test_a_line_that_cannot_be_written_leaves_those_before(tmp_path: Path) -> None:
    path = tmp_path / "roster.jsonl"
    append_line(path, b"one")
    with pytest.raises(OSError, match="No space left"):
        append_line(path, b"two", durable=True)
    assert path.read_bytes() == b"one\n"


def test_a_line_for_part_of_which_there_is_room_is_not_written(tmp_path: Path) -> None:
    """The process may write files of six bytes, of which the first line takes four."""
    program = (
        "import pathlib, resource, signal, sys; from parityfl.files import append_line\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (6, 6))\n"
        "append_line(pathlib.Path(sys.argv[1]), b'two')"
    )
    path = tmp_path / "roster.jsonl"
    append_line(path, b"one")
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert "No space left on device" in done.stderr
    assert path.read_bytes() == b"one\n"
