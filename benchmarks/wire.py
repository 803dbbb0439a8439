"""What does the wire cost? Echo clients through the real coordinator and client, beside sockets and the usual idiom.

    python benchmarks/wire.py [--quick] [--repeats 5]

An echo client sends the model back as its update; the models of `wire_models.py` have as many tensors as real ones.
Beside parityfl there are: blocking `sockets` that send as many bytes
and receive them; parityfl with `transport.dtype = "bf16"`; and `Flask, requests, torch.save`, how the first systems of
this kind were written. Memory is the server's at its peak above what it holds before the first round, in sizes of the
float32 model. All sides are processes of their own, take turns, and warm up for a round; a median is over the rounds
that follow.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from threading import Thread
from time import perf_counter
from typing import Any

from peers import CACHE, HERE, failure, versions
from rows import REPEATS, emit, parser, row, say
from sides import IDIOM
from wire_models import parameters

FLASK = CACHE / "flask"


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=REPEATS)
    arguments = options.parse_args()
    if arguments.quick:
        arguments.repeats = 1
        compare(2, "mlp", 1, arguments, with_sockets=True)
        return
    compare(1, "resnet18", 20, arguments, with_sockets=True)
    compare(10, "resnet18", 3, arguments)
    compare(10, "lenet", 100, arguments)
    compare(100, "resnet18", 1, arguments, with_idiom=False)
    compare(100, "mlp", 20, arguments)


def compare(
    clients: int,
    model: str,
    rounds: int,
    arguments: Namespace,
    *,
    with_sockets: bool = False,
    with_idiom: bool = True,
) -> None:
    """Measure one number of clients and one model on all sides in turn, so many rounds each, and print the rows."""
    sizes, size = [str(clients), model, str(rounds)], 4 * parameters(model)
    sides: dict[str, Callable[[], dict[str, Any]]] = {
        "parityfl": lambda: script("wire_ours.py", sizes),
        "parityfl, bf16": lambda: script("wire_ours.py", [*sizes, "bf16"]),
    }
    if with_idiom:
        sides[IDIOM] = lambda: script("wire_idiom.py", sizes)
    if with_sockets:
        sides["sockets"] = lambda: {"rounds": echo(clients, size, rounds)}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    notes: dict[str, str] = {}
    for repeat in range(arguments.repeats):
        for side in [side for side in sides if side not in notes]:
            try:
                found[side].append(sides[side]())
            except (subprocess.SubprocessError, json.JSONDecodeError, IndexError) as error:
                notes[side] = f"missing: {failure(error)}"
                continue
            say(f"{repeat + 1}/{arguments.repeats} {clients} x {model} {side}: {found[side][-1]['rounds']}")
    title = f"{clients} echo client{'s' * (clients > 1)} of {size / 1e6:.3g} MB"
    libraries = [version for package in ("flask", "requests") for version in versions([str(FLASK)], package)]
    notes.setdefault(IDIOM, ", ".join(libraries))
    for side, runs in found.items():
        emit([row(title, "s", side, [value for run in runs for value in run["rounds"]], notes.get(side, ""))])
        processor = [value for run in runs for value in run.get("cpu", [])]
        if processor:
            emit([row(f"{title}, processor time of the server", "s", side, processor)])
            above = [(run["peak"] - run["base"]) / size for run in runs]
            emit([row(f"{title}, server memory above base", "model sizes", side, above)])


def script(name: str, sizes: list[str]) -> dict[str, Any]:
    """Run a side and return what it prints."""
    paths = [str(HERE), str(FLASK)] if name == "wire_idiom.py" else [str(HERE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / name), *sizes]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def echo(clients: int, size: int, rounds: int) -> list[float]:
    """Return the seconds of each round in which blocking sockets send so many bytes to each client and back."""
    seconds = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        code = (
            f"import sys; sys.path.insert(0, {str(HERE)!r}); from wire import answer; answer(*map(int, sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, str(listening.getsockname()[1]), str(clients), str(size)]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(HERE)}) as process:
            connections = [listening.accept()[0] for _ in range(clients)]
            payload, place = os.urandom(size), bytearray(size)
            for _ in range(rounds + 1):
                began = perf_counter()
                exchange(connections, payload, place)
                seconds.append(perf_counter() - began)
            for connection in connections:
                connection.close()
            process.wait()
    return seconds[1:]


def exchange(connections: list[socket.socket], payload: bytes, place: bytearray) -> None:
    """Send to one after the other and read what comes back."""
    for connection in connections:
        connection.sendall(payload)
        receive(connection, place)


def receive(connection: socket.socket, place: bytearray) -> bool:
    """Fill `place`; return whether there was so much."""
    view = memoryview(place)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            return False
        view = view[count:]
    return True


def answer(port: int, clients: int, size: int) -> None:
    """Echo on so many connections until they are closed; the other process of `echo`."""

    def one(connection: socket.socket) -> None:
        place = bytearray(size)
        while receive(connection, place):
            connection.sendall(place)

    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    threads = [Thread(target=one, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
