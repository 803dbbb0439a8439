"""What commands share: their options, the configuration that these make, and what is said of an interruption."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from parityfl.core.errors import PartError
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
TlsKey = Annotated[
    Path | None, typer.Option(envvar="PARITYFL_TLS_KEY", help="The private key of that certificate, PEM.")
]
TlsCa = Annotated[
    Path | None, typer.Option(envvar="PARITYFL_TLS_CA", help="The authority that must have certified the others, PEM.")
]
Leash = Annotated[bool, typer.Option("--leash", hidden=True, help="Leave when standard input closes.")]


SETS = {
    "method": "method",
    "selector": "selector.name",
    "aggregator": "aggregator.name",
    "dataset": "data.name",
    "availability": "availability.name",
    "clients": "population.clients",
    "per_round": "population.per_round",
    "rounds": "rounds.count",
    "seed": "seed",
    "engine": "engine.name",
}
"""The configuration key that each option sets; a command takes some of these, and hands over what it was given."""


def read_layers(given: Mapping[str, Any]) -> "tuple[list[Layer], Layer]":
    """Return the layers of a call, lowest first, and the overrides by dotted key that lie on top.

    A method that is assigned is as one that is given by its option: other options say more than it.

    Args:
        given: what Typer parsed, by parameter: `config_file`, `assignments`, and what the command has of `SETS`.
    """
    from parityfl.config import layer_of, read_file, read_override

    file, assignments = given["config_file"], given["assignments"] or []
    options = {key: given[option] for option, key in SETS.items() if given.get(option) is not None}
    overrides = dict(read_override(text) for text in assignments)
    if "method" in overrides:
        options["method"] = overrides.pop("method")
    below = [read_file(Path(file))] if file is not None else []
    return [*below, layer_of(options)], overrides


def read_config(given: Mapping[str, Any], lowest: Mapping[str, Any] | None = None) -> "Config":
    """Return the configuration of the layers: `lowest` < file < options < ``--set``; see `read_layers`."""
    from parityfl.config import resolve

    layers, overrides = read_layers(given)
    return resolve([lowest or {}, *layers], overrides)


@contextmanager
def resumable(advice: str = "go on with --resume") -> Iterator[None]:
    """Tell the user what to do next after interrupting a command, or after the failure of a part of their own."""
    try:
        yield
    except PartError as error:
        raise PartError(f"{error}; repair it; {advice}") from error
    except KeyboardInterrupt:
        tell(f"interrupted; {advice}")
        raise typer.Exit(INTERRUPTED) from None
