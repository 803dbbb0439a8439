"""The HTML report of a run or of a folder of runs: one file that opens offline."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from parityfl.core.errors import FolderError
from parityfl.core.presets import method_label
from parityfl.files import replace_file, writing
from parityfl.reporting.captions import captions
from parityfl.reporting.coabsence import co_absence
from parityfl.reporting.compare import compare, compare_kept, compared
from parityfl.reporting.comparison import ComparedRun, Comparison
from parityfl.reporting.findings import headlines, left_out, warnings
from parityfl.reporting.load import CONFIG, RunData, load_run, run_folders, unfinished
from parityfl.reporting.method_figures import METHOD_FIGURES, paired_differences
from parityfl.reporting.netgain import without_losses
from parityfl.reporting.reaching import paces
from parityfl.reporting.requested import availability_line, dropout_line
from parityfl.reporting.run_figures import END_FIGURES, RUN_FIGURES
from parityfl.reporting.standing import standing
from parityfl.reporting.svg import to_svg
from parityfl.reporting.tables import (
    difference_cells,
    made_with,
    number,
    pace_cells,
    significant,
    write_csv,
    write_markdown,
)
from parityfl.reporting.verdicts import verdicts

REPORT = "report.html"

MOST_CLIENTS = 1000
"""The page lists so many clients; of more, those with the least utility per opportunity, and who has none last."""

MOST_PAIRS = 20
"""The page lists so many pairs of clients that are absent together."""


NOTES = {
    "clip_rate": "of the updates so far had a weight that aggregator.clip cut",
    "credit_low_rate": "of the credits so far were raised to selector.credit_low",
    "credit_high_rate": "of the credits so far were cut to selector.credit_high",
}
"""What the notes of the methods that ship are shares of."""


def write_report(path: str | Path) -> Path:
    """Write report.html, table.csv and table.md into a run folder or a folder of runs; return the report's path.

    Of several runs those that cannot be read are named, and the others are compared.

    Raises:
        FolderError: there is no run at or below `path`, none can be read, or the files cannot be written.
    """
    return write_comparison(Path(path))[0]


def write_comparison(folder: Path, notes: Sequence[str] = ()) -> tuple[Path, Comparison]:
    """Do what `write_report` does; return the report's path and the comparison that it shows.

    Args:
        folder: of a run or of runs.
        notes: a line for each run that has no folder, with the reason.
    """
    if os.path.exists(folder / CONFIG):  # Path.exists fails on a folder that may not be searched
        run = load_run(folder)
        page, comparison = run_page(run), compare([run])
    else:
        comparison = compare_below(folder, notes)
        page = comparison_page(folder, comparison, _report_of)
    csv, markdown, report = folder / "table.csv", folder / "table.md", folder / REPORT
    remedy = f"make room for it, or the folder writable, and run parityfl report {quote(str(folder))}"
    with writing(csv, remedy=remedy):
        write_csv(comparison, csv)
    with writing(markdown, remedy=remedy):
        write_markdown(comparison, markdown)
    with writing(report, remedy=remedy):  # the last one: where it is newer than the run, nothing is missing
        replace_file(report, page.encode(), shared=True)
    return report, comparison


def run_page(run: RunData) -> str:
    """Return the report of one run as HTML."""
    clients, run = standing(run), without_losses(run)
    figures = RUN_FIGURES if run.shortfall is None else {**RUN_FIGURES, **END_FIGURES}
    return render(
        "run.html.jinja",
        run=run,
        headlines=headlines(run, clients),
        warnings=warnings(run, clients),
        left_out=left_out(clients),
        together=co_absence(run.rounds, run.clients),
        most_pairs=MOST_PAIRS,
        drawings={name: to_svg(draw(run), name, label) for name, (draw, label) in figures.items()},
        facts=_facts(run, clients),
        label=method_label(run.config),
        again=quote(f"../{os.path.basename(os.path.abspath(run.path))}-again"),  # beside the run, not within it
        config=json.dumps(run.config, indent=2),
        clients=_listed(clients).to_dicts(),
        num_clients=clients.height,
        personal=clients["personal_accuracy"].count() > 0,
    )


def comparison_page(folder: Path, comparison: Comparison, page_of: Callable[[Path, Path], str]) -> str:
    """Return the report of a folder of runs as HTML.

    Args:
        folder: the folder.
        comparison: of the runs in it.
        page_of: says where the page of one of them is: takes the folder and the run's, returns a link or nothing.
    """
    return render(
        "comparison.html.jinja",
        comparison=comparison,
        made_with=made_with(comparison),
        metrics=comparison.metrics,
        verdicts=verdicts(comparison),
        differences=difference_cells(comparison.differences),
        paces=pace_cells(paces(comparison)),
        sections=[_section(comparison, setting, index) for index, setting in enumerate(comparison.settings)],
        runs=[_run_line(folder, run, page_of(folder, run.path)) for run in comparison.runs],
        live=sum(run.live for run in comparison.runs),
    )


def compare_below(folder: Path, notes: Sequence[str] = ()) -> Comparison:
    """Return the comparison of the runs at and below `folder`; its notes name the runs that cannot be read, too.

    Args:
        folder: of runs.
        notes: more notes.

    Raises:
        FolderError: there is none, or none can be read.
    """
    runs, unread = list[ComparedRun](), list[str]()
    for path in run_folders(folder):
        try:
            runs.append(compared(load_run(path)))
        except FolderError as error:
            unread.append(str(error))
    if not runs and unread:
        raise FolderError(f"{folder} holds no run that can be read: {unread[0]}")
    if not runs:
        raise FolderError(f"{folder} holds no run: expected a run folder, or folders with a summary.json below it")
    comparison = compare_kept(runs)
    return replace(comparison, notes=(*comparison.notes, *unread, *notes))


def render(template: str, **values: Any) -> str:
    """Return a page from the template of that name."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("parityfl.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, significant=significant)
    return environment


