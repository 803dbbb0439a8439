"""The command line, and with it the composition root: parse, build, call.

Everything heavy is imported by the command that needs it, so that ``parityfl --help`` is quick.
"""

import atexit
import errno
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from parityfl.commands import show_comparison, studies
from parityfl.core.errors import ConfigError, ParityflError, UnfinishedError, first_line
from parityfl.options import (
    AggregatorName,
    AvailabilityName,
    Clients,
    ConfigFile,
    Dataset,
    EngineName,
    JoinTokenFile,
    Leash,
    LogLevel,
    Method,
    Out,
    PerRound,
    Resume,
    Rounds,
    Seed,
    SelectorName,
    Set,
    TlsCa,
    TlsCert,
    TlsKey,
    read_config,
    resumable,
)
from parityfl.telling import tell
from parityfl.trust_commands import trust as trust_commands

if TYPE_CHECKING:
    from parityfl.config import Config
    from parityfl.engine.fleet import Observer

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What a disk says that is full."""

_SELDOM = 50_000
"""How many more objects there are before Python looks for garbage, where it does at 700 by itself: it looks through all
that torch and matplotlib make when imported, which stays, and that was a twentieth of a short run."""

app = typer.Typer(
    name="parityfl",
    help="Federated learning for clients that come and go: who takes part, who benefits, over the whole run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all else that --help does
)
app.add_typer(studies)
app.add_typer(trust_commands)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Federated learning for clients that come and go: who takes part, who benefits, over the whole run."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("parityfl"))
        raise typer.Exit


@app.command()
def run(  # noqa: PLR0917
    context: typer.Context,
    config_file: ConfigFile = None,
    method: Method = None,
    selector: SelectorName = None,
    aggregator: AggregatorName = None,
    dataset: Dataset = None,
    availability: AvailabilityName = None,
    clients: Clients = None,
    per_round: PerRound = None,
    rounds: Rounds = None,
    seed: Seed = None,
    engine: EngineName = None,
    assignments: Set = None,
    out: Out = None,
    resume: Resume = False,
    log_level: LogLevel = "warning",
    leash: Leash = False,
) -> None:
    """Run one method once, with its report. Prints the run folder last."""
    config = read_config(context.params)
    from parityfl.experiments.run import execute

    folder = _folder(config, out, resume)
    _prepare_process(log_level, leash)
    with _reported(folder), resumable(f"go on with --resume --out {folder}"):
        execute(config, folder, resume=resume, watch=lambda: _progress(config), say=tell)
    typer.echo(folder)


@app.command()
def coordinator(  # noqa: PLR0917
    context: typer.Context,
    config_file: ConfigFile = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8080,
    min_clients: Annotated[
        int | None, typer.Option(help="Begin once this many devices have loaded their data.")
    ] = None,
    start_within: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End the run if they have not come by then; else wait on.")
    ] = None,
    keep_serving: Annotated[
        bool, typer.Option("--keep-serving", help="Go on serving when the rounds are done.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A host, or a network, that devices may name as their own.")
    ] = None,
    allow_anyone: Annotated[
        bool, typer.Option("--allow-anyone", help="Do without credentials: whoever reaches the port may do anything.")
    ] = False,
    join_token_file: JoinTokenFile = None,
    operator_token_file: Annotated[
        Path | None, typer.Option(help="A file with the operators' token; or set PARITYFL_OPERATOR_TOKEN (_FILE).")
    ] = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    method: Method = None,
    selector: SelectorName = None,
    aggregator: AggregatorName = None,
    dataset: Dataset = None,
    availability: AvailabilityName = None,
    clients: Clients = None,
    per_round: PerRound = None,
    rounds: Rounds = None,
    seed: Seed = None,
    engine: EngineName = None,
    assignments: Set = None,
    out: Out = None,
    resume: Resume = False,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket of the parent process.")] = None,
    log_level: LogLevel = "info",
    leash: Leash = False,
) -> None:
    """Serve a run: wait for devices, train, tell them to leave."""
    if engine not in {None, "http"}:
        raise ConfigError(f"--engine {engine}: a coordinator's devices are reached over http; leave it out, or use run")
    lowest = {"rounds": {"clock": "wall"}, "engine": {"name": "http"}}
    config = read_config({**context.params, "engine": "http"}, lowest)
    from parityfl.coordinator.serve import Service
    from parityfl.coordinator.trust import Trust
    from parityfl.experiments.coordinate import coordinate
    from parityfl.web import server
    from parityfl.web.secrets import JOIN_TOKEN, OPERATOR_TOKEN, read_token
    from parityfl.web.tls import Tls

    _prepare_process(log_level, leash)
    folder = _folder(config, out, resume)
    trust = Trust(
        join_token=read_token(JOIN_TOKEN, join_token_file),
        operator_token=read_token(OPERATOR_TOKEN, operator_token_file),
        anyone=allow_anyone,
        tls=Tls(tls_cert, tls_key, tls_ca),
    )
    listening = server.bind(host, port) if fd is None else server.adopt(fd)
    trust.check(listening)
    if trust.tls.authority is not None and not trust.tls.serves:
        tell("without --tls-cert and --tls-key this coordinator listens without TLS; --tls-ca is for calling devices")
    address = f"{trust.tls.scheme}://{server.authority(host, server.port_of(listening))}"
    service = Service(
        min_clients=min_clients,
        start_within_s=start_within,
        keep_serving=keep_serving,
        allowed_hosts=allow_host or (),
        trust=trust,
        announce=lambda: typer.echo(f"coordinator on {address}", err=True),
        report=lambda: _report_so_far(folder),
    )
    with nullcontext() if fd is not None else _reported(folder), resumable(f"go on with --resume --out {folder}"):
        server.run(
            coordinate(config, folder, listening, service, resume=resume, watch=lambda: _progress(config), say=tell)
        )
    if fd is None:
        typer.echo(folder)


@app.command()
def client(  # noqa: PLR0917
    device: Annotated[str, typer.Option("--device-id", "--device_id", help="The name of this device.")] = "",
    devices: Annotated[str, typer.Option(help="Several devices in one process: h0,h1 or h0..h9.")] = "",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 5000,
    server: Annotated[str, typer.Option("--server", "--server_ip", help="The coordinator: a URL or a host.")] = "",
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    advertise: Annotated[str | None, typer.Option(help="The host that the coordinator should call.")] = None,
    patience: Annotated[float, typer.Option(help="Seconds to wait for an absent coordinator.")] = 60.0,
    state: Annotated[Path | None, typer.Option(help="A folder for what devices keep between rounds.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="This device's own data: a folder with a sub-folder of images per class, or arrays."),
    ] = None,
    pull: Annotated[bool, typer.Option("--pull", help="Ask for work instead of listening: behind NAT.")] = False,
    join_token_file: JoinTokenFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    log_level: LogLevel = "info",
    leash: Leash = False,
) -> None:
    """Be one device or several: register, train, leave when told."""
    if bool(device) == bool(devices):
        raise ConfigError("name the device with --device-id h0, or several with --devices h0,h1 or h0..h9")
    if not server:
        raise ConfigError("--server is missing: name the coordinator, such as --server http://10.0.0.5:8080")
    from parityfl.client.serve import serve
    from parityfl.client.settings import Settings, parse_devices, server_url
    from parityfl.web import server as web
    from parityfl.web.secrets import JOIN_TOKEN, read_token
    from parityfl.web.tls import Tls

    _prepare_process(log_level, leash)
    settings = Settings(
        server=server_url(server),
        device_ids=parse_devices(device or devices),
        port=port,
        host=host,
        advertise=advertise,
        patience_s=patience,
        state=state,
        data=data,
        pull=pull,
        token=read_token(JOIN_TOKEN, join_token_file),
        tls=Tls(tls_cert, tls_key, tls_ca),
    )
    with resumable("start it again, with the same --state if it had one"):
        web.run(serve(settings))


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder, or a folder of them.")]) -> None:
    """Write report and tables of a run or a folder of runs. report.html, table.csv and table.md; prints the table."""
    page, comparison = show_comparison(folder)
    for path in (page, folder / "table.csv", folder / "table.md"):
        typer.echo(path)
    if len(comparison.runs) > 1:
        typer.echo(f"{len(comparison.runs)} runs with clients.csv and rounds.csv below {folder}")
        return
    for run in comparison.runs:
        typer.echo(run.path / "clients.csv")
        typer.echo(run.path / "rounds.csv")


@app.command()
def ui(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8090,
) -> None:
    """Serve a page over finished and running runs."""
    from parityfl.ui import serve
    from parityfl.web import server

    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: name one that holds runs, such as runs")
    listening = server.bind(host, port)
    typer.echo(f"http://{server.authority(host, server.port_of(listening))}", err=True)
    server.run(serve(folder, listening))


def _folder(config: "Config", out: Path | None, resume: bool) -> Path:
    """Return the run folder that was named, or a new one for a run that is not resumed."""
    from parityfl.experiments.run import default_folder

    if resume and out is None:
        raise ConfigError("--resume needs --out: name the folder of the run to go on with")
    return default_folder(config) if out is None else out


def _progress(config: "Config") -> "AbstractContextManager[Observer | None]":
    from rich.console import Console

    from parityfl.core.presets import method_label
    from parityfl.experiments.progress import ProgressObserver

    return ProgressObserver(Console(stderr=True), method_label(config.document()))


def _prepare_process(log_level: str, leash: bool) -> None:
    """Log to standard error, and hold on to the parent process where it asks for that."""
    import logging

    levels = logging.getLevelNamesMapping()
    if log_level.upper() not in levels:
        raise ConfigError(f"--log-level {log_level!r}: use debug, info, warning or error")
    logging.basicConfig(level=levels[log_level.upper()], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if leash:
        from parityfl.web.leash import hold

        hold()


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Write the report of the run that ends inside, also before its last round, but not where its user interrupts it.

    That a report cannot be written does not change how the run ended.
    """
    from parityfl.api import report_done

    try:
        yield
    except ParityflError as error:
        if error.exit_code == UnfinishedError.exit_code:
            _report_so_far(folder)
        raise
    report_done(folder)


