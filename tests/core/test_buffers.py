from threading import Thread

import numpy as np
import pytest

from parityfl.core.aggregation.combine import WeightedSum, fold
from parityfl.core.buffers import Buffers, empty_vector

SIZE = 2**16


def place_of(buffer: memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)


def lent(buffers: Buffers, size: int = SIZE) -> memoryview:
    buffer = buffers.lend(size)
    assert buffer is not None
    return buffer


def test_memory_is_lent_again_when_no_view_of_it_is_left() -> None:
    buffers = Buffers(SIZE)
    buffer = lent(buffers)
    place, part = place_of(buffer), np.frombuffer(buffer, np.float32)[10:20][::2]
    del buffer
    assert buffers.lend(SIZE) is None, "a part of it is still referred to"
    del part
    assert place_of(lent(buffers)) == place


def test_there_is_always_one_buffer_however_large() -> None:
    buffers = Buffers(0)
    buffer = lent(buffers, 3 * SIZE + 1)
    assert len(buffer) > 3 * SIZE
    assert buffers.lend(1) is None
    del buffer
    assert len(lent(buffers, 1)) == SIZE, "memory for a larger one is given back to the system"


def test_threads_that_lend_and_give_back_never_share_memory() -> None:
    buffers = Buffers(4 * SIZE)
    seen: list[bool] = []

    def work(number: int) -> None:
        for _ in range(300):
            vector = np.frombuffer(lent(buffers), np.int64)
            vector[...] = number
            seen.append(bool((vector == number).all()))
            del vector

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 1200, "four threads find four buffers"


@pytest.mark.parametrize("size", [0, 1, 3, 20_000])
def test_an_empty_vector_has_as_many_numbers_as_are_asked_for(size: int) -> None:
    vector = empty_vector(size)
    assert vector.shape == (size,)
    assert vector.dtype == np.float32
    assert vector.flags.writeable


def test_sums_and_means_that_are_kept_are_not_written_over_by_later_ones() -> None:
    size = 50_000

    def folded(value: float) -> WeightedSum:
        return fold([(1.0, np.full(size, value, np.float32)), (3.0, np.full(size, 2 * value, np.float32))], size)

    kept = [folded(float(value)) for value in range(5)]
    means = [each.mean for each in kept]
    for value, (each, mean) in enumerate(zip(kept, means, strict=True)):
        np.testing.assert_array_equal(each.total, np.full(size, 7.0 * value))
        np.testing.assert_array_equal(mean, np.full(size, 1.75 * value, np.float32))
