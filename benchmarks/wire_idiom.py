"""Rounds of echo clients the usual way: Flask at the clients, requests at the server, torch.save for the model.

    PYTHONPATH=CACHE/flask python benchmarks/wire_idiom.py CLIENTS MODEL ROUNDS

A thread per client posts a pickled state dictionary; all replies are gathered and then averaged. The clients are in two
processes. Prints what `wire_ours.py` prints.
"""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, process_time, sleep

import requests
import torch
from memory import peak_bytes, reset_peak, rss_bytes
from wire_models import named

PROCESSES = 2
State = dict[str, torch.Tensor]


def dumped(state: State) -> bytes:
    """Return a state dictionary as torch writes it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def loaded(body: bytes) -> State:
    """Read a state dictionary."""
    state: State = torch.load(io.BytesIO(body), weights_only=True)
    return state


def device(port: int) -> None:
    """Serve echoes; the main function of a process."""
    from flask import Flask, Response, request  # noqa: PLC0415 - it lies in a folder of its own

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = Flask("device")

    @app.post("/train")
    def train() -> Response:
        return Response(dumped(loaded(request.get_data())), mimetype="application/octet-stream")

    @app.get("/health")
    def health() -> str:
        return "ok"

    app.run(host="127.0.0.1", port=port, threaded=True)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(url: str, state: State) -> State:
    """Send the model and return what comes back."""
    return loaded(requests.post(f"{url}/train", data=dumped(state), timeout=600).content)


def main() -> None:
    """Run the rounds and print what they took."""
    model, clients, rounds = sys.argv[2], int(sys.argv[1]), int(sys.argv[3])
    context = multiprocessing.get_context("spawn")
    ports = [free_port() for _ in range(min(PROCESSES, clients))]
    processes = [context.Process(target=device, args=(port,), daemon=True) for port in ports]
    for process in processes:
        process.start()
    urls = [f"http://127.0.0.1:{ports[rank % len(ports)]}" for rank in range(clients)]
    for url in set(urls):
        await_health(url)
    state = {name: torch.randn(shape) for name, shape in named(model).items()}
    base, seconds, cpu = rss_bytes(), [], []
    with ThreadPoolExecutor(clients) as pool:
        for number in range(rounds + 1):
            if number == 1:
                reset_peak()
            began, worked = perf_counter(), process_time()
            replies = list(pool.map(lambda url: ask(url, state), urls))
            mean = {name: sum(reply[name] for reply in replies) / clients for name in state}
            seconds.append(perf_counter() - began)
            cpu.append(process_time() - worked)
            assert mean.keys() == state.keys()
    print(json.dumps({"rounds": seconds[1:], "cpu": cpu[1:], "base": base, "peak": peak_bytes()}), flush=True)
    for process in processes:
        process.terminate()


def await_health(url: str) -> None:
    """Return once a client answers."""
    for _ in range(600):
        try:
            requests.get(f"{url}/health", timeout=5)
        except requests.ConnectionError:
            sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url} does not answer")


if __name__ == "__main__":
    main()
