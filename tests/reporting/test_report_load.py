import json
import os
from pathlib import Path

import polars as pl
import pytest
from folders import CLIENTS, ROUNDS, register_late, write_run

from parityfl.core.columns import CLIENT_COLUMNS, ROUND_COLUMNS
from parityfl.core.errors import FolderError
from parityfl.reporting.load import NO_SUMMARY, RunData, find_runs, load_run, run_folders


def test_columns_have_their_types(run: RunData):
    assert run.rounds.schema == pl.Schema(ROUND_COLUMNS)
    assert run.clients.schema == pl.Schema(CLIENT_COLUMNS)
    assert (run.rounds.height, run.clients.height) == (ROUNDS, ROUNDS * CLIENTS)
    assert (run.seed, run.status, run.finished, run.rounds_planned) == (0, "done", True, ROUNDS)


def test_empty_is_null_and_never_zero(run: RunData):
    """Client 4 is first available in round 5; h5 never is; nobody measured latency."""
    h4 = run.clients.filter(pl.col("client_id") == "h4")["normalized_utility"].to_list()
    assert h4[:4] == [None] * 4
    assert h4[4] == pytest.approx(0.1)
    assert run.clients["latency_s"].null_count() == ROUNDS * CLIENTS
    assert run.clients.filter(pl.col("selected") == 0)["outcome"].null_count() == ROUNDS * CLIENTS - 14


@pytest.mark.parametrize("name", ["config.json", "rounds.csv", "clients.csv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str):
    folder = write_run(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(FolderError, match=f"not a run folder: {name} is missing"):
        load_run(folder)


@pytest.mark.parametrize("name", ["config.json", "rounds.csv", "clients.csv", "summary.json", "shortfall.csv"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    folder = write_run(tmp_path / "run")
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(FolderError, match=rf"{name} cannot be read \(Is a directory\): restore"):
        load_run(folder)


def test_a_folder_that_is_absent_is_named(tmp_path: Path):
    with pytest.raises(FolderError, match="nowhere is not a run folder"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", '{"method": "x"}'])
def test_a_config_that_is_none_is_refused(tmp_path: Path, text: str):
    folder = write_run(tmp_path / "run")
    (folder / "config.json").write_text(text)
    with pytest.raises(FolderError, match=r"config\.json"):
        load_run(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("global_loss", "loss"), "no column 'global_loss'"),
        (lambda text: text.replace("\n1,0.0", "\none,0.0"), "cannot be read"),
        (lambda text: "", "cannot be read"),
        (lambda text: text.replace("\n3,", "\n2,"), "line 4: round = 2: 3 follows"),
    ],
)
def test_a_malformed_table_is_named(tmp_path: Path, change, message: str):
    folder = write_run(tmp_path / "run")
    path = folder / "rounds.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(FolderError, match=rf"rounds\.csv.*{message}"):
        load_run(folder)


def test_a_run_in_progress_is_read_to_its_last_complete_round(tmp_path: Path):
    """The last line of clients.csv is torn, so round 3 has lost a client; nor does a round 4 of one file count."""
    folder = write_run(tmp_path / "run", rounds=3, status=None)
    clients, rounds = folder / "clients.csv", folder / "rounds.csv"
    clients.write_text(clients.read_text()[:-10])
    rounds.write_text(rounds.read_text() + "4,1800.0" + "," * (len(ROUND_COLUMNS) - 2) + "\n")
    run = load_run(folder)
    assert (run.status, run.finished, run.summary) == (NO_SUMMARY, False, {})
    assert run.rounds["round"].to_list() == [1, 2]
    assert run.clients.height == 2 * CLIENTS


@pytest.mark.parametrize("rounds", [2, ROUNDS])
def test_rounds_before_the_first_device_registered_are_kept(tmp_path: Path, rounds: int):
    run = load_run(register_late(write_run(tmp_path / "run"), rounds))
    assert run.rounds["round"].to_list() == list(range(1, ROUNDS + 1))
    assert run.clients.height == (ROUNDS - rounds) * CLIENTS


def test_whole_numbers_may_be_written_as_floats_and_columns_may_be_added(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    lines = (folder / "rounds.csv").read_text().splitlines()
    extended = [lines[0] + ",note", *(line.replace(",", ".0,", 1) + ",7" for line in lines[1:])]
    (folder / "rounds.csv").write_text("\n".join(extended) + "\n")
    run = load_run(folder)
    assert run.rounds["round"].to_list() == list(range(1, ROUNDS + 1))
    assert run.rounds["note"].to_list() == [7] * ROUNDS


def test_a_column_that_came_later_may_be_absent(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    frame = pl.read_csv(folder / "clients.csv").drop("personal_accuracy")
    frame.write_csv(folder / "clients.csv")
    assert load_run(folder).clients["personal_accuracy"].null_count() == ROUNDS * CLIENTS


def test_runs_are_found_below_a_folder(tmp_path: Path):
    write_run(tmp_path / "b" / "1")
    write_run(tmp_path / "a")
    write_run(tmp_path / "c", status=None)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.json").write_text(json.dumps({"no": "run"}))
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b" / "1"]
    assert run_folders(tmp_path) == [tmp_path / "a", tmp_path / "b" / "1", tmp_path / "c"]


def test_runs_are_not_looked_for_in_the_journal_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It has a folder per client."""
    for name in ("journal", "clients", "again"):
        write_run(write_run(tmp_path / name) / name)
    seen: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: seen.append(os.path.relpath(place, tmp_path)) or scan(place))
    found = [Path("again"), Path("again/again"), Path("clients"), Path("journal")]
    assert run_folders(tmp_path) == [tmp_path / path for path in found]
    assert sorted(seen) == [".", *map(str, found)]
