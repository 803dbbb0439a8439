"""docs/commands.md names every command and option, and its examples run."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer

from parityfl.cli import app, main
from parityfl.options import SETS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "commands.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands


def section(name: str) -> str:
    return PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]


def examples() -> list[str]:
    """The lines of every block of commands that is not marked as one that is not run."""
    blocks = re.findall(r"(<!-- not run[^\n]*-->\n)?```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    return [line for mark, block in blocks if not mark for line in block.replace("\\\n", "").splitlines()]


def write_files(folder: Path) -> None:
    for name, content in re.findall(r"`([\w.-]+)`:\n\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL):
        (folder / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_documented(name):
    page = section(name)
    for parameter in COMMANDS[name].params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        names = parameter.opts if isinstance(parameter, typer.core.TyperOption) else [parameter.metavar.strip("[]")]
        assert all(f"`{option}" in page or f" {option}" in page for option in names), f"{name}: {names}"
    assert f"[`{name}`](#{name})" in PAGE
    assert f"parityfl {name}" in page


@pytest.mark.parametrize("line", examples())
def test_examples_run(line, tmp_path, monkeypatch, capsys):
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    assert capsys.readouterr().out


def test_every_option_of_a_run_but_how_it_is_run_sets_a_configuration_key():
    others = {"config_file", "assignments", "out", "resume", "log_level", "leash", "help"}
    assert {parameter.name for parameter in COMMANDS["run"].params} - others == set(SETS)


def test_columns_of_a_schedule_are_documented():
    from parityfl.experiments.schedule import COLUMNS

    assert all(f"`{column}`" in section("schedule") for column in COLUMNS)


def test_the_suite_of_the_page_is_the_example():
    page = (DOCS / "suites.md").read_text(encoding="utf-8")
    assert f"```toml\n{(DOCS / 'examples' / 'small-suite.toml').read_text(encoding='utf-8')}```" in page
