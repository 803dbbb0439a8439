"""The public names, and what importing them costs."""

import json
import math
import pkgutil
import re
import subprocess
import sys
from importlib import import_module

import pytest

import parityfl

HEAVY = {"torch", "torchvision", "fastapi", "polars", "matplotlib", "sklearn", "scipy", "ray"}
WEB = {"fastapi", "starlette", "uvicorn", "httpx"}

NEVER = {
    "parityfl.core": HEAVY | WEB | {"pydantic", "safetensors", "typer", "rich", "psutil", "jinja2"},
    "parityfl.testing": HEAVY | WEB | {"pydantic", "safetensors", "typer", "rich", "pytest"},
    "parityfl.config": HEAVY | WEB | {"safetensors"},
    "parityfl.wire": HEAVY | WEB,
    "parityfl.engine": HEAVY | WEB | {"pydantic"},
    "parityfl.training": WEB | {"polars", "matplotlib"},
    "parityfl.client": {"polars", "matplotlib", "parityfl.coordinator", "parityfl.experiments", "parityfl.engine"},
    "parityfl.coordinator": (HEAVY - {"fastapi"}) | {"parityfl.client", "parityfl.training", "parityfl.experiments"},
    "parityfl.workers": WEB | {"polars", "matplotlib"},
    "parityfl.conformance": HEAVY | WEB,
    "parityfl.experiments": {"polars", "matplotlib", "parityfl.client.app", "parityfl.reporting"},
    "parityfl.reporting": WEB | {"torch", "sklearn", "pydantic", "parityfl.config", "parityfl.engine"},
    "parityfl.cli": HEAVY | WEB | {"pydantic", "numpy"},
}
"""What may not be in memory once all modules of a package are imported."""


def test_the_public_names():
    assert parityfl.__all__ == [
        "Aggregator",
        "AvailabilityModel",
        "AvailabilityProcess",
        "Config",
        "ConfigError",
        "Ledger",
        "ParityflError",
        "RoundContext",
        "RoundRecord",
        "Run",
        "Selection",
        "Selector",
        "State",
        "Step",
        "Update",
        "View",
        "World",
        "aggregator",
        "availability",
        "load",
        "run",
        "selector",
        "testing",
    ]


@pytest.mark.parametrize("name", parityfl.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(parityfl, name)
    assert value.__doc__
    assert name in parityfl._HOMES


def test_the_public_names_are_seen_before_they_are_used():
    """In a process of its own: here others have used some."""
    code = "import parityfl, pydoc\nassert dir(parityfl) == sorted(parityfl.__all__)\nprint(pydoc.render_doc(parityfl))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = re.sub(".\b", "", done.stdout)  # pydoc prints what is bold twice
    assert all(name in shown for name in parityfl.__all__)
    assert "class Selector(" in shown


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'Selecto'"):
        _ = parityfl.Selecto


def test_the_checks_are_there():
    assert parityfl.testing.__all__ == ["check_aggregator", "check_availability", "check_selector"]
    assert all(getattr(parityfl.testing, name).__doc__ for name in parityfl.testing.__all__)


def loaded_by(code):
    """Return the names of all modules in memory after a piece of code, run in a process of its own."""
    ending = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(name):
    package = import_module(name)
    if not hasattr(package, "__path__"):
        return [name]
    return [name, *(found.name for found in pkgutil.walk_packages(package.__path__, f"{name}."))]


@pytest.mark.parametrize("name", NEVER)
def test_a_package_imports_nothing_that_it_should_not(name):
    loaded = loaded_by("import " + ", ".join(modules_of(name)))
    assert name in loaded
    assert not loaded & NEVER[name]


def test_the_core_is_numpy_and_the_standard_library():
    """What numpy's own extension modules leave behind (cython's run time) is numpy's."""
    loaded = loaded_by("import " + ", ".join(modules_of("parityfl.core"))) - loaded_by("import numpy, numpy.random")
    others = {module.partition(".")[0] for module in loaded} - set(sys.stdlib_module_names)
    assert others <= {"parityfl", "numpy", "ml_dtypes"}  # the latter is numpy's bfloat16


def test_importing_the_package_imports_nothing_else():
    ours = {module for module in loaded_by("import parityfl") if module.startswith("parityfl")}
    assert ours == {"parityfl"}
    assert not loaded_by("import parityfl") & (HEAVY | WEB | {"numpy", "pydantic"})


def test_the_help_is_quick():
    code = "import sys\nfrom parityfl.cli import main\nsys.argv = ['parityfl', '--help']\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass"
    assert not loaded_by(code) & (HEAVY | WEB | {"numpy", "pydantic", "rich"})


def test_what_workers_are_forked_from_ends_as_it_should_when_somebody_else_imports_it():
    code = "import parityfl.workers.preload\nraise SystemExit(3)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3


def test_a_configuration_needs_no_torch():
    assert not loaded_by("import parityfl\nparityfl.Config()") & (HEAVY | WEB)


SHORT = {"population.clients": 3, "population.per_round": 2, "availability.name": "always", "rounds.count": 3}


class EnoughError(Exception):
    """What a caller raises who has seen enough."""


def test_the_caller_is_told_each_round_once_in_order_and_may_end_the_run(tmp_path):
    """A round is on disk when it is told of, and the run goes on after it, to the hashes of one that was left alone."""
    seen, config = [], parityfl.Config.load(None, SHORT)

    def watch(figures):
        lines = (tmp_path / "run" / "rounds.csv").read_text().splitlines()
        assert len(lines) == 1 + figures["round"]
        assert (figures["num_participated"], math.isnan(figures["global_accuracy"])) == (2, False)
        seen.append(figures["round"])
        if len(seen) == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        parityfl.run(config, tmp_path / "run", on_round=watch)
    assert parityfl.load(tmp_path / "run").summary["status"] == "interrupted"
    ended = parityfl.run(config, tmp_path / "run", resume=True, on_round=watch).summary
    assert seen == [1, 2, 3]
    whole = parityfl.run(config, tmp_path / "whole").summary
    assert all(ended[key] == whole[key] for key in ("model_hash", "ledger_hash", "status"))


def test_rounds_of_another_process_cannot_be_told(tmp_path):
    config = parityfl.Config.load(None, {**SHORT, "engine.name": "http"})
    with pytest.raises(parityfl.ParityflError, match=r"on_round with engine\.name = 'http'"):
        parityfl.run(config, tmp_path / "run", on_round=print)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [{"seed": 1}, "run.toml", None])
def test_what_is_no_configuration_is_told_in_one_line(given, tmp_path):
    with pytest.raises(parityfl.ConfigError, match=r"Config\.load") as refused:
        parityfl.run(given, tmp_path / "run")
    assert repr(given) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_run_is_shown_in_one_line(tmp_path):
    config = parityfl.Config.load(None, {**SHORT, "seed": 5})
    run = parityfl.run(config, tmp_path / "run")
    where = f"path={str(tmp_path / 'run')!r}, hash={run.config['hash']!r}"
    assert repr(run) == f"Run(method='parityfl', seed=5, rounds=3, {where})"
