"""Parts of other packages: a wheel with entry points, and a script with decorators, as a user would have them."""

import csv
import json
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

MODULE = '''
"""Parts that are easily recognised in a ledger."""

from dataclasses import dataclass

import numpy as np

from parityfl import Aggregator, AvailabilityModel, Config, Selection, Selector, Step
from parityfl.core.objectives import Objective
from parityfl.training.datasets import Dataset, DatasetSource


@dataclass(frozen=True)
class Firsts(Selector):
    """Take the available clients with the smallest indices, or the largest."""

    source = "tiny-parts"
    reverse: bool = False

    @property
    def deterministic(self):
        return True

    def select(self, state, view, rng):
        chosen = view.available[::-1][: view.count][::-1] if self.reverse else view.available[: view.count]
        probability = np.zeros(view.world.num_clients)
        probability[chosen] = 1.0
        return Selection(chosen, probability)


@dataclass(frozen=True)
class Faulty(Firsts):
    """Fail in a round."""

    round: int = 3

    def select(self, state, view, rng):
        if view.round == self.round:
            raise LookupError("my own bug")
        return super().select(state, view, rng)


@dataclass(frozen=True)
class Halved(Aggregator):
    """Go half of the way of the mean update."""

    source = "tiny-parts"
    server_lr: float = 1.0

    def aggregate(self, state, context, updates):
        deltas = [update.delta for update in updates]
        return Step(np.float32(0.5) * np.mean(deltas, axis=0) if deltas else None, state)


@dataclass(frozen=True)
class Untrained(Objective):
    """Nobody can train for it."""

    source = "tiny-parts"
    training = "tiny_trainings"


@dataclass(frozen=True)
class Alternating(AvailabilityModel):
    """Even clients come in even slots, odd ones in odd slots."""

    source = "tiny-parts"

    @property
    def recorded(self):
        return True

    def bind(self, world):
        return Alternation(world.num_clients, world.interval_s)


class Stripes(DatasetSource):
    """Four rows of four pixels, of which the upper or the lower two are lit."""

    source = "tiny-parts"

    def load(self, root):
        labels = np.arange(240) % 2
        images = np.where(np.arange(16) // 8 == labels[:, None], 200, 10).astype(np.uint8).reshape(240, 1, 4, 4)
        halves = images[:200], labels[:200], images[200:], labels[200:]
        return Dataset(*halves, num_classes=2, mean=(100.0,), std=(100.0,))


@dataclass(frozen=True)
class Alternation:
    num_clients: int
    interval_s: float

    def available(self, time_s):
        return (np.arange(self.num_clients) + round(time_s / self.interval_s)) % 2 == 0

    def probability(self, time_s):
        return np.full(self.num_clients, 0.5)
'''

METHODS = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
OBJECTIVE = dict(re.findall(r"```python no-run\n# (\w+\.py)\n(.*?)```", METHODS, flags=re.DOTALL))
"""The two modules of the objective of one's own in the documentation."""

ENTRY_POINTS = """
[parityfl.selectors]
firsts = tiny_parts:Firsts
broken = tiny_parts:Missing
faulty = tiny_parts:Faulty

[parityfl.aggregators]
halved = tiny_parts:Halved

[parityfl.objectives]
shortened = my_objectives:Shortened
untrained = tiny_parts:Untrained

[parityfl.availability]
alternating = tiny_parts:Alternating

[parityfl.datasets]
stripes = tiny_parts:Stripes
"""

CONFIG = """
[population]
clients = 6
per_round = 2

[rounds]
count = 4

[selector]
name = "firsts"
reverse = true

[aggregator]
name = "halved"

[availability]
name = "alternating"
"""


def write_wheel(folder: Path) -> Path:
    """Write a wheel, as any build backend would."""
    info = "tiny_parts-0.3.dist-info"
    files = {
        "tiny_parts.py": MODULE,
        **OBJECTIVE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-parts\nVersion: 0.3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": ENTRY_POINTS,
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    wheel = folder / "tiny_parts-0.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Install the wheel into a folder of its own and return an environment that sees it."""
    folder = tmp_path_factory.mktemp("plugin")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(write_wheel(folder))], check=True)
    found = filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(found)}


