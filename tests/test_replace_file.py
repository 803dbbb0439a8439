import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parityfl.files import replace_file


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


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    replace_file(path, b"first")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
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


def test_a_disk_that_is_full_is_not_left_fuller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "state.json", b"large", durable=True)
    assert list(tmp_path.iterdir()) == []
