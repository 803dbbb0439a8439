"""The Python face: run a configuration, load a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parityfl.core.errors import ConfigError, ParityflError
from parityfl.telling import tell

if TYPE_CHECKING:
    import polars as pl

    from parityfl.config import Config
    from parityfl.core.types import Vector
    from parityfl.engine.fleet import ClosedRound

OnRound = Callable[[Mapping[str, float]], object]
"""Is told the figures of a round: its row of rounds.csv by column, nan where unknown."""


@dataclass(frozen=True, repr=False)
class Run:
    """A run on disk.

    Attributes:
        path: its folder.
        config: the content of config.json.
        summary: the content of summary.json, empty where there is none yet.
        rounds: rounds.csv, a row per round.
        clients: clients.csv, a row per round and client.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    rounds: pl.DataFrame
    clients: pl.DataFrame

    def __repr__(self) -> str:
        """Return one line: which run this is, how many rounds of it there are, and where."""
        about = {key: self.config.get(key) for key in ("method", "seed")}
        shown = about | {"rounds": self.rounds.height, "path": str(self.path), "hash": self.config.get("hash")}
        return f"Run({', '.join(f'{key}={value!r}' for key, value in shown.items())})"


@dataclass(frozen=True)
class _Caller:
    """Hands every round that closes to the caller of `run`. Implements `Observer`."""

    on_round: OnRound

    def started(self, weights: Vector, rounds_done: int, rounds_total: int) -> None:
        """Nothing to tell."""

    def round_closed(self, closed: ClosedRound) -> None:
        self.on_round(closed.figures)


def run(config: Config, out: str | Path | None = None, *, resume: bool = False, on_round: OnRound | None = None) -> Run:
    """Run a configuration, write its report, and return the run. Blocks until it is done.

    Standard error says how the engine works, what is lost on the way, and whether the report could not be written.

    Args:
        config: what to run.
        out: the run folder, absent or empty; None makes one under ``runs/``.
        resume: go on with the run of this configuration in `out`.
        on_round: is called with the figures of each round that closes, in order, once the round is on disk. What it
            returns does not count. What it raises ends the run, which can be resumed, and is raised here. Not with the
            http engine, whose rounds close in another process.

    Raises:
        ConfigError: `config` is no `Config`, such as a mapping or the name of a file.
        ParityflError: any other; see `parityfl.core.errors`.
    """
    from parityfl.config import Config
    from parityfl.experiments.run import default_folder, execute

    if not isinstance(config, Config):
        raise ConfigError(
            f"parityfl.run takes a parityfl.Config, not {config!r:.80}: make one with Config.load('run.toml'), "
            "Config.load(None, {'rounds.count': 50}) or Config.preset('fedavg')"
        )
    if on_round is not None and config.engine.name == "http":
        raise ConfigError(
            "on_round with engine.name = 'http': its rounds close in another process; use engine.name = 'local' or "
            "'ray', or follow rounds.csv in the run folder"
        )
    path = default_folder(config) if out is None else Path(out)
    told = None if on_round is None else _Caller(on_round)
    execute(config, path, resume=resume, watch=lambda: nullcontext(told), say=tell)
    report_done(path)
    return load(path)


def report_done(path: Path) -> None:
    """Write the report of a finished run. Where it cannot be written the user is told: the run is finished anyway."""
    try:
        refresh_report(path)
    except ParityflError as error:
        tell(f"the run is done, in {path}; its report is not: {error}")


def refresh_report(path: Path) -> None:
    """Write the report of a run unless there is one that was written after the run ended."""
    from parityfl.reporting.report import REPORT, write_report

    report, summary = path / REPORT, path / "summary.json"
    if not report.is_file() or report.stat().st_mtime_ns < summary.stat().st_mtime_ns:
        write_report(path)


def load(path: str | Path) -> Run:
    """Return the run in a folder.

    Raises:
        FolderError: the folder holds no run.
    """
    from parityfl.reporting.load import load_run

    data = load_run(Path(path))
    return Run(data.path, data.config, data.summary, data.rounds, data.clients)
