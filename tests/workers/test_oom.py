"""Which deaths are the machine's want of memory."""

from parityfl.workers.oom import Starvation


def test_want_of_memory_is_the_reason_for_no_more_deaths_than_it_caused() -> None:
    """The machine has killed two processes before this one looks, and one more later: that explains one death."""
    kills = iter([2, 3, 3])
    starvation = Starvation(lambda: next(kills))
    assert [starvation.struck(), starvation.struck()] == [True, False]


def test_two_deaths_for_want_of_memory_between_two_looks_are_both_told() -> None:
    kills = iter([2, 4, 4, 4])
    starvation = Starvation(lambda: next(kills))
    assert [starvation.struck() for _ in range(3)] == [True, True, False]
