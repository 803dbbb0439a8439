"""The `http` engine: a coordinator and clients as processes of their own on loopback, started, watched and stopped.

Every child holds the read end of a pipe whose write end is ours, and leaves when it closes: however this process
dies, its children die with it. A client process that ends before the run does is started again, however it ended; on
the virtual clock the coordinator waits for it, so the result of an experiment does not depend on it.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from parityfl.config import Config
from parityfl.core.errors import ConfigError, FleetError, ParityflError, UnfinishedError
from parityfl.engine.folder import CLIENTS, RunFolder
from parityfl.experiments.build import document
from parityfl.experiments.child_processes import STOP_PATIENCE_S, child, stop
from parityfl.telling import PREFIX
from parityfl.web.secrets import JOIN_TOKEN, OPERATOR_TOKEN
from parityfl.wire.schemas import MAX_DEVICES, Health
from parityfl.workers.cores import cores
from parityfl.workers.oom import let_go_first

MAX_RESTARTS = 5
"""How often in a row a client process that ends soon after its start is started again."""

SETTLED_S = 30.0
"""After how long the end of a client process has nothing to do with its start."""

GOING_ON = ("waiting", "training")
"""Phases of a coordinator whose run is not over."""

ASK_AGAIN_S = 0.2
"""How soon a coordinator that does not answer is asked again whether its run is over."""

QUIET = ("--log-level", "warning")
"""How much the children of a run say."""

PIECE_BYTES = 2**16
"""How much of what a child says is read at once, and how long a line may be that is passed on whole."""

SECRETS = (JOIN_TOKEN, OPERATOR_TOKEN, "PARITYFL_TLS_")
"""Variables for coordinators and clients that speak to others, from which the processes of a run are kept."""

CLIENT_PATIENCE_S = 300.0
"""How long clients wait for a coordinator that is loading its data."""


class ChildFailedError(ParityflError):
    """The coordinator's process ended by itself; it has told the user why."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.exit_code = code


async def run_processes(config: Config, out: Path, resume: bool) -> None:
    """Run a configuration over HTTP on loopback; return when the run is done.

    Args:
        config: the resolved configuration.
        out: the run folder.
        resume: whether to go on with the run in it.

    Raises:
        ChildFailedError: the coordinator ended with another exit code than 0, which is kept.
        ConfigError: the processes would have more devices than one takes.
        FleetError: client processes keep dying.
        FolderError: the folder is not this run's; no process was started.
    """
    shared = groups(config)
    if RunFolder(out).check(document(config), resume):
        return
    with TemporaryDirectory(prefix="parityfl-") as scratch, _listening() as listener:
        file = Path(scratch) / "config.json"
        file.write_text(json.dumps(config.document()), encoding="utf-8")
        url = "http://{}:{}".format(*listener.getsockname())
        arguments = ["coordinator", str(file), "--out", str(out), "--fd", str(listener.fileno())]
        arguments += [*QUIET, *(["--resume"] if resume else [])]
        environment = _credentials()
        async with child(arguments, stdout=None, pass_fds=(listener.fileno(),), environment=environment) as boss:
            listener.close()
            clients = [asyncio.create_task(_keep_up(group, boss, url, out, environment)) for group in shared]
            try:
                await _first_of(boss, clients)
            finally:
                await stop(boss)  # before the clients, whose leaving must not become an outcome of a round
                for task in clients:
                    task.cancel()
                await asyncio.gather(*clients, return_exceptions=True)
        if boss.returncode is not None and boss.returncode < 0:
            name = signal.Signals(-boss.returncode).name
            raise UnfinishedError(f"the coordinator's process was ended by {name}: go on with --resume --out {out}")
        if boss.returncode:
            raise ChildFailedError(boss.returncode)


def groups(config: Config) -> list[list[str]]:
    """Return which devices share a process: as even as can be, in index order.

    Raises:
        ConfigError: they would be too many for one.
    """
    clients = config.population.clients
    count = min(clients, config.engine.processes or cores())
    if clients > count * MAX_DEVICES:
        raise ConfigError(
            f"engine.processes = {count} for population.clients = {clients}: a process takes at most {MAX_DEVICES:,} "
            f"devices, so raise engine.processes to {ceil(clients / MAX_DEVICES)} or more"
        )
    ids = config.device_ids
    return [ids[clients * i // count : clients * (i + 1) // count] for i in range(count)]


async def _first_of(boss: Process, clients: Sequence["asyncio.Task[None]"]) -> None:
    """Wait for the coordinator to end, then for the clients to hear of it; raise what stops a client for good."""
    finished = asyncio.ensure_future(boss.wait())
    pending: set[asyncio.Future[object]] = {finished, *clients}  # type: ignore[arg-type]
    while not finished.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            future.result()
    if clients:
        await asyncio.wait(clients, timeout=STOP_PATIENCE_S if boss.returncode == 0 else 0)


def _credentials() -> dict[str, str]:
    """Return the environment of a run's processes: a join token of their own, on a machine that others may share."""
    given = dict.fromkeys((name for name in os.environ if name.startswith(SECRETS)), "")
    return given | {JOIN_TOKEN: secrets.token_hex(32)}


async def _keep_up(devices: list[str], boss: Process, url: str, out: Path, environment: Mapping[str, str]) -> None:
    """Run one client process, again whenever it ends, until the run is over.

    Raises:
        FleetError: it keeps ending soon after its start.
    """
    arguments = ["client", "--devices", ",".join(devices), "--server", url, "--port", "0"]
    arguments += ["--patience", str(CLIENT_PATIENCE_S), "--state", str(out / CLIENTS), *QUIET]
    ends, clock = 0, asyncio.get_running_loop().time
    while ends <= MAX_RESTARTS:
        began = clock()
        async with child(arguments, stderr=PIPE, environment=environment) as process:
            let_go_first(process.pid)
            said, code = await asyncio.gather(pass_on(process), process.wait())
        if await _is_over(boss, url):
            return
        ends = ends + 1 if clock() - began < SETTLED_S else 1
    raise FleetError(
        f"the client process of {devices[0]}..{devices[-1]} ended {MAX_RESTARTS + 1} times soon after its start, last "
        f"with exit code {code}: {said or 'it did not say why'}"
    )


async def pass_on(process: Process) -> str:
    """Say what a child says on its standard error, in whole lines unless they are very long; return its last line."""
    assert process.stderr is not None, "it is a pipe"
    decode = getincrementaldecoder("utf-8")("replace").decode
    last, begun = "", ""
    while True:
        piece = await process.stderr.read(PIECE_BYTES)
        begun += decode(piece, final=not piece)
        end = max(begun.rfind("\n"), begun.rfind("\r")) + 1  # a progress bar only ever goes back to its line's start
        if not piece or (not end and len(begun) >= PIECE_BYTES):
            end = len(begun)
        said, begun = begun[:end], begun[end:]
        print(said, end="", file=sys.stderr, flush=True)
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), last)
        if not piece:
            return last.removeprefix(PREFIX)


async def _is_over(boss: Process, url: str) -> bool:
    """Return whether the run has ended: as the coordinator says, or because its process is gone."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        while boss.returncode is None:
            try:
                answer = await http.get("/health")
                return Health.model_validate_json(answer.content).phase not in GOING_ON
            except (httpx.TransportError, ValueError):
                await asyncio.sleep(ASK_AGAIN_S)
    return True


@contextmanager
def _listening() -> Iterator[socket.socket]:
    """Yield a listening socket on a free port of loopback; the coordinator takes it over."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield listener
