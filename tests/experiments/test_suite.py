"""Grids: which cells there are, what they are called, and what becomes of those that fail. Runs are faked."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from parityfl.core.errors import ConfigError, FolderError
from parityfl.experiments.suite import absent, read_suite, run_suite, usual_jobs


def suite(tmp_path: Path, text: str):
    path = tmp_path / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return read_suite(path)


class Watched:
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def started(self, cell):
        self.told.append(("started", cell.name))

    def advanced(self, cell, rounds):
        self.told.append(("advanced", cell.name, rounds))

    def finished(self, result):
        self.told.append(("finished", result.cell.name))


class FakeRun:
    """Writes what a run leaves behind, unless its seed is one of those that fail."""

    def __init__(self, codes=()):
        self.codes = dict(codes)
        self.now, self.most, self.started = 0, 0, []

    @asynccontextmanager
    async def __call__(self, arguments, errors):
        command, file, _, out, _ = arguments
        document = json.loads(Path(file).read_text())
        assert command == "run"
        self.started.append(document["seed"])
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield self.Process(self.codes.get(document["seed"], 0), document, Path(out), errors)
        finally:
            self.now -= 1

    class Process:
        def __init__(self, code, document, out, errors):
            self.code, self.document, self.out, self.errors = code, document, out, errors

        async def wait(self):
            await asyncio.sleep(0)
            self.errors.write(b"parityfl: a round went by\nparityfl: no disk left\n" if self.code else b"")
            self.errors.flush()
            if self.code == 0:
                self.out.mkdir(parents=True)
                config = {**self.document, "hash": self.digest()}
                (self.out / "config.json").write_text(json.dumps(config))
                (self.out / "summary.json").write_text('{"status": "done"}')
            return self.code

        def digest(self):
            from parityfl.config import resolve

            return resolve([self.document], {}).hash


class Continued(FakeRun):
    """Remembers in which folders it was to run, and leaves them as they are."""

    def __init__(self):
        super().__init__()
        self.folders = []

    @asynccontextmanager
    async def __call__(self, arguments, errors):
        self.folders.append(Path(arguments[3]).name)
        yield self

    async def wait(self):
        return 0


def play(cells, out, *, jobs=2, resume=False, launch=None):
    watcher, launch = Watched(), launch or FakeRun()
    results = asyncio.run(run_suite(cells, out, jobs=jobs, resume=resume, watcher=watcher, launch=launch))
    return results, watcher, launch


GRID = """
[rounds]
count = 5
[grid]
method = ["parityfl", "fedavg"]
seed = [0, 1, 2]
"""


def test_every_combination(tmp_path: Path):
    cells = suite(tmp_path, GRID)
    names = [f"{method}-seed{seed}" for method in ("parityfl", "fedavg") for seed in (0, 1, 2)]
    assert [cell.name for cell in cells] == names
    assert {cell.config.rounds.count for cell in cells} == {5}
    assert cells[-1].config.selector.name == "uniform"
    assert cells[-1].config.seed == 2


def test_sections_and_keys_as_values(tmp_path: Path):
    cells = suite(
        tmp_path,
        """
        [availability]
        name = "bernoulli"
        pi = 0.5
        [grid]
        availability = [{name = "always"}, {name = "bernoulli", pi = [0.2, 0.8]}, {pi = 0.9}]
        training.lr = [0.05, 0.1]
        [grid.population]
        clients = [2]
        per_round = [1]
        """,
    )
    assert [cell.name for cell in cells] == [
        "always-lr0.05",
        "always-lr0.1",
        "bernoulli-pi0.2_0.8-lr0.05",
        "bernoulli-pi0.2_0.8-lr0.1",
        "availability-pi0.9-lr0.05",
        "availability-pi0.9-lr0.1",
    ]
    last = cells[-1].config
    assert (last.availability.name, last.availability.pi, last.training.lr) == ("bernoulli", 0.9, 0.1)
    assert last.population.clients == 2


def test_the_same_run_is_one_cell(tmp_path: Path):
    """0.05 is the default, and the second availability spells out what the first leaves to the defaults."""
    cells = suite(
        tmp_path,
        """
        [grid]
        "training.lr" = [0.05, 5e-2]
        availability = [{name = "bernoulli"}, {name = "bernoulli", pi = "beta(1,2)"}]
        """,
    )
    assert [cell.name for cell in cells] == ["lr0.05-bernoulli"]


def test_names_keep_the_sign_of_an_exponent(tmp_path: Path):
    cells = suite(tmp_path, "[grid]\ntraining.lr = [1e-30, 1e30]\n")
    assert [cell.name for cell in cells] == ["lr1e-30", "lr1e30"]


def test_names_are_distinct_and_bounded(tmp_path: Path):
    """Two values that read alike, and one that is long."""
    values = ", ".join(f"0.{digit}{digit}" for digit in range(1, 10)) + ", 0.5" * 11
    cells = suite(
        tmp_path,
        f"""
        [grid]
        availability = [{{name = "bernoulli", pi = "beta(1,2)"}}, {{name = "bernoulli", pi = "beta(1 2)"}},
                        {{name = "bernoulli", pi = [{values}]}}]
        """,
    )
    names = [cell.name for cell in cells]
    assert len(set(names)) == 3
    assert names[0].startswith("bernoulli-pibeta-1-2")
    assert all(len(name) < 100 for name in names)


@pytest.mark.parametrize(("cells", "gigabytes", "jobs"), [(100, 64, 8), (3, 64, 3), (100, 7, 3), (100, 1, 1)])
def test_how_many_at_a_time(monkeypatch, cells, gigabytes, jobs):
    """On eight cores: one a core, where there are so many and each has its two gigabytes, of the machine and of what
    its container leaves."""
    monkeypatch.setenv("PARITYFL_CORES", "8")
    for mine, machines in ((gigabytes, 99), (99, gigabytes)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=machines: SimpleNamespace(available=free * 2**30))
        monkeypatch.setattr("parityfl.experiments.suite.available_memory", lambda free=mine: free * 2**30)
        assert usual_jobs(cells) == jobs


def test_no_grid_is_one_run(tmp_path: Path):
    assert [cell.name for cell in suite(tmp_path, "seed = 4\n")] == ["suite"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[grid]\nseed = 3\n", "grid.seed = 3: give a list"),
        ("[grid]\ntraining.lr = []\n", r"grid.training.lr = \[\]"),
        ('[grid]\nmethod = ["fedavg", "fedagv"]\n', "cell fedagv: unknown method"),
        ("[grid]\nseed = [1]\n[rounds]\ncuont = 3\n", "cell seed1: unknown key rounds.cuont"),
        ("[grid\n", "is no TOML"),
        ("[[grid]]\nseed = [0, 1]\n", "grid in .* is no table: write \\[grid\\] once"),
        ("grid = 3\n", "grid in .* is no table"),
        ('[rounds]\nclock = "wall"\n[grid]\nseed = [0, 1]\n', "cell seed0: rounds.clock = 'wall' needs devices"),
    ],
)
def test_mistakes_are_found_before_anything_runs(tmp_path: Path, text, words):
    with pytest.raises(ConfigError, match=words):
        suite(tmp_path, text)


def test_as_many_at_a_time_as_asked(tmp_path: Path):
    cells = suite(tmp_path, GRID)
    results, watcher, launch = play(cells, tmp_path / "out", jobs=2)
    assert [result.failure for result in results] == [""] * 6
    assert launch.most == 2
    assert len([told for told in watcher.told if told[0] == "finished"]) == 6


def test_a_failure_stops_no_other(tmp_path: Path):
    cells = suite(tmp_path, "[grid]\nseed = [0, 1, 2, 3]\n")
    results, _, launch = play(cells, tmp_path / "out", launch=FakeRun({1: 2, 2: -9}))
    assert launch.started == [0, 1, 2, 3]
    assert [bool(result.failure) for result in results] == [False, True, True, False]
    assert results[1].failure.startswith("no disk left (exit code 2; see ")
    assert results[2].failure.startswith("killed by signal 9")


class Unstartable(FakeRun):
    """Cannot start the run of a seed."""

    def __init__(self, seed, error):
        super().__init__()
        self.seed, self.error = seed, error

    @asynccontextmanager
    async def __call__(self, arguments, errors):
        if json.loads(Path(arguments[1]).read_text())["seed"] == self.seed:
            raise self.error
        async with super().__call__(arguments, errors) as process:
            yield process


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(28, "No space left on device"), "No space left on device"), (EOFError(), "EOFError")],
)
def test_a_run_that_cannot_be_started_stops_no_other(tmp_path: Path, error, words):
    """The process from which runs are forked may be gone, for one."""
    cells = suite(tmp_path, "[grid]\nseed = [0, 1, 2, 3]\n")
    results, watcher, launch = play(cells, tmp_path / "out", launch=Unstartable(1, error))
    assert launch.started == [0, 2, 3]
    assert [bool(result.failure) for result in results] == [False, True, False, False]
    assert results[1].failure.startswith("it could not be run (")
    assert words in results[1].failure
    assert ("finished", "seed1") in watcher.told


def test_a_run_whose_files_cannot_be_written_stops_no_other(tmp_path: Path):
    """A folder lies where the log of seed 1 should be."""
    cells = suite(tmp_path, "[grid]\nseed = [0, 1, 2]\n")
    (tmp_path / "out/logs/seed1.log").mkdir(parents=True)
    results, _, launch = play(cells, tmp_path / "out", resume=True)
    assert launch.started == [0, 2]
    assert [bool(result.failure) for result in results] == [False, True, False]


def test_resume_skips_what_is_done(tmp_path: Path):
    cells = suite(tmp_path, "[grid]\nseed = [0, 1, 2]\n")
    play(cells, tmp_path / "out", launch=FakeRun({1: 3}))
    results, watcher, launch = play(cells, tmp_path / "out", resume=True)
    assert launch.started == [1]
    assert [result.skipped for result in results] == [True, False, True]
    assert ("finished", "seed0") in watcher.told


def test_a_suite_that_grows_keeps_what_it_has(tmp_path: Path):
    """With a second seed the cells of the first are called otherwise; those that were begun go on where they lie."""
    methods = '[grid]\nmethod = ["parityfl", "fedavg", "mifa"]\n'
    _, _, first = play(suite(tmp_path, f"{methods}seed = [0]\n"), tmp_path / "out")
    assert first.started == [0, 0, 0]
    (tmp_path / "out/mifa/summary.json").unlink()
    cells = suite(tmp_path, f"{methods}seed = [0, 1]\n")
    results, _, launch = play(cells, tmp_path / "out", resume=True, launch=Continued())
    assert [result.skipped for result in results] == [True, False, True, False, False, False]
    assert sorted(launch.folders) == ["fedavg-seed1", "mifa", "mifa-seed1", "parityfl-seed1"]


def test_a_cell_is_absent_where_there_are_no_rows_of_it(tmp_path: Path):
    """Seed 0 lies in another folder than its name, in that of seed 2 lies another run, of seed 1 there is nothing."""
    out = tmp_path / "out"
    play(suite(tmp_path, "[grid]\nseed = [0, 3]\n"), out)
    (out / "seed0").rename(out / "before")
    (out / "seed3").rename(out / "seed2")
    for folder in ("before", "seed2"):
        (out / folder / "rounds.csv").touch()
    (out / "before" / "summary.json").unlink()
    results, _, _ = play(suite(tmp_path, GRID), out, resume=True, launch=FakeRun(dict.fromkeys(range(3), 2)))
    assert len(absent(results, out)) == 6  # these have 5 rounds
    cells = suite(tmp_path, "[grid]\nseed = [0, 1, 2]\n")
    results, _, _ = play(cells, out, resume=True, launch=FakeRun({0: 2, 1: 2, 2: 2}))
    assert [line.partition(" is missing: no disk left")[0] for line in absent(results, out)] == ["seed1", "seed2"]


def test_another_configuration_is_not_taken_for_done(tmp_path: Path):
    """The run in the folder has 30 rounds, the suite now asks for 5."""
    play(suite(tmp_path, "[grid]\nseed = [0, 1]\n"), tmp_path / "out")
    changed = suite(tmp_path, "[rounds]\ncount = 5\n[grid]\nseed = [0, 1]\n")
    _, _, launch = play(changed, tmp_path / "out", resume=True, launch=FakeRun({0: 2, 1: 2}))
    assert launch.started == [0, 1]


def test_a_used_folder_is_refused(tmp_path: Path):
    cells = suite(tmp_path, "[grid]\nseed = [0]\n")
    with pytest.raises(FolderError, match="not empty"):
        play(cells, tmp_path)


@pytest.mark.parametrize(
    ("name", "words"), [("config.json", "a single run, and no suite"), ("thesis.txt", "holds no suite")]
)
def test_a_folder_that_is_no_suites_is_not_resumed(tmp_path: Path, name, words):
    """That of a single run, and one of something else altogether: nothing is written into either."""
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    with pytest.raises(FolderError, match=f"output folder {out} .*{words} to resume: choose another --out"):
        play(suite(tmp_path, "[grid]\nseed = [0]\n"), out, resume=True)
    assert [path.name for path in out.iterdir()] == [name]


@pytest.mark.parametrize("begun", ["logs", "seed1", None])
def test_a_suite_that_had_hardly_begun_is_resumed(tmp_path: Path, begun):
    """It was killed before its first run had a folder; or its logs were thrown away; or it never made its folder."""
    out = tmp_path / "out"
    if begun:
        (out / begun).mkdir(parents=True)
    if begun == "seed1":
        (out / begun / "config.json").write_text("{}")
    results, _, _ = play(suite(tmp_path, "[grid]\nseed = [0]\n"), out, resume=True)
    assert [result.failure for result in results] == [""]


def test_stopping_stops_the_runs(tmp_path: Path):
    """Cancelled as by Ctrl-C: every process that was started has left its context."""
    ended = []

    @asynccontextmanager
    async def launch(arguments, errors):
        try:
            yield Endless()
        finally:
            ended.append(arguments)

    class Endless:
        async def wait(self):
            await asyncio.Event().wait()

    async def stopped():
        cells = suite(tmp_path, "[grid]\nseed = [0, 1, 2]\n")
        work = run_suite(cells, tmp_path / "out", jobs=2, resume=False, watcher=Watched(), launch=launch)
        task = asyncio.create_task(work)
        while len(list((tmp_path / "out").glob("logs/*"))) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped())
    assert len(ended) == 2