def parityfl(environment, *arguments):
    call = [sys.executable, "-m", "parityfl", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("selectors", "firsts"),
        ("aggregators", "halved"),
        ("objectives", "untrained"),
        ("availability", "alternating"),
        ("datasets", "stripes"),
    ],
)
def test_what_is_installed_is_listed_with_its_source(environment, kind, name):
    done = parityfl(environment, "list", kind)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
    assert "[tiny-parts]" in line
    assert "broken" not in done.stdout


def test_the_keys_of_what_is_installed_are_told_with_their_defaults(environment):
    done = parityfl(environment, "list", "selectors", "firsts")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('[selector]\nname = "firsts"\nreverse = false\n')


def test_what_is_installed_passes_the_contract_checks(environment):
    code = """
    from tiny_parts import Alternating, Firsts, Halved
    from parityfl.testing import check_aggregator, check_availability, check_selector
    check_selector(Firsts())
    check_selector(Firsts(reverse=True))
    check_aggregator(Halved())
    check_availability(Alternating())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_what_is_installed_is_used_by_name(environment, tmp_path):
    """Of six clients, 4 and 2 come last among the even ones, 5 and 3 among the odd ones."""
    (tmp_path / "run.toml").write_text(CONFIG)
    done = parityfl(environment, "run", tmp_path / "run.toml", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "done"
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["selector"] == {"name": "firsts", "reverse": True}
    assert config["versions"]["tiny-parts"] == "0.3"
    with (tmp_path / "run" / "clients.csv").open() as handle:
        took = [(row["round"], row["client_id"]) for row in csv.DictReader(handle) if row["participated"] == "1"]
    assert took == [(str(t), f"h{k}") for t in range(1, 5) for k in ((2, 4) if t % 2 else (3, 5))]


def test_a_configuration_is_refused_where_the_package_is_missing(tmp_path):
    (tmp_path / "run.toml").write_text(CONFIG)
    done = parityfl(os.environ, "run", tmp_path / "run.toml", "--out", tmp_path / "run")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "unknown availability 'alternating'" in done.stderr or "unknown selector 'firsts'" in done.stderr


def test_a_broken_part_of_a_package_is_one_clear_line(environment, tmp_path):
    done = parityfl(environment, "run", "--selector", "broken", "--out", tmp_path / "run")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "selector 'broken' of package tiny-parts 0.3 cannot be used" in done.stderr


@pytest.mark.parametrize(
    ("first", "parts"),
    [
        ("from parityfl import Config", "objective={'name': 'shortened'}"),
        ("import tiny_parts; from tiny_parts import Config", "selector={'name': 'firsts'}"),
        ("import parityfl.testing; from parityfl import Config", "selector={'name': 'firsts'}"),
        ("import my_training; from parityfl import Config", "objective={'name': 'shortened'}"),
    ],
)
def test_a_part_may_need_the_configuration_whatever_is_imported_first(environment, first, parts):
    code = f"{first}; print(Config({parts}).document())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'firsts', 'reverse': False" in done.stdout or "'shortened', 'share': 0.5" in done.stdout


def test_packages_are_imported_for_their_own_names_only(environment):
    code = "import sys; from parityfl import Config; Config(); print([name for name in sys.modules if 'tiny' in name])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


FAULTY = ["--selector", "faulty", "--clients", "4", "--per-round", "2", "--rounds", "4"]


@pytest.mark.parametrize("engine", ["local", "http"])
def test_a_part_that_raises_is_named_in_one_line_and_the_run_can_go_on(environment, tmp_path, engine):
    done = parityfl(environment, "run", *FAULTY, "--engine", engine, "--out", tmp_path / "run")
    assert done.returncode == 3
    named = "parityfl: selector 'faulty', round 3: LookupError: my own bug (site/tiny_parts.py:"
    told = [line for line in done.stderr.splitlines() if line.startswith(named)]
    assert [line.endswith(f"); repair it; go on with --resume --out {tmp_path / 'run'}") for line in told] == [True]
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["rounds_completed"]) == ("interrupted", 2)
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_traceback_of_a_part_is_shown_to_who_asks(environment, tmp_path):
    done = parityfl(environment, "run", *FAULTY, "--out", tmp_path / "run", "--log-level", "debug")
    assert done.returncode == 3
    assert 'raise LookupError("my own bug")' in done.stderr
    assert "no running event loop" not in done.stderr


def test_a_schedule_whose_selector_raises_is_one_line(environment, tmp_path):
    done = parityfl(environment, "schedule", "--selector", "faulty", "--rounds", "5", "--out", tmp_path / "schedule")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "selector 'faulty', round 3: LookupError: my own bug" in done.stderr


SCRIPT = """
from dataclasses import dataclass

