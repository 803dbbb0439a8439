"""Bodies are read whole, within their limit, and with the memory of a few, however many there are."""

import asyncio
import errno
import gc
import mmap
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from parityfl.core.errors import UnfinishedError
from parityfl.web.bodies import Bodies, Body, set_aside
from parityfl.web.problems import TooLargeError
from parityfl.wire.digests import CONTENT_DIGEST, content_digest, digest_of
from parityfl.wire.offload import SMALL_BYTES

LARGE = 4 * SMALL_BYTES


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def read(bodies: Bodies, data: bytes, declared: int | None = None, limit: int = 2 * LARGE) -> Body:
    headers = {} if declared is None else {"Content-Length": str(declared)}
    return asyncio.run(bodies.read(pieces(data), limit, headers, "model.name"))


def shared_file(body: Body) -> object:
    assert isinstance(body.content, memoryview)
    return body.content.obj


def lies_in_a_file(body: Body) -> bool:
    return isinstance(body.content, memoryview) and isinstance(body.content.obj, mmap.mmap)


@pytest.mark.parametrize("size", [0, 1, 999, SMALL_BYTES, SMALL_BYTES + 1, LARGE])
@pytest.mark.parametrize("budget", [0, 2 * LARGE])
@pytest.mark.parametrize("tells", [True, False])
def test_a_body_is_read_as_it_was_sent(size: int, budget: int, tells: bool, tmp_path: Path) -> None:
    bodies, data = Bodies(tmp_path, budget), content(size)
    kept = [read(bodies, data, size if tells else None) for _ in range(3)]
    for body in kept:
        assert bytes(body.content) == data
        assert body.digest == digest_of(data)
        assert body.intact is None
        set_aside(body.content)
        assert bytes(body.content) == data
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("budget", [0, 2 * LARGE])
@pytest.mark.parametrize("size", [SMALL_BYTES, LARGE])
def test_a_body_is_hashed_by_the_parts_that_it_tells(size: int, budget: int) -> None:
    """What came has other parts than were told: its digest is of those that came, and is not the one that was told."""
    data, bodies = content(size), Bodies(buffered=budget)
    kept = [read(bodies, data, size)]  # has the buffer that there is always
    for came in (data, data[:-1]):
        told = content_digest(digest_of(data, (1500, size - 1500)), (1500, size - 1500))
        headers = {"Content-Length": str(len(came)), CONTENT_DIGEST: told}
        kept.append(asyncio.run(bodies.read(pieces(came), size, headers)))
        assert kept[-1].digest == digest_of(came, (1500, size - 1500))
        assert kept[-1].intact == (came == data)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell what of a file is in memory")
def test_what_was_read_of_a_file_leaves_memory(tmp_path: Path) -> None:
    bodies, data = Bodies(tmp_path, buffered=0), content(LARGE)
    first, second = read(bodies, data, LARGE), read(bodies, data, LARGE)  # the first has the buffer
    vector = np.frombuffer(second.content, dtype=np.uint8)[4:]
    total = int(vector.sum())
    before = psutil.Process().memory_info().shared
    set_aside(vector)
    assert before - psutil.Process().memory_info().shared > LARGE // 2
    assert int(vector.sum()) == total
    assert bytes(first.content) == data


@pytest.mark.parametrize(("limit", "declared"), [(6, None), (6, 7), (LARGE, LARGE + 1), (LARGE, 10**30), (LARGE, None)])
def test_more_than_the_limit_is_refused(limit: int, declared: int | None) -> None:
    with pytest.raises(TooLargeError, match=rf"more than the {limit} bytes .*model\.name"):
        read(Bodies(), content(limit + 1), declared, limit)


def test_a_length_that_is_none_is_not_believed() -> None:
    for declared in ("-1", "1e9", "", "many", "\u00b2"):
        body = asyncio.run(Bodies().read(pieces(b"seven b"), 100, {"Content-Length": declared}))
        assert bytes(body.content) == b"seven b"


def test_a_body_that_ends_early_is_what_has_come() -> None:
    assert bytes(read(Bodies(), content(LARGE - 1), LARGE).content) == content(LARGE - 1)


def test_those_that_find_no_buffer_lie_in_files() -> None:
    bodies = Bodies(buffered=2 * LARGE)
    kept = [read(bodies, content(LARGE, seed), LARGE) for seed in range(5)]
    assert [lies_in_a_file(body) for body in kept] == [False, False, True, True, True]
    assert [bytes(body.content) for body in kept] == [content(LARGE, seed) for seed in range(5)]