def _listed(clients: pl.DataFrame) -> pl.DataFrame:
    if clients.height <= MOST_CLIENTS:
        return clients
    return clients.sort("normalized_utility", nulls_last=True, maintain_order=True).head(MOST_CLIENTS)


def _facts(run: RunData, clients: pl.DataFrame) -> dict[str, str]:
    """Return what the page says about how the run was made, by title."""
    config, planned = run.config, run.rounds_planned
    population = config.get("population", {})
    versions = config.get("versions", {})
    facts = {
        "Method": method_label(config),
        **{part.capitalize(): config.get(part, {}).get("name") for part in ("selector", "aggregator", "objective")},
        "Seed": run.seed,
        "Clients": f"{population.get('clients')}, {population.get('per_round')} wanted per round",
        "Partition": population.get("partition"),
        "Data": config.get("data", {}).get("name"),
        "Model": config.get("model", {}).get("name"),
        "Availability": config.get("availability", {}).get("name"),
        "Availability, requested and realised": availability_line(run),
        "Drop-out, requested and realised": dropout_line(run, clients),
        "Utility": config.get("utility", {}).get("functional"),
        "Rounds": f"{run.rounds.height} of {planned}",
        "Engine": config.get("engine", {}).get("name"),
        "Status": run.status,
        **_notes(run),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Configuration hash": config.get("hash"),
        "Model hash": run.summary.get("model_hash"),
        "Ledger hash": run.summary.get("ledger_hash"),
    }
    return {title: str(value) for title, value in facts.items() if value not in (None, "")}


def _notes(run: RunData) -> dict[str, str]:
    """Return the figures that the method itself noted, by title; a method that does not ship may note any."""
    known = {name: value for name, value in run.summary.get("notes", {}).items() if value is not None}
    return {
        name.replace("_", " ").capitalize(): f"{significant(value)} {NOTES.get(name, '')}".rstrip()
        for name, value in known.items()
    }


def _section(comparison: Comparison, setting: str, index: int) -> dict[str, Any]:
    """Return what the page draws for one setting: methods that have runs, and no others."""
    rows = [row for row in comparison.rows if row.setting == setting and row.runs]
    figures = {name: (draw(rows), label) for name, (draw, label) in METHOD_FIGURES.items()} if rows else {}
    if any(d.setting == setting and d.pairs == "seeds" for d in comparison.differences):
        label = f"Paired differences from {comparison.baseline}, with 95 % intervals"
        figures["differences"] = (paired_differences(comparison, setting), label)
    drawings = {name: to_svg(figure, f"{name}-{index}", label) for name, (figure, label) in figures.items()}
    return {"setting": setting, "drawings": drawings, "captions": captions(rows)}


def _report_of(folder: Path, run: Path) -> str:
    page = run / REPORT
    return page.relative_to(folder).as_posix() if page.exists() else ""


def _run_line(folder: Path, run: ComparedRun, link: str) -> dict[str, str]:
    return {
        "name": run.path.relative_to(folder).as_posix(),
        "link": link,
        "seed": str(run.seed),
        "status": unfinished(run) or "done",
        "model_hash": str(run.summary.get("model_hash", ""))[:12],
    }
