import weakref

import numpy as np
import pytest

from parityfl.core.errors import UnfinishedError
from parityfl.training.memory import ClientMemory, LostMemoryError


def vector(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def versions(folder, client: int = 0) -> list[int]:
    return sorted(int(file.stem) for file in (folder / str(client)).glob("*.safetensors"))


@pytest.mark.parametrize("kept", ["memory", "folder"])
def test_a_round_that_did_not_count_does_not_push_out_the_one_that_did(tmp_path, kept) -> None:
    """Round 3 counts; 5 and 8, both made from it, are late and do not: what was kept in 3 is still there."""
    memory = ClientMemory(tmp_path if kept == "folder" else None)
    for number, base in ((3, 0), (5, 3), (8, 3)):
        memory.store(0, number, vector(number), base)
    np.testing.assert_array_equal(memory.recall(0, 3), vector(3))
    assert memory.recall(0, 0) is None


def test_the_version_before_the_base_stays_for_a_coordinator_that_goes_back_a_round(tmp_path) -> None:
    """Trained in 7, 8 and 9; the checkpoint of round 8 is damaged, so that round 8 begins again, from 7."""
    memory = ClientMemory(tmp_path)
    for number in (6, 7, 8, 9):
        memory.store(0, number, vector(number), base=number - 1)
    assert versions(tmp_path) == [7, 8, 9]
    again = ClientMemory(tmp_path)
    np.testing.assert_array_equal(again.recall(0, 7), vector(7))
    again.store(0, 8, vector(8), base=7)
    assert versions(tmp_path) == [7, 8]


def in_memory(memory: ClientMemory, *kept: tuple[int, int, int]) -> list[bool]:
    """Keep vectors as of (client, round, base), and return which of them are still in memory."""
    seen = []
    for client, number, base in kept:
        memory.store(client, number, each := vector(100 * client + number), base)
        seen.append(weakref.ref(each))
        del each
    return [each() is not None for each in seen]


def test_with_a_folder_only_the_newest_versions_are_in_memory_and_only_so_many(tmp_path, monkeypatch) -> None:
    """Two vectors of three float32 may be: those of the clients that were last here."""
    monkeypatch.setattr("parityfl.training.memory.HELD_BYTES", 24)
    memory = ClientMemory(tmp_path)
    kept = [(0, 1, 0), (1, 1, 0), (0, 2, 1), (2, 2, 0)]
    assert in_memory(memory, *kept) == [False, False, True, True]
    for client, number, _ in kept:
        np.testing.assert_array_equal(memory.recall(client, number), vector(100 * client + number))
    assert memory.held(1, 1) is None
    np.testing.assert_array_equal(memory.held(2, 2), vector(202))


def test_with_a_folder_large_vectors_are_not_in_memory_at_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("parityfl.training.memory.HELD_BYTES", 11)
    memory = ClientMemory(tmp_path)
    assert in_memory(memory, (0, 1, 0), (1, 1, 0)) == [False, False]
    np.testing.assert_array_equal(memory.recall(0, 1), vector(1))


def test_what_a_killed_process_left_half_written_is_not_read(tmp_path) -> None:
    memory = ClientMemory(tmp_path)
    memory.store(0, 1, vector(1), 0)
    (tmp_path / "0" / "2.safetensors.part").write_bytes(b"torn")
    again = ClientMemory(tmp_path)
    np.testing.assert_array_equal(again.recall(0, 1), vector(1))
    with pytest.raises(LostMemoryError):
        again.recall(0, 2)
    again.store(0, 3, vector(3), 1)
    np.testing.assert_array_equal(ClientMemory(tmp_path).recall(0, 3), vector(3))


@pytest.mark.parametrize("position", [0, 30, -1])
def test_a_flipped_bit_is_noticed_and_names_client_round_and_file(tmp_path, position: int) -> None:
    ClientMemory(tmp_path).store(4, 2, vector(1), 0)
    file = tmp_path / "4" / "2.safetensors"
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)
    with pytest.raises(LostMemoryError, match=r"client 4 kept in round 2 is lost: .*2\.safetensors"):
        ClientMemory(tmp_path).recall(4, 2)


def test_a_disk_that_refuses_loses_nothing_and_says_so(tmp_path) -> None:
    """A file stands where the folder of client 1 should be; client 0 keeps what it had."""
    memory = ClientMemory(tmp_path)
    memory.store(0, 1, vector(1), 0)
    (tmp_path / "1").write_text("")
    with pytest.raises(UnfinishedError, match=r"client 1 keeps cannot be written.*make room and go on with --resume"):
        memory.store(1, 1, vector(1), 0)
    np.testing.assert_array_equal(ClientMemory(tmp_path).recall(0, 1), vector(1))


def test_a_missing_version_is_an_error_that_says_what_is_missing(tmp_path) -> None:
    with pytest.raises(LostMemoryError, match=r"client 4 kept in round 2 is lost: .*missing"):
        ClientMemory(tmp_path).recall(4, 2)
    with pytest.raises(LostMemoryError, match="--state"):
        ClientMemory().recall(4, 2)
