"""How many cores a run may use."""

import pytest

from parityfl.core.machine import available_cores
from parityfl.workers.cores import CORES, cores


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("0", None), ("many", None), ("", None)])
def test_a_run_may_be_given_fewer_cores(monkeypatch: pytest.MonkeyPatch, given: str, expected: int | None) -> None:
    monkeypatch.setenv(CORES, given)
    assert cores() == (expected or available_cores())
