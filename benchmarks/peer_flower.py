"""Federated averaging in Flower's simulation, in Flower's own environment; called by `peers.py`.

    CACHE/flower/bin/python benchmarks/peer_flower.py DATA.npz cnn-small 20

Two Ray actors of one CPU and one thread each; every actor reads the data once and keeps it. The server measures the
model on the test set after the last round, on all cores. Prints the seconds of each round
(sampling, training, aggregation) and the last accuracy as one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # for the actors

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from network import build, hits, resident, tested, train

PATH, MODEL, ROUNDS = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
CLIENTS, PER_ROUND = 100, 10
server_app = ServerApp()


def make_client(path: Path, model: str) -> ClientApp:
    """Return the client; what it needs goes with it to the actors."""
    app = ClientApp()

    @app.train()
    def fit(message: Message, context: Context) -> Message:
        net = build(model)
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        images, labels = resident(path).of(int(context.node_config["partition-id"]))
        train(net, images, labels)
        metrics = MetricRecord({"num-examples": len(labels)})
        return Message(
            RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}),
            reply_to=message,
        )

    return app


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """Run the rounds and print how long each took."""
    net, (images, labels) = build(MODEL), tested(PATH)
    stamps: list[float] = []
    accuracy: list[float] = []

    def measure(server_round: int, arrays: ArrayRecord) -> None:
        stamps.append(perf_counter())
        if server_round == ROUNDS:
            net.load_state_dict(arrays.to_torch_state_dict())
            accuracy.append(hits(net, images, labels) / len(labels))

    strategy = FedAvg(fraction_train=PER_ROUND / CLIENTS, fraction_evaluate=0.0, min_available_nodes=CLIENTS)
    done = strategy.start(grid, ArrayRecord(net.state_dict()), num_rounds=ROUNDS, evaluate_fn=measure)
    if len(done.train_metrics_clientapp) < ROUNDS:
        raise RuntimeError("clients failed")
    rounds = [after - before for before, after in pairwise(stamps)]
    print(json.dumps({"rounds": rounds, "accuracy": accuracy[0]}), flush=True)


if __name__ == "__main__":
    run_simulation(
        server_app,
        make_client(PATH, MODEL),
        num_supernodes=CLIENTS,
        backend_config={"init_args": {"num_cpus": 2}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
