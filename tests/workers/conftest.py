import pytest
from workbenches import config

from parityfl.training.workbench import Workbench


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(config())
