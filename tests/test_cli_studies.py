"""The commands that need no run: what they print, where, and how they end."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from parityfl.cli import _reported, main
from parityfl.config import (
    AggregatorSection,
    AvailabilitySection,
    Config,
    ObjectiveSection,
    SelectorSection,
)
from parityfl.core.presets import preset_names
from parityfl.listing import details

sys.path.insert(0, str(Path(__file__).parent / "reporting"))

from folders import write_run

EXAMPLE = ["--availability", "bernoulli", "--clients", "3", "--per-round", "1", "--rounds", "200"]
LOG = "round,client_id,available,participated\n1,a,1,1\n1,b,1,0\n2,a,1,0\n2,b,1,1\n"


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call the command line in a folder of its own; return exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["parityfl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_the_command_line_leaves_the_process_that_calls_it_alone():
    code = "import sys\nfrom parityfl.cli import main\nsys.argv = ['parityfl', '--version']\n"
    code += "try:\n    main()\nexcept SystemExit:\n    sys.exit(7)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 7


@pytest.mark.parametrize(
    "arguments", [("audit", "log.csv"), ("audit", "log.csv", "--json"), ("--help",), ("list", "selectors")]
)
def test_a_full_standard_output_is_one_line(tmp_path, arguments):
    (tmp_path / "log.csv").write_text(LOG)
    command = [sys.executable, "-m", "parityfl", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "standard output takes no more (No space left on device)" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process in this way")
def test_a_lack_of_memory_is_one_line():
    """A vector of the largest population takes 0.8 GB, and the process may have as much in all."""
    command = f"ulimit -v 800000; '{sys.executable}' -m parityfl schedule --clients 100000000"
    few = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=few)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "not enough memory (Unable to allocate" in done.stderr
    assert "lower population.clients" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_does_without_what_the_shell_has_closed(closed):
    command = f"'{sys.executable}' -m parityfl list selectors {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_schedule_writes_and_tells(call, tmp_path):
    code, out, err = call("schedule", "--selector", "lnu", *EXAMPLE, "--out", "runs/s")
    assert code == 0
    assert "conditional_selection_gap" in out
    assert out.rstrip().endswith("runs/s/schedule.csv")
    assert (tmp_path / "runs/s/schedule.csv").read_text().count("\n") == 4
    assert err == ""


def test_schedule_as_json_is_json_alone(call):
    code, out, err = call("schedule", "--selector", "lnu", *EXAMPLE, "--out", "s", "--json")
    figures = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert err.strip() == "s/schedule.csv"
    expected = "num_clients num_never_available num_rounds utility_cv utility_jain utility_gini"
    expected += " worst10_normalized_utility selection_gap conditional_selection_gap saturation participation_gini"
    expected += " select_s_per_round availability_s_per_round ledger_s_per_round"
    assert list(figures) == expected.split()


def test_schedule_writes_nothing_unasked(call, tmp_path):
    assert call("schedule", *EXAMPLE)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_schedule_reads_a_configuration(call, tmp_path):
    (tmp_path / "mine.toml").write_text('[selector]\nname = "uniform"\n[evaluation]\nevery = 5\n[rounds]\ncount = 7\n')
    _, out, _ = call("schedule", "mine.toml", "--clients", "5", "--json")
    figures = json.loads(out)
    assert (figures["num_rounds"], figures["num_clients"]) == (7, 5)


def test_a_report_names_the_run_that_cannot_be_read(call, tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name)
    (tmp_path / "runs" / "b" / "config.json").write_text("{")
    code, out, err = call("report", "runs")
    assert (code, err) == (0, "")
    assert "runs/b/config.json is not JSON" in out
    assert "Comparison" in out


def test_a_report_says_what_it_wrote_and_names_no_run_of_many(call, tmp_path):
    for seed in range(3):
        write_run(tmp_path / "runs" / "a" / str(seed), seed=seed)
    written = ["report.html", "table.csv", "table.md"]
    _, out, _ = call("report", "runs")
    shown = [*(f"runs/{name}" for name in written), "3 runs with clients.csv and rounds.csv below runs"]
    assert out.splitlines()[-4:] == shown
    _, out, _ = call("report", "runs/a/0")
    assert out.splitlines()[-5:] == [f"runs/a/0/{name}" for name in (*written, "clients.csv", "rounds.csv")]


def test_what_is_no_terminal_gets_tables_that_are_not_folded(call, tmp_path):
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b", method="mine" * 20, selector="lnu")
    _, out, _ = call("report", "runs")
    assert any(line.startswith("mine" * 20 + "  ") for line in out.splitlines())
    assert any(line.startswith("Global accuracy, moving average  ") for line in out.splitlines())


def test_a_report_says_why_a_pair_is_missing(call, tmp_path):
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b", method="mine", selector="lnu", seed=1)
    _, out, _ = call("report", "runs")
    assert "runs/b is unpaired: no finished fedavg run with seed 1\n" in out


def test_a_run_whose_report_cannot_be_written_is_done_all_the_same(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    (folder / "report.html").mkdir()
    with _reported(folder):
        pass
    err = capsys.readouterr().err
    assert err.startswith(f"parityfl: the run is done, in {folder}; its report is not: {folder}/report.html cannot be")
    assert err.count("\n") == 1


def test_undefined_is_null(call):
    _, out, _ = call("schedule", "--availability", "bernoulli", "--rounds", "3", "--set", "availability.pi=0", "--json")
    assert json.loads(out)["utility_cv"] is None


def test_audit(call, tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    assert "utility_jain" in call("audit", "log.csv")[1]
    code, out, _ = call("audit", "log.csv", "--json")
    assert code == 0
    assert json.loads(out)["utility_jain"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("schedule --selector lnuu", "did you mean 'lnu'"),
        ("schedule --availability bernoulli --clients 3 --per-round 1 --set utility.mu=[1]", "utility.mu has 1 values"),
        ("schedule --clients 2", "population.per_round = 4"),
        ("schedule --out .", "not empty"),
        ("audit bad.csv", "line 2: available = '3': write 0 or 1"),
        ("audit none.csv", "No such file"),
        ("trace none.json", "cannot read the trace none.json"),
        ("trace bad.csv --rule on", "unknown rule 'on'"),
        ("list sorts", "choose one of presets"),
        ("list sorts lnu", "choose one of presets"),
        ("list selectors lnuu", "did you mean 'lnu'?"),
        ("list presets fedagv", "did you mean 'fedavg'?"),
        ("suite none.toml", "cannot be read"),
        ("suite bad.toml", "cell fedagv: unknown method"),
    ],
)
def test_a_mistake_is_one_line(call, tmp_path, arguments, words):
    (tmp_path / "bad.csv").write_text("round,client_id,available,participated\n1,a,3,0\n")
    (tmp_path / "bad.toml").write_text('[grid]\nmethod = ["fedagv"]\n')
    code, out, err = call(*arguments.split())
    assert code == 2
    assert out == ""
    assert err.startswith("parityfl: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize("kind", ["presets", "selectors", "aggregators", "objectives", "availability", "datasets"])
def test_list_is_a_line_each(call, kind):
    code, out, _ = call("list", kind)
    lines = out.splitlines()
    assert code == 0
    assert all("  " in line and line.endswith("]") for line in lines)
    assert lines == sorted(lines)


def test_list_knows_what_is_registered(call, restored):
    from dataclasses import dataclass

    from parityfl.core.selection import selector
    from parityfl.core.selection.uniform import Uniform

    restored(selector)

    @selector("of-a-test")
    @dataclass(frozen=True)
    class Mine(Uniform):
        """Select as a test does."""

    assert "of-a-test" in selector.names()
    out = call("list", "selectors")[1]
    line = next(line for line in out.splitlines() if line.startswith("of-a-test "))
    assert line.endswith("  Select as a test does.  [McMahan et al., AISTATS 2017]")


def test_a_part_without_a_source_has_no_brackets(call, restored):
    from dataclasses import dataclass

    from parityfl.core.objectives import Objective, objective

    restored(objective)

    @objective("of-a-test")
    @dataclass(frozen=True)
    class Mine(Objective):
        """Nobody has published this."""

    line = next(line for line in call("list", "objectives")[1].splitlines() if line.startswith("of-a-test "))
    assert line.split("  ", 1)[1].strip() == "Nobody has published this."
    assert call("list", "objectives", "of-a-test")[1].splitlines()[0] == "of-a-test"


def test_list_tells_all_about_one_part(call):
    code, out, _ = call("list", "selectors", "inverse-availability")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("inverse-availability  [Behfar")
    assert "mode: " in out
    assert lines[-3:] == ["[selector]", 'name = "inverse-availability"', 'mode = "random"']


PARTS = {
    "selectors": SelectorSection,
    "aggregators": AggregatorSection,
    "objectives": ObjectiveSection,
    "availability": AvailabilitySection,
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, section in PARTS.items() for name in section.registry.names()]
)
def test_the_toml_that_list_tells_is_the_part_with_its_defaults(kind, name):
    (keys,) = tomllib.loads(details(kind, name).toml).values()
    section = PARTS[kind](**keys)
    assert section.name == name
    assert section.build() == PARTS[kind].registry.get(name)()


@pytest.mark.parametrize("name", preset_names())
def test_the_toml_that_list_tells_of_a_preset_is_what_it_sets(name):
    shown = Config.load(None, {**tomllib.loads(details("presets", name).toml), "method": name})
    assert shown == Config.preset(name)


def test_help_says_what_every_command_does_without_cutting_it_off(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ([], ["devices"]):
        code, out, _ = call(*command, "--help")
        assert code == 0
        assert "Commands:" in out
        assert "..." not in out.partition("Commands:")[2]
