"""What commands share: their options, the layers of configuration that these make, and how a stop is told."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from parityfl.telling import tell

if TYPE_CHECKING:
    from parityfl.config import Config, Layer

INTERRUPTED = 130
"""Exit code of a command that was stopped from the keyboard or by SIGTERM."""

ConfigFile = Annotated[
    Optional[Path],  # noqa: UP045 -- typer reads this at run time
    typer.Argument(metavar="[CONFIG.toml]", help="A TOML file, or a run's config.json to repeat it."),
]
Method = Annotated[str | None, typer.Option(help="A preset: `parityfl list presets`.")]
SelectorName = Annotated[str | None, typer.Option("--selector", help="Who shall take part.")]
AggregatorName = Annotated[str | None, typer.Option("--aggregator", help="What is learned from the updates.")]
Dataset = Annotated[str | None, typer.Option(help="`parityfl list datasets`.")]
AvailabilityName = Annotated[str | None, typer.Option("--availability", help="Who could take part when.")]
Clients = Annotated[int | None, typer.Option(help="How many clients there are.")]
PerRound = Annotated[int | None, typer.Option(help="How many take part in a round.")]
Rounds = Annotated[int | None, typer.Option(help="How many rounds.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="local, http or ray; a coordinator's is http.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY.SUB=VALUE", help="Any configuration key.")]
Out = Annotated[Path | None, typer.Option(help="The run folder: absent or empty.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]
JoinTokenFile = Annotated[
    Path | None,
    typer.Option(help="A file with the join token; or set PARITYFL_JOIN_TOKEN, or PARITYFL_JOIN_TOKEN_FILE."),
]
TlsCert = Annotated[Path | None, typer.Option(envvar="PARITYFL_TLS_CERT", help="The certificate of this process, PEM.")]
TlsKey = Annotated[Path | None, typer.Option(envvar="PARITYFL_TLS_KEY", help="The private key of that, PEM.")]
TlsCa = Annotated[
    Path | None, typer.Option(envvar="PARITYFL_TLS_CA", help="The authority that others must be certified by, PEM.")
]
Leash = Annotated[bool, typer.Option("--leash", hidden=True, help="Leave when standard input closes.")]


def read_layers(
    file: Path | None, options: Mapping[str, Any], assignments: list[str] | None
) -> "tuple[list[Layer], Layer]":
    """Return the layers of a call, lowest first, and the overrides by dotted key that lie on top.

    Args:
        file: a configuration file.
        options: the value of each option by the dotted key that it sets; None where it was not given.
        assignments: the texts of ``--set``.
    """
    from parityfl.config import merge, nested, read_file, read_override

    given: dict[str, Any] = {}
    for key, value in options.items():
        if value is not None:
            given = merge(given, nested(key, value))
    below = [read_file(file)] if file is not None else []
    return [*below, given], dict(read_override(text) for text in assignments or [])


def read_config(  # noqa: PLR0917 -- the options of `run`, in its order
    file: Path | None,
    method: str | None,
    selector: str | None,
    aggregator: str | None,
    dataset: str | None,
    availability: str | None,
    clients: int | None,
    per_round: int | None,
    rounds: int | None,
    seed: int | None,
    engine: str | None,
    assignments: list[str] | None,
    lowest: dict[str, Any] | None = None,
) -> "Config":
    """Return the configuration of the layers: `lowest` < file < options < ``--set``."""
    from parityfl.config import resolve

    options = {
        "method": method,
        "selector.name": selector,
        "aggregator.name": aggregator,
        "data.name": dataset,
        "availability.name": availability,
        "population.clients": clients,
        "population.per_round": per_round,
        "rounds.count": rounds,
        "seed": seed,
        "engine.name": engine,
    }
    layers, overrides = read_layers(file, options, assignments)
    return resolve([lowest or {}, *layers], overrides)


@contextmanager
def resumable(advice: str = "go on with --resume") -> Iterator[None]:
    """Say what to do next where the user stops a command."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"interrupted; {advice}")
        raise typer.Exit(INTERRUPTED) from None
