"""A run's availability as intervals, and replayed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import parityfl
from parityfl.cli import app
from parityfl.core.errors import FolderError
from parityfl.reporting.replay import write_intervals


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> parityfl.Run:
    """Ten rounds with a client that is never there, one that comes and goes, and one that is always there."""
    asked = {"availability.name": "bernoulli", "availability.pi": [0, 0.5, 1], "rounds.count": 10}
    config = parityfl.Config.load(None, {"population.clients": 3, "population.per_round": 1, **asked})
    return parityfl.run(config, tmp_path_factory.mktemp("replay") / "run")


def test_a_replayed_run_has_the_same_clients_there_in_every_round(run: parityfl.Run, tmp_path: Path) -> None:
    command = ["trace", str(run.path), "--intervals", str(tmp_path / "fleet.csv")]
    assert CliRunner().invoke(app, command).output == f"{tmp_path / 'fleet.csv'}\n"
    traced = {"availability.name": "trace", "availability.path": str(tmp_path / "fleet.csv")}
    again = parityfl.run(parityfl.Config.load(run.path / "config.json", traced), tmp_path / "again")
    columns = ("round", "client_id", "available")
    assert again.clients.select(columns).equals(run.clients.select(columns))


def test_every_client_has_an_empty_interval_at_either_end_and_one_for_each_round_that_it_was_there(
    run: parityfl.Run, tmp_path: Path
) -> None:
    write_intervals(run.path, tmp_path / "fleet.csv")
    lines = (tmp_path / "fleet.csv").read_text().splitlines()
    edges = [f"{name},{edge},{edge}" for edge in ("0.0", "6000.0") for name in ("h0", "h1", "h2")]
    assert lines[:7] == ["client_id,start_s,end_s", *edges]
    always = [f"h2,{600.0 * number},{600.0 * (number + 1)}" for number in range(10)]
    assert [line for line in lines[7:] if line.startswith("h2")] == always
    assert not any(line.startswith("h0") for line in lines[7:])


def test_what_cannot_be_read_or_would_be_overwritten_is_refused(run: parityfl.Run, tmp_path: Path) -> None:
    (tmp_path / "kept.csv").write_text("mine")
    with pytest.raises(FolderError, match="is there already: name another file"):
        write_intervals(run.path, tmp_path / "kept.csv")
    with pytest.raises(FolderError, match=r"config\.json"):
        write_intervals(tmp_path, tmp_path / "new.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.csv"]
