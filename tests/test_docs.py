"""What a user can set, read or list is documented, and the examples of the documentation run."""

import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path

import pytest

from parityfl.config import Config, Part, Section
from parityfl.core.aggregation import aggregator
from parityfl.core.availability import availability
from parityfl.core.columns import CLIENT_COLUMNS, ROUND_COLUMNS, SHORTFALL_COLUMNS
from parityfl.core.ledger import Ledger
from parityfl.core.objectives import objective
from parityfl.core.presets import preset_names
from parityfl.core.selection import selector
from parityfl.listing import REGISTRIES, entries
from parityfl.wire.schemas import EvaluateReply, EvaluateRequest, InitialReply, TrainReply, TrainRequest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TRACE = ROOT.parent / "shared" / "data" / "flash-100.json"

SECTIONS = {name: info.default for name, info in Config.model_fields.items() if isinstance(info.default, Section)}
PLAIN = [name for name, section in SECTIONS.items() if not isinstance(section, Part)]
PARTS = {"selector": selector, "aggregator": aggregator, "availability": availability, "objective": objective}
EVERY_PART = [(kind, name) for kind, registry in PARTS.items() for name in registry.names()]


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def heading(text, title):
    """Return what stands under a heading, up to the next one of its level or above."""
    level = title.partition(" ")[0]
    assert f"\n{title}\n" in text, f"no heading {title!r}"
    return re.split(rf"\n#{{1,{len(level)}}} ", text.split(f"\n{title}\n", 1)[1])[0]


def rows(text):
    """Return the table rows of a text by what is in backticks in the first cell."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return {name: line for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def spelled(value):
    """Return how a default is written in the documentation."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def default_of(field):
    return field.default if field.default is not MISSING else field.default_factory()


# Configuration.


@pytest.mark.parametrize("section", PLAIN)
def test_every_key_of_a_section_is_documented_with_its_default(section):
    table = rows(heading(page("configuration.md"), f"## [{section}]"))
    assert list(table) == list(type(SECTIONS[section]).model_fields)
    for key, line in table.items():
        default = getattr(SECTIONS[section], key)
        if (section, key) not in {("engine", "processes"), ("engine", "workers")}:
            assert spelled(default) in line.split("|")[2], f"{section}.{key}: the default is {spelled(default)}"


def test_every_key_of_the_top_level_is_documented():
    table = rows(heading(page("configuration.md"), "## Top level"))
    assert list(table) == [name for name in Config.model_fields if name not in SECTIONS]
    sections = re.findall(r"^## \[(\w+)\]$", page("configuration.md"), flags=re.MULTILINE)
    assert sections == list(SECTIONS)


@pytest.mark.parametrize(("kind", "name"), EVERY_PART)
def test_every_key_of_a_part_is_documented_with_its_default(kind, name):
    table = rows(heading(page("configuration.md"), f"## [{kind}]"))
    assert set(table) == set(PARTS[kind].names())
    keys = fields(PARTS[kind].get(name))
    documented = re.findall(r"(?:^ |, )`(\w+)`", table[name].split("|")[2])
    assert documented == [key.name for key in keys]
    for key in keys:
        default = default_of(key)
        if isinstance(default, str | int | float | None) and default != "":
            written = spelled(default)
            assert f"`{key.name}` ({written})" in table[name] or f"`{key.name}` (`{written}`)" in table[name]


def test_the_default_part_of_each_kind_is_marked():
    for kind in PARTS:
        line = rows(heading(page("configuration.md"), f"## [{kind}]"))[SECTIONS[kind].name]
        assert "the default" in line.split("|")[1]


# What there is.


@pytest.mark.parametrize(("kind", "name"), [each for each in EVERY_PART if each[0] != "availability"])
def test_every_method_has_its_section_with_its_keys(kind, name):
    text = heading(page("methods.md"), f"### `{name}`")
    for key in fields(PARTS[kind].get(name)):
        assert key.name == "server_lr" or f"`{key.name}`" in text, f"{name}: {key.name}"


