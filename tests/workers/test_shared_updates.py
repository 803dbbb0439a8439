import gc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from parityfl.core.types import Update
from parityfl.workers.shared_updates import PLACES, SMALLEST, Left, Place, Shelf, collect

SIZE = SMALLEST // 4


def update(value: float) -> Update:
    return Update(3, np.full(SIZE, value, dtype=np.float32), 10, 0.5)


_shelf: Shelf | None = None


def _begin(shelf: Shelf) -> None:
    global _shelf  # noqa: PLW0603 -- a pool's initializer has no other way to hand something to its jobs
    _shelf = shelf


def _leave(value: float, number: int) -> object:
    assert _shelf is not None
    return _shelf.leave((update(value), None), number)


def lent(shelf: Shelf) -> Place:
    place = shelf.lend()
    assert place is not None
    return place


def test_what_another_process_leaves_is_collected_where_it_lies() -> None:
    shelf = Shelf(SIZE)
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(shelf,)) as pool:
        places = [lent(shelf) for _ in range(PLACES)]
        left = [pool.submit(_leave, float(place.number), place.number).result() for place in places]
    for place, result in zip(places, left, strict=True):
        assert isinstance(result, Left)
        assert "delta" not in result.told
        (collected, kept) = collect(result, place)
        assert kept is None
        np.testing.assert_array_equal(collected.delta, np.full(SIZE, place.number))
        assert (collected.client, collected.num_samples, collected.train_loss) == (3, 10, 0.5)


def test_a_place_is_free_again_when_nothing_refers_to_what_lies_in_it() -> None:
    shelf = Shelf(SIZE)
    places = [lent(shelf) for _ in range(PLACES)]
    assert shelf.lend() is None
    number, left = places[2].number, shelf.leave((update(1.0), None), places[2].number)
    collected, _ = collect(left, places.pop(2))
    kept = collected.delta[:10]
    del collected, left
    gc.collect()
    assert shelf.lend() is None, "a part of it is still referred to"
    del kept
    gc.collect()
    assert lent(shelf).number == number


def test_other_results_go_as_they_are() -> None:
    shelf = Shelf(SIZE)
    assert shelf.leave(("pieces", 2), 0) == ("pieces", 2)
    assert collect(7, lent(shelf)) == 7


@pytest.mark.parametrize("size", [0, SIZE - 1])
def test_small_updates_are_not_left(size: int) -> None:
    assert Shelf(size).lend() is None
