"""Arrays that several processes see at once."""

from types import SimpleNamespace

import numpy as np
import pytest

from parityfl.core.errors import FleetError
from parityfl.training.workbench import Workbench
from parityfl.workers.shared_memory import SharedArray, SharedHoldings


def test_what_has_no_room_is_refused_before_it_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parityfl.workers.shared_memory.disk_usage", lambda _: SimpleNamespace(free=10**6))
    assert SharedArray((10**6,), np.uint8).view().shape == (10**6,)
    with pytest.raises(FleetError, match=r"4 MB that processes share .* room for 1: .*engine\.workers = 1"):
        SharedArray((10**6,), np.float32)


def test_shared_arrays_hold_what_they_copy() -> None:
    array = np.arange(12, dtype=np.int16).reshape(3, 4)
    shared = SharedArray.copy_of(array)
    assert np.array_equal(shared.view(), array)
    shared.view()[0, 0] = 7
    assert shared.view()[0, 0] == 7
    assert SharedArray((0, 3), np.float32).view().shape == (0, 3)


def test_shared_holdings_are_the_holdings(bench: Workbench) -> None:
    opened = SharedHoldings.copy_of(bench.holdings).open()
    for part in ("train", "held", "test"):
        for name in ("images", "labels", "bounds"):
            assert np.array_equal(getattr(getattr(opened, part), name), getattr(getattr(bench.holdings, part), name))
