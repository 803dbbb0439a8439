"""From a configuration to a run."""

import pytest

from parityfl.config import Config
from parityfl.experiments.build import wanted


@pytest.mark.parametrize(("per_round", "factor", "asked"), [(10, 1.1, 11), (100, 1.1, 110), (3, 1.5, 5), (4, 9.0, 20)])
def test_how_many_are_asked(per_round: int, factor: float, asked: int) -> None:
    """In floating point 10 x 1.1 is above 11; there are 120 clients, but for the last one, who has 20."""
    clients = 20 if factor == 9.0 else 120
    config = Config(population={"clients": clients, "per_round": per_round}, rounds={"over_select": factor})
    assert wanted(config) == asked