import numpy as np
import parityfl


@parityfl.selector("last-seen")
@dataclass(frozen=True)
class LastSeen(parityfl.Selector):
    \"\"\"Take the clients that were selected longest ago.\"\"\"

    has_probability = False

    def select(self, state, view, rng):
        waiting = view.ledger.last_selected[view.available]
        chosen = np.sort(view.available[np.lexsort((rng.random(len(waiting)), waiting))[: view.count]])
        return parityfl.Selection(chosen, None)


parityfl.testing.check_selector(LastSeen())
config = parityfl.Config(selector={"name": "last-seen"}, population={"clients": 6, "per_round": 2}, rounds={"count": 3})
run = parityfl.run(config, out="runs/mine")
assert run.summary["status"] == "done"
assert run.rounds.height == 3
again = parityfl.load(run.path)
assert again.summary == run.summary
assert (run.path / "report.html").is_file()
before = (run.path / "report.html").stat().st_mtime_ns
assert parityfl.run(config, out="runs/mine", resume=True).summary == run.summary
assert (run.path / "report.html").stat().st_mtime_ns == before
(run.path / "report.html").unlink()
(run.path / "report.html").mkdir()
assert parityfl.run(config, out="runs/mine", resume=True).summary == run.summary
"""


def test_a_script_needs_no_package(tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "parityfl: the run is done, in runs/mine; its report is not: " in done.stderr


@pytest.mark.parametrize("engine", ["local", "http"])
def test_installed_data_are_found_in_every_process(environment, tmp_path, engine):
    world = ["--clients", "4", "--per-round", "2", "--rounds", "2", "--set", "population.labels_per_client=2"]
    model = ["--set", "model.name=mlp", "--engine", engine]
    done = parityfl(environment, "run", "--dataset", "stripes", *world, *model, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["global_accuracy"] > 0.5


def objective_run(environment, out, *arguments):
    world = ["--clients", "4", "--per-round", "2", "--rounds", "2", "--set", "objective.name=shortened"]
    return parityfl(environment, "run", *world, *arguments, "--out", out)


def test_an_installed_objective_trains_in_every_process_alike(environment, tmp_path):
    """A share of 0 is no way at all: nobody gains anything. Half of it is not what `plain` ends with."""
    hashes = {}
    for name, arguments in {
        "none": ["--set", "objective.share=0"],
        "local": ["--set", "engine.workers=2"],
        "http": ["--engine", "http"],
        "plain": ["--set", "objective.name=plain"],
    }.items():
        done = objective_run(environment, tmp_path / name, *arguments)
        assert done.returncode == 0, done.stderr
        hashes[name] = json.loads((tmp_path / name / "summary.json").read_text())["model_hash"]
    assert hashes["local"] == hashes["http"]
    assert len(set(hashes.values())) == 3
    with (tmp_path / "none" / "clients.csv").open() as handle:
        assert {row["local_gain"] for row in csv.DictReader(handle)} == {"", "0.0"}


def test_the_training_of_an_objective_is_imported_where_clients_train_alone(environment):
    code = """
    import sys
    import parityfl
    parityfl.Config(objective={"name": "shortened"})
    print("my_objectives" in sys.modules, "my_training" in sys.modules, "torch" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True", "False", "False"], done.stderr


def test_an_objective_whose_training_cannot_be_imported_is_one_clear_line(environment, tmp_path):
    done = objective_run(environment, tmp_path / "run", "--set", "objective.name=untrained")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "objective Untrained: its training, tiny_trainings, cannot be imported: No module named" in done.stderr
