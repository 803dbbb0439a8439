"""Commands with nothing but their defaults, as somebody types them who has just installed the package."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

PARITYFL = [sys.executable, "-m", "parityfl"]


def test_the_version() -> None:
    done = subprocess.run([*PARITYFL, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


def test_runs_without_a_folder_get_one_each_and_the_page_lists_them(tmp_path: Path) -> None:
    folders = []
    for _ in range(2):
        done = subprocess.run(
            [*PARITYFL, "run", "--rounds", "1"], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        folders.append(tmp_path / done.stdout.splitlines()[-1])
    assert folders[0] != folders[1]
    for folder in folders:
        assert folder.parent == tmp_path / "runs"
        assert json.loads((folder / "summary.json").read_text())["status"] == "done"

    with subprocess.Popen(
        [*PARITYFL, "ui", "runs", "--port", "0"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as ui:
        assert ui.stderr is not None
        try:
            page = urlopen(ui.stderr.readline().strip(), timeout=60).read().decode()
        finally:
            ui.send_signal(signal.SIGTERM)
        assert ui.wait(60) == 0
    assert all(folder.name in page for folder in folders)


def test_a_run_is_called_what_it_is_where_a_file_overrides_the_method(tmp_path: Path) -> None:
    """A file that names selector and aggregator has these, whatever method it names beside them."""
    lines = [
        'method = "fedavg"',
        "[rounds]",
        "count = 1",
        "[selector]",
        'name = "lnu"',
        "[aggregator]",
        'name = "mifa"',
    ]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    again = [*PARITYFL, "run", "mine.toml"]
    done = subprocess.run(again, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "lnu+mifa round 1: " in done.stderr
    assert "fedavg" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith("runs/digits-lnu+mifa-seed")


def test_updates_that_are_refused_are_said_once_with_the_reason(tmp_path: Path) -> None:
    options = ["--rounds", "3", "--set", "security.max_update_norm=0.01", "--out", "run"]
    done = subprocess.run([*PARITYFL, "run", *options], capture_output=True, text=True, check=True, cwd=tmp_path)
    said = [line for line in done.stderr.splitlines() if "updates refused" in line]
    assert len(said) == 1, done.stderr
    assert "at most security.max_update_norm = 0.01 is taken" in said[0]