def test_small_ones_lie_in_memory_as_long_as_there_is_room() -> None:
    """Two of them, until nobody refers to one; those in files share one, which they leave like any other."""
    bodies = Bodies(buffered=2 * SMALL_BYTES)
    kept = [read(bodies, content(SMALL_BYTES - 1, seed)) for seed in range(4)]
    assert [lies_in_a_file(body) for body in kept] == [False, False, True, True]
    assert [bytes(body.content) for body in kept] == [content(SMALL_BYTES - 1, seed) for seed in range(4)]
    assert [body.digest for body in kept] == [digest_of(content(SMALL_BYTES - 1, seed)) for seed in range(4)]
    assert shared_file(kept[2]) is shared_file(kept[3])
    held = np.frombuffer(kept[0].content, np.uint8)[10:20]
    del kept[:1]
    assert lies_in_a_file(read(bodies, content(10_000)))
    del held
    assert not lies_in_a_file(read(bodies, content(10_000)))


def test_a_small_vector_waits_in_a_file_where_memory_is_taken() -> None:
    bodies = Bodies(buffered=2**16)
    vectors = [np.full(2**13, number, np.float32) for number in range(4)]
    waiting = [bodies.lay_aside(vector, bytearray(8)) for vector in vectors]
    assert [kept is vector for kept, vector in zip(waiting, vectors, strict=True)] == [True, True, False, False]
    for kept, vector in zip(waiting, vectors, strict=True):
        np.testing.assert_array_equal(kept, vector)


def test_files_that_are_shared_follow_one_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("parityfl.web.bodies._SHARED_FILE_BYTES", 2 * SMALL_BYTES)
    bodies, size = Bodies(tmp_path, buffered=0), SMALL_BYTES - 1
    kept = [read(bodies, content(size, seed), size) for seed in range(5)]
    assert [bytes(body.content) for body in kept] == [content(size, seed) for seed in range(5)]
    assert len({id(shared_file(body)) for body in kept}) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_begun_takes_nothing_from_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parityfl.web.bodies._SHARED_FILE_BYTES", 2 * SMALL_BYTES)
    bodies, size = Bodies(buffered=0), SMALL_BYTES // 2

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    first = read(bodies, content(size, 1), size)
    read(bodies, content(SMALL_BYTES, 2), SMALL_BYTES)
    with monkeypatch.context() as full:
        full.setattr(mmap, "mmap", refused)
        with pytest.raises(UnfinishedError, match="Cannot allocate memory"):
            read(bodies, content(SMALL_BYTES, 2), SMALL_BYTES)
    assert bytes(read(bodies, content(size, 3), size).content) == content(size, 3)
    assert bytes(first.content) == content(size, 1)


def test_a_buffer_is_used_again_when_no_view_of_it_is_left() -> None:
    """An array that an aggregator still holds is never written over."""
    bodies = Bodies(buffered=LARGE)
    body = read(bodies, content(LARGE, 1), LARGE)
    place, held = body_address(body), np.frombuffer(body.content, np.uint8)[10:20]
    del body
    gc.collect()
    assert lies_in_a_file(read(bodies, content(LARGE, 2), LARGE))
    assert held.tobytes() == content(LARGE, 1)[10:20]
    del held
    gc.collect()
    assert body_address(read(bodies, content(LARGE, 3), LARGE)) == place


def test_buffers_of_another_size_make_room() -> None:
    bodies = Bodies(buffered=2 * LARGE)
    read(bodies, content(LARGE), LARGE)
    gc.collect()
    assert not lies_in_a_file(read(bodies, content(2 * LARGE), 2 * LARGE))


@pytest.mark.parametrize("size", [0, 10, SMALL_BYTES // 4 + 1])
def test_a_vector_that_waits_lies_in_a_file_if_it_is_large(size: int, tmp_path: Path) -> None:
    vector = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    waiting = Bodies(tmp_path).lay_aside(vector, bytearray(8))
    np.testing.assert_array_equal(waiting, vector)
    assert np.shares_memory(waiting, vector) == (0 < vector.nbytes <= SMALL_BYTES)
    assert list(tmp_path.iterdir()) == []
    if vector.nbytes > SMALL_BYTES:
        with pytest.raises(UnfinishedError, match="gone cannot be written"):
            Bodies(tmp_path / "gone").lay_aside(vector, bytearray(8))


def test_a_vector_that_is_a_view_waits_where_its_body_is(tmp_path: Path) -> None:
    body = read(Bodies(), content(LARGE), LARGE)
    vector = np.frombuffer(body.content, np.float32)[2:]
    assert Bodies(tmp_path / "gone").lay_aside(vector, body.content) is vector


def test_a_folder_that_takes_nothing_is_named(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path / "gone", buffered=0)
    kept = read(bodies, content(LARGE), LARGE)
    with pytest.raises(UnfinishedError, match="gone cannot be written"):
        read(bodies, content(LARGE), LARGE)
    assert len(kept.content) == LARGE


def body_address(body: Body) -> int:
    return np.frombuffer(body.content, np.uint8).ctypes.data
