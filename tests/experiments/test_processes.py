"""How the devices of the `http` engine are shared out among processes."""

import pytest

from parityfl.config import Config
from parityfl.core.errors import ConfigError
from parityfl.experiments.children import CORES
from parityfl.experiments.processes import groups
from parityfl.wire.schemas import MAX_DEVICES


@pytest.mark.parametrize(
    ("engine", "cores", "sizes"),
    [({}, "2", [3, 4]), ({}, "1", [7]), ({}, "9", [1] * 7), ({"processes": 3}, "1", [2, 2, 3])],
    ids=["a core each", "one core", "more cores than devices", "as many as asked"],
)
def test_a_process_a_core_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, engine: dict[str, int], cores: str, sizes: list[int]
) -> None:
    monkeypatch.setenv(CORES, cores)
    config = Config(population={"clients": 7, "per_round": 2}, engine={"name": "http", **engine})
    shared = groups(config)
    assert [len(group) for group in shared] == sizes
    assert [name for group in shared for name in group] == config.device_ids


def test_a_process_has_no_more_devices_than_a_report_takes() -> None:
    population = {"clients": 3 * MAX_DEVICES, "per_round": 2}
    enough = Config(population=population, engine={"name": "http", "processes": 3})
    assert [len(group) for group in groups(enough)] == [MAX_DEVICES] * 3
    with pytest.raises(ConfigError, match=r"engine\.processes = 2 .* 30000: .* 10,000 .* to 3 or more"):
        groups(Config(population=population, engine={"name": "http", "processes": 2}))
