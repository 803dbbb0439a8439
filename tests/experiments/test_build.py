"""From a configuration to a run."""

from hashlib import sha256
from pathlib import Path

import pytest

from parityfl.config import Config
from parityfl.experiments.build import document, say_idle, wanted


@pytest.mark.parametrize(("per_round", "factor", "asked"), [(10, 1.1, 11), (100, 1.1, 110), (3, 1.5, 5), (4, 9.0, 20)])
def test_how_many_are_asked(per_round: int, factor: float, asked: int) -> None:
    """In floating point 10 x 1.1 is above 11; there are 120 clients, but for the last one, who has 20."""
    clients = 20 if factor == 9.0 else 120
    config = Config(population={"clients": clients, "per_round": per_round}, rounds={"over_select": factor})
    assert wanted(config) == asked


def test_a_trace_in_the_home_folder_is_among_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells leave the tilde of `--set availability.path=~/trace.csv` as it is."""
    (tmp_path / "trace.csv").write_text("client_id,start_s,end_s\nh0,0,600\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = Config(availability={"name": "trace", "path": "~/trace.csv"})
    assert document(config)["files"] == {"~/trace.csv": sha256((tmp_path / "trace.csv").read_bytes()).hexdigest()}


def idle(**sections: dict[str, object]) -> list[str]:
    lines: list[str] = []
    say_idle(Config(**sections), lines.append)
    return [line.removeprefix("warning: ").partition(" has no effect")[0] for line in lines]


def test_keys_that_change_nothing_are_told() -> None:
    """Without latency replies of an experiment come at once; on the wall clock nobody acts out a model of devices.

    Not within one machine, `rounds.deadline_s` also ends rounds that hang.
    """
    assert idle() == []
    timed = {"deadline_s": 1.0, "quorum": 2, "late": "next-round", "deadline": "adaptive", "over_select": 1.5}
    assert idle(rounds=timed) == ["rounds.deadline", "rounds.deadline_s", "rounds.quorum", "rounds.late"]
    assert idle(rounds=timed, engine={"name": "ray"}) == ["rounds.deadline", "rounds.quorum", "rounds.late"]
    assert idle(rounds=timed, latency={"median_s": 5.0}) == []
    assert idle(rounds={**timed, "clock": "wall"}) == []
    assert idle(rounds={"clock": "wall"}, dropout={"rate": 0.5}, latency={"median_s": 5.0}) == [
        "latency.median_s",
        "dropout.rate",
    ]
    assert idle(dropout={"rate": 0.5}, latency={"per_sample_s": 1.0}, rounds={"quorum": 3}) == []
    assert idle(utility={"mu": 2.0, "noise": 0.5}) == ["utility.mu", "utility.noise"]
