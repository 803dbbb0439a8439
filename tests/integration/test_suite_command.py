"""The example suite, with real processes: the grid, resuming it, and the audit of what it wrote."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parityfl.reporting.audit import figures, read_log

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "small-suite.toml"


def run_suite(out: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "parityfl", "suite", str(EXAMPLE), "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("suite") / "small"
    done = run_suite(out, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "Comparison" in done.stdout
    assert done.stdout.splitlines()[-1] == str(out)
    return out


def summaries(suite: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(suite.glob("*/summary.json"))}


def test_every_cell_is_a_run(suite: Path):
    availability = ("bernoulli-pi0.5", "gilbert-elliott-pibeta-1-2-mean_on_rounds6")
    assert list(summaries(suite)) == [f"{method}-{name}" for method in ("fedavg", "parityfl") for name in availability]
    assert {summary["rounds_completed"] for summary in summaries(suite).values()} == {6}
    assert (suite / "report.html").exists()


def test_resuming_a_finished_suite_changes_nothing(suite: Path):
    before = {path: path.read_bytes() for path in suite.glob("*/*.csv") if path.name != "table.csv"}
    done = run_suite(suite, "--resume")
    assert done.returncode == 0
    assert done.stderr.count("done before") == 4
    assert {path: path.read_bytes() for path in before} == before


def test_without_resume_the_folder_is_refused(suite: Path):
    done = run_suite(suite)
    assert done.returncode == 2
    assert "not empty" in done.stderr


@pytest.fixture
def copied(suite: Path, tmp_path: Path) -> Path:
    """The suite, done, in a folder of its own whose report.html is in the way of the report."""
    out = shutil.copytree(suite, tmp_path / "small")
    (out / "report.html").unlink()
    (out / "report.html").mkdir()
    return out


def test_a_comparison_that_cannot_be_written_hides_no_failure(copied: Path):
    """A cell holds another configuration's run, and fails."""
    file = copied / "fedavg-bernoulli-pi0.5" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hash": "another"}))
    done = run_suite(copied, "--resume")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == str(copied)
    assert "report.html cannot be written (Is a directory)" in done.stderr
    assert "1 of 4 runs failed: fedavg-bernoulli-pi0.5" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_without_files_is_named_in_the_comparison(suite: Path, tmp_path: Path):
    """Something else lies where it should be."""
    out = shutil.copytree(suite, tmp_path / "small")
    shutil.rmtree(out / "fedavg-bernoulli-pi0.5")
    (out / "fedavg-bernoulli-pi0.5").mkdir()
    (out / "fedavg-bernoulli-pi0.5" / "mine").touch()
    done = run_suite(out, "--resume")
    assert done.returncode == 3
    for name in ("report.html", "table.md"):
        assert "fedavg-bernoulli-pi0.5 is missing: " in (out / name).read_text(encoding="utf-8")


def test_a_comparison_that_cannot_be_written_is_a_failure_of_its_own(copied: Path):
    done = run_suite(copied, "--resume")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == str(copied)
    assert done.stderr.splitlines()[-1].startswith(f"parityfl: {copied}/report.html cannot be written")


def test_the_audit_of_a_run_is_its_summary(suite: Path):
    """Our clients.csv through the audit gives the figures that the run computed from its ledger."""
    for name, summary in summaries(suite).items():
        audited = figures(read_log(suite / name / "clients.csv"))
        assert audited.pop("num_rounds") == 6
        assert audited == pytest.approx({key: summary[key] for key in audited}, abs=1e-12), name