@pytest.mark.parametrize("name", availability.names())
def test_every_availability_model_has_its_row_with_its_keys(name):
    line = rows(heading(page("availability.md"), "## The models"))[name]
    assert all(f"`{key.name}`" in line for key in fields(availability.get(name)))


def test_every_preset_is_documented():
    assert set(rows(heading(page("methods.md"), "## Presets"))) == set(preset_names())


@pytest.mark.parametrize(("kind", "title"), [("datasets", "## Data sets"), ("models", "## Models")])
def test_every_data_set_and_model_is_documented(kind, title):
    assert {entry.name for entry in entries(kind)} <= set(rows(heading(page("data.md"), title)))


def test_every_partition_is_documented():
    names = re.findall(r"'([\w-]+)'", str(type(SECTIONS["population"]).model_fields["partition"].annotation))
    assert len(names) == 4
    assert all(f"`{name}`" in heading(page("data.md"), "## Partitions") for name in names)


# Parts of one's own.


def test_all_that_a_part_may_read_of_the_ledger_is_documented():
    names = list(rows(heading(page("configuration.md"), "## Parts of one's own")))
    properties = [name for name, value in vars(Ledger).items() if isinstance(value, property)]
    assert sorted(set(names) - {"view.ledger"}) == sorted([key.name for key in fields(Ledger)] + properties)


def test_every_group_of_entry_points_is_documented():
    groups = re.search(r"The groups are (.*?)\.\s", page("configuration.md"), flags=re.DOTALL)[1]
    registered = [getattr(import_module(module), name).group for module, name in REGISTRIES.values()]
    assert re.findall(r"`([\w.]+)`", groups) == registered


# What a run writes.


@pytest.mark.parametrize(
    ("title", "columns"),
    [
        ("## 1. rounds.csv: a row per round", ROUND_COLUMNS),
        ("## 2. clients.csv: a row per round and client", CLIENT_COLUMNS),
        ("## 5. shortfall.csv: a row per client, at the end", SHORTFALL_COLUMNS),
    ],
)
def test_every_column_is_documented(title, columns):
    documented = set(rows(heading(page("metrics.md"), title)))
    assert [column for column in columns if column not in documented] == []


# What devices and the coordinator say to each other.


@pytest.mark.parametrize("message", [TrainRequest, TrainReply, EvaluateRequest, EvaluateReply, InitialReply])
def test_every_field_of_a_message_in_a_document_is_documented_with_its_default(message):
    table = rows(heading(page("http-api.md"), f"### {message.__name__}"))
    documented = {name: line.split("|")[2].strip() for name, line in table.items()}
    schema = message.model_json_schema()
    defaults = {name: about.get("default") for name, about in schema["properties"].items()}
    written = {name: "null" if default is None else str(default) for name, default in defaults.items()}
    assert documented == written | dict.fromkeys(schema["required"], "required")


# Links and examples.

PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


def anchors(text):
    """Return the anchors that headings get, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), f"{path.name} links to {target}"
        if anchor and other.suffix == ".md":
            assert anchor in anchors(other.read_text(encoding="utf-8")), f"{path.name} links to {target}"


def examples(path):
    """Return the Python of a page, its blocks one after the other; ``python no-run`` is not run."""
    text = path.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))


def write_what_examples_read(code, folder):
    """Write the runs and the trace that the examples of a page speak of."""
    if "trace.json" in code:
        if not TRACE.is_file():
            pytest.skip("the examples read a trace that is not here")
        shutil.copy(TRACE, folder / "trace.json")
    if 'find_runs("runs")' in code:
        write_run = runpy.run_path(str(ROOT / "tests" / "reporting" / "folders.py"))["write_run"]
        for name in ("fedavg", "mine"):
            write_run(folder / "runs" / name, method=name)


@pytest.mark.parametrize("path", [path for path in PAGES if examples(path)], ids=lambda path: path.name)
def test_python_examples_run(path, tmp_path):
    code = examples(path)
    write_what_examples_read(code, tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