def _report_so_far(folder: Path) -> None:
    """Write the report of a run unless what ended it has left nothing to report, or no room for it."""
    from parityfl.api import refresh_report

    with suppress(ParityflError, OSError):
        refresh_report(folder)


def main() -> None:
    """Run the command line; a `ParityflError` is one line and its exit code, never a traceback."""
    sys.exit(_run())


def command() -> None:
    """Run the command line in a process of its own, which ends at once afterwards: the command `parityfl`."""
    gc.set_threshold(_SELDOM)
    ended: list[int] = []
    atexit.register(_leave, ended)  # the first to be registered is the last to be called
    ended.append(_run())
    sys.exit(ended[0])


def _run() -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(standalone_mode=False)
    except ParityflError as error:
        if str(error):
            tell(str(error))
        _log_cause(error)
        return error.exit_code
    except TyperException as error:
        _explain_usage(error)
        return error.exit_code
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:  # errors of files that we write say so themselves
            raise
        tell(f"standard output takes no more ({error.strerror}): make room where it goes, or send it elsewhere")
        return UnfinishedError.exit_code
    except MemoryError as error:
        remedy = "lower population.clients or engine.workers, or take a larger machine"
        tell(f"not enough memory ({first_line(error)}): {remedy}")
        return UnfinishedError.exit_code
    return code if isinstance(code, int) else 0


def _log_cause(error: ParityflError) -> None:
    """Log the traceback of what an error makes one line of, for those who asked to see it by ``--log-level debug``."""
    if error.__cause__ is not None:
        import logging

        logging.getLogger(__name__).debug("what led to it:", exc_info=error)


def _leave(ended: Sequence[int]) -> None:
    """End a process that has done what it was asked; to take torch and the rest of it apart takes half a second."""
    if not ended:
        return
    for stream in filter(None, (sys.stdout, sys.stderr)):  # the shell may have closed one
        with suppress(OSError):  # whoever read it may have gone
            stream.flush()
    os._exit(ended[0])


def _explain_usage(error: TyperException) -> None:
    """Say in one line what is wrong with the command line, and where to look; without any arguments, show the help."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if not message or "\n" in message.strip():
        print(message, file=sys.stderr)
        return
    said, command = f"{message[0].lower()}{message[1:].rstrip('.')}", context.command_path if context else "parityfl"
    tell(f"{said}; see {command} --help")
