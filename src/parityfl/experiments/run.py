"""One run, from a configuration to a folder, on the engine that the configuration names."""

from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

from parityfl.config import Config
from parityfl.core.errors import ConfigError
from parityfl.core.presets import method_label
from parityfl.engine.fleet import Say, Watch
from parityfl.experiments.blocking import block


def default_folder(config: Config) -> Path:
    """Return a folder name that says what the run is; runs that begin in the same second differ in their hash."""
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    method = method_label(config.document())
    return Path("runs") / f"{config.data.name}-{method}-seed{config.seed}-{moment}-{config.hash[:6]}"


def execute(
    config: Config, out: Path, *, resume: bool = False, watch: Watch = nullcontext, say: Say = lambda _: None
) -> None:
    """Run a configuration into a folder, blocking.

    Args:
        config: the resolved configuration.
        out: the run folder: absent, empty, or with `resume` one that holds this configuration's run.
        resume: go on with the run in the folder; a finished one is left as it is.
        watch: makes the observer.
        say: tells the user, a line at a time, how the engine works and what it lost.

    Raises:
        ParityflError: see `parityfl.core.errors`.
    """
    if not config.rounds.virtual:
        raise ConfigError(
            "rounds.clock = 'wall' needs devices of its own: start `parityfl coordinator` and clients, or use the "
            "virtual clock"
        )
    if config.engine.name == "http":
        from parityfl.experiments.processes import run_processes  # noqa: PLC0415 - httpx, which the other engines do without

        block(lambda: run_processes(config, out, resume))
        return
    from parityfl.experiments.local import run_local  # noqa: PLC0415 - torch, which the http engine's parent is spared

    block(lambda: run_local(config, out, resume=resume, watch=watch, say=say))
