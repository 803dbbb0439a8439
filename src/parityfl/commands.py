"""The commands beside a single run: schedules, suites, what logs and traces hold, what there is, conformance."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parityfl.core.errors import FolderError, UnfinishedError
from parityfl.options import (
    AsJson,
    AvailabilityName,
    Clients,
    ConfigFile,
    Method,
    PerRound,
    Rounds,
    Seed,
    SelectorName,
    Set,
    read_layers,
    resumable,
)
from parityfl.telling import tell

if TYPE_CHECKING:
    from parityfl.experiments.suite import Launch, Result
    from parityfl.reporting import Comparison

studies = typer.Typer()

OutFolder = Annotated[Path | None, typer.Option("--out", help="The folder to write into: absent or empty.")]


@studies.command()
def schedule(  # noqa: PLR0917
    context: typer.Context,
    config_file: ConfigFile = None,
    method: Method = None,
    selector: SelectorName = None,
    availability: AvailabilityName = None,
    clients: Clients = None,
    per_round: PerRound = None,
    rounds: Rounds = None,
    seed: Seed = None,
    assignments: Set = None,
    out: OutFolder = None,
    as_json: AsJson = False,
) -> None:
    """Play a selector on an availability model, without training. Prints who was selected how often."""
    from parityfl.experiments.schedule import check_out, resolve_schedule, run_schedule, write_schedule

    config = resolve_schedule(*read_layers(context.params))
    if out is not None:
        check_out(out)
    with resumable("nothing was written"):
        played = run_schedule(config, _round_bar)
    _show_figures(played.figures(), f"{config.selector.name} on {config.availability.name}", as_json)
    if out is not None:
        typer.echo(write_schedule(played, config, out), err=as_json)


@studies.command()
def suite(
    file: Annotated[
        Path, typer.Argument(metavar="SUITE.toml", help="Configuration tables, and a table `grid` of values.")
    ],
    out: Annotated[Path | None, typer.Option(help="The folder of the runs; runs/SUITE where none is given.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="How many runs at a time; by default one per core, with 2 GiB free for each."),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Ray cluster to run on: auto, HOST:PORT, or local.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what is done, go on with what is not.")] = False,
) -> None:
    """Run a grid of configurations and compare them. Exits with 3 where a run failed."""
    from parityfl.experiments.suite import read_suite, run_suite

    cells = read_suite(file)
    if ray is None and not resume:  # else there may be nothing to do
        from parityfl.experiments.local_cells import prepare

        prepare()
    from rich.console import Console

    import parityfl.reporting.report  # noqa: F401 - loaded while the other process imports torch
    from parityfl.experiments.blocking import run_until_stopped
    from parityfl.experiments.progress import SuiteProgress

    folder = Path("runs") / file.stem if out is None else out
    results: list[Result] = []
    with (
        _launching(jobs, len(cells), ray) as (count, launch),
        resumable(),
        SuiteProgress(Console(stderr=True), len(cells)) as bars,
    ):

        async def work() -> None:
            place = folder if ray is None else folder.resolve()
            results.extend(await run_suite(cells, place, jobs=count, resume=resume, watcher=bars, launch=launch))

        run_until_stopped(work)
    _conclude(folder, results)


@contextmanager
def _launching(jobs: int | None, cells: int, ray_address: str | None) -> Iterator[tuple[int, "Launch"]]:
    """Yield how many cells run at a time, and what starts one: here, or on a Ray cluster."""
    if ray_address is None:
        from parityfl.experiments.local_cells import launch_fork
        from parityfl.experiments.suite import usual_jobs
        from parityfl.workers.cores import cores

        count = jobs or usual_jobs(cells)
        yield count, partial(launch_fork, share=max(1, cores() // count))
        return
    from parityfl.experiments.ray_cells import launch_task
    from parityfl.workers.ray_cluster import connected

    with connected(ray_address) as ray:
        yield jobs or max(1, int(ray.cluster_resources().get("CPU", 1))), partial(launch_task, ray=ray)


def _conclude(folder: Path, results: "Sequence[Result]") -> None:
    """Compare the runs of a suite, and print its folder.

    Raises:
        UnfinishedError: a run failed.
        FolderError: the report cannot be written.
    """
    from parityfl.experiments.suite import absent

    failed = [result.cell.name for result in results if result.failure]
    try:
        if len(failed) < len(results):
            show_comparison(folder, absent(results, folder))
    except FolderError as error:
        if not failed:
            raise
        tell(str(error))  # the runs that failed decide how this ends
    finally:
        typer.echo(folder)
    if failed:
        raise UnfinishedError(f"{len(failed)} of {len(results)} runs failed: {', '.join(failed)}; go on with --resume")


@studies.command()
def audit(
    log: Annotated[Path, typer.Argument(metavar="LOG.csv", help="A row per round and client, of any framework.")],
    as_json: AsJson = False,
) -> None:
    """Compute the parity figures of any framework's log. A run's clients.csv will do."""
    from parityfl.reporting.audit import figures, read_log, reading

    rows = read_log(log)
    _show_figures(figures(rows), str(log), as_json, "" if as_json else reading(rows))


@studies.command()
def trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="FLASH's JSON, or a CSV client_id,start_s,end_s.")],
    intervals: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Write such a CSV instead, of the run whose folder FILE then is."),
    ] = None,
    rule: Annotated[str, typer.Option(help="What makes a device available (FLASH's JSON only).")] = "charging_wifi",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print models fitted to it, as TOML for a configuration.")
    ] = False,
    interval_s: Annotated[float, typer.Option("--interval", min=1, help="Seconds of a round, for --estimate.")] = 600.0,
) -> None:
    """Show what a trace file holds. Devices, span, pi, sojourn times, the day, a heat map."""
    from rich.console import Console

    from parityfl.reporting.replay import write_intervals
    from parityfl.reporting.trace import estimate_lines, read_trace, trace_view

    if intervals is not None:
        write_intervals(file, intervals)
        typer.echo(intervals)
        return
    recording = read_trace(file, rule)
    if estimate:
        typer.echo(estimate_lines(recording, interval_s))
    else:
        Console().print(trace_view(recording))


@studies.command("list")
def list_parts(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="presets, selectors, aggregators, objectives, availability, datasets or models."
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One of them: all about it, with its keys and defaults.")
    ] = None,
) -> None:
    """List what there is, with its source; or tell all about one."""
    from rich.console import Console

    from parityfl.listing import overview, whole

    for text in overview(kind) if name is None else [whole(kind, name)]:
        Console().print(text, soft_wrap=True)


@studies.command()
def conformance() -> None:
    """Check every selector and aggregator against exact answers. Takes a minute; exits with 3 where one is missed."""
    from parityfl.conformance.aggregation import aggregation_rows
    from parityfl.conformance.selection import hiding_rows, selection_rows

    verdicts: list[tuple[str, bool]] = []
    with resumable("nothing was settled"):
        for title, rows in (
            ("Aggregators: where they come to rest", aggregation_rows()),
            ("Selectors: the largest distance of a client from its exact value", selection_rows()),
        ):
            _say(f"{title} (measured, expected, tolerance)")
            for row in rows:
                figures = f"{row.measured:9.4f} for {row.expected:7.4f} ± {row.tolerance:<6g}"
                _say_verdict(row.ok, row.name, f"{figures} {row.claim}")
                verdicts.append((row.name, row.ok))
        _say("Hiding half of one's availability: utility over that of an honest client (measured, bound)")
        for hiding in hiding_rows():
            bound = "" if hiding.bound is None else f" at most {hiding.bound}"
            _say_verdict(hiding.ok, hiding.name, f"{hiding.ratio:9.4f}{bound}")
            verdicts.append((hiding.name, hiding.ok))
    missed = [name for name, ok in verdicts if not ok]
    if missed:
        raise UnfinishedError(f"{len(missed)} of {len(verdicts)} claims do not hold: {', '.join(missed)}")


def show_comparison(folder: Path, notes: Sequence[str] = ()) -> "tuple[Path, Comparison]":
    """Write the report of a run or a folder of runs; print its tables and what it warns of.

    Returns the page's path, and the comparison that it shows.

    Args:
        folder: of a run or of runs.
        notes: a line for each run that has no folder, with the reason.
    """
    from rich.console import Console

    from parityfl.reporting.report import write_comparison
    from parityfl.reporting.terminal import UNLIMITED, rich_differences, rich_table

    page, comparison = write_comparison(folder, notes)
    console = Console()
    if not console.is_terminal:
        console.width = UNLIMITED
    console.print(rich_table(comparison), rich_differences(comparison))
    for note in (*comparison.unpaired, *comparison.notes):
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    return page, comparison


def _say_verdict(ok: bool, name: str, text: str) -> None:
    _say(f"{'[green]ok    [/]' if ok else '[bold red]MISSED[/]'} {name:28} {text}")


def _say(text: str) -> None:
    from rich.console import Console

    Console().print(text, soft_wrap=True, highlight=False)


def _show_figures(figures: Mapping[str, float], title: str, as_json: bool, note: str = "") -> None:
    """Print figures as a table with a note below (none: the usual one), or as one JSON object and nothing else."""
    from rich.console import Console

    from parityfl.core.fairness import jsonable
    from parityfl.reporting.audit import ALONE, figures_table

    if as_json:
        typer.echo(json.dumps(jsonable(figures)))
    else:
        Console().print(figures_table(figures, title))
        typer.echo(note or ALONE)


def _round_bar(total: int) -> AbstractContextManager[Callable[[], None]]:
    from rich.console import Console

    from parityfl.experiments.progress import counting

    return counting(Console(stderr=True), "rounds", total)
