"""The tests of pages use the browser of the coordinator's tests."""

import sys
from pathlib import Path

import pytest
from folders import write_run

from parityfl.reporting.load import RunData, load_run

sys.path += [str(Path(__file__).parents[1] / name) for name in ("client", "coordinator")]


@pytest.fixture
def run(tmp_path: Path) -> RunData:
    """The run of `folders` that selects the first two."""
    return load_run(write_run(tmp_path / "run"))
