"""What does a run of a suite cost beside the same run by itself?

    python benchmarks/suites.py [--quick]

The runs of a suite are forked from a process that has imported torch and matplotlib; a run by itself imports them
first. `parityfl suite` does as many runs at a time as there are cores, each on one; so does `parityfl run, a core
each`, with a command for each run, while `parityfl run, one by one` gives each all cores. Every run writes its report;
only the suite compares them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from rows import emit, in_turn, parser, repeats, row, timed
from setting import CORES, PARITYFL

from parityfl.experiments.suite import Cell, read_suite
from parityfl.workers.cores import CORES as SHARE

DIGITS = """
data.name = "digits"
rounds.count = 20
[grid]
method = ["parityfl", "fedavg"]
seed = [0, 1, 2, 3]
"""

CNN_SMALL = """
method = "fedavg-uniform"
data.name = "fashion-mnist"
model.name = "cnn-small"
population = { clients = 100, per_round = 10, partition = "iid", samples_per_client = 480, holdout = 0 }
rounds.count = 20
availability.name = "always"
evaluation.every = 20
utility.functional = "local_gain"
[grid]
seed = [0, 1, 2, 3]
"""


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__).parse_args()
    suites = {"digits, 20 rounds": DIGITS, "cnn-small, 20 rounds": CNN_SMALL}
    if arguments.quick:
        suites = {"digits, 2 rounds": DIGITS.replace("count = 20", "count = 2").replace("[0, 1, 2, 3]", "[0]")}
    with TemporaryDirectory() as folder:
        for name, text in suites.items():
            file = Path(folder) / "suite.toml"
            file.write_text(text, encoding="utf-8")
            cells = read_suite(file)
            found = in_turn(sides(file, cells), repeats(arguments))
            title = f"{len(cells)} runs ({name})"
            emit(row(title, "s", side, seconds) for side, seconds in found.items())


def sides(file: Path, cells: Sequence[Cell]) -> dict[str, Callable[[], float]]:
    """Return what is to be measured."""
    return {
        "parityfl suite": timed(lambda: suite(file)),
        "parityfl run, a core each": timed(lambda: one_by_one(cells, at_a_time=CORES)),
        "parityfl run, one by one": timed(lambda: one_by_one(cells, at_a_time=1)),
    }


def suite(file: Path) -> None:
    """Run a suite."""
    with TemporaryDirectory(dir=file.parent) as out:
        call([*PARITYFL, "suite", str(file), "--out", f"{out}/suite", "--jobs", str(CORES)], CORES)


def one_by_one(cells: Sequence[Cell], at_a_time: int) -> None:
    """Run the cells of a suite with a command each."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(at_a_time) as pool:

        def run(cell: Cell) -> None:
            file = Path(folder) / f"{cell.name}.json"
            file.write_text(json.dumps(cell.config.document()), encoding="utf-8")
            call([*PARITYFL, "run", str(file), "--out", f"{folder}/{cell.name}"], CORES // at_a_time)

        list(pool.map(run, cells))


def call(command: Sequence[str], cores: int) -> None:
    """Run a command on so many cores; what it says counts only where it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, SHARE: str(cores)})
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
