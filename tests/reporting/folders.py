"""Run folders from simple formulas: six clients, eight rounds, two wanted per round.

Client k of 0..4 is available in round t where k + 1 divides t; client 5 never is. So n = (8, 4, 2, 2, 1, 0).

    round      1    2     3     4       5     6       7    8
    available  0    0 1   0 2   0 1 3   0 4   0 1 2   0    0 1 3

`first` selects the first two available, `last` the last two. In round 4 the last selected times out, in round 6 it is
late. Every participation earns the client 0.1.

               first                    last
    selected   (8, 4, 1, 0, 1, 0)       (5, 4, 2, 2, 1, 0)
    rates      (1, 1, .5, 0, 1, -)      (.625, 1, 1, 1, 1, -)
    completed  (8, 2, 1, 0, 1, 0)       (5, 4, 1, 1, 1, 0)

Client k's accuracy after round t is base + .02 t - .03 k, the global one base + .02 t, the moving average's .01 more.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from parityfl.core.columns import CLIENT_COLUMNS, ROUND_COLUMNS

CLIENTS, ROUNDS, WANTED = 6, 8, 2


def config(
    method: str = "fedavg", selector: str = "uniform", aggregator: str = "fedavg", seed: int = 0
) -> dict[str, Any]:
    return {
        "seed": seed,
        "method": method,
        "population": {"clients": CLIENTS, "per_round": WANTED, "partition": "label-subset"},
        "data": {"name": "digits", "root": f"/somewhere/{method}"},
        "model": {"name": "mlp"},
        "training": {"epochs": 1, "lr": 0.05},
        "evaluation": {"every": 1, "ema": 0.9},
        "availability": {"name": "bernoulli", "pi": 0.5},
        "rounds": {"count": ROUNDS, "interval_s": 600},
        "selector": {"name": selector},
        "aggregator": {"name": aggregator, "server_lr": 1.0},
        "objective": {"name": "plain"},
        "server": {"optimizer": "none"},
        "utility": {"functional": "loss_gain"},
        "engine": {"name": "local"},
        "versions": {"parityfl": "0.1.0", "python": "3.11"},
        "hash": "c0ffee",
    }


def available(t: int) -> list[int]:
    return [k for k in range(CLIENTS - 1) if t % (k + 1) == 0]


def write_run(
    path: Path,
    *,
    selects: str = "first",
    base: float = 0.5,
    rounds: int = ROUNDS,
    status: str | None = "done",
    changes: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    **configured: Any,
) -> Path:
    path.mkdir(parents=True)
    settings = config(**configured)
    for key, value in (changes or {}).items():
        section, _, name = key.partition(".")
        settings[section] = {**settings[section], name: value} if name else value
    (path / "config.json").write_text(json.dumps(settings, indent=2))
    per_round, per_client = _tables(selects, base, rounds)
    _write(path / "rounds.csv", ROUND_COLUMNS, per_round)
    _write(path / "clients.csv", CLIENT_COLUMNS, per_client)
    if status is not None:
        figures = {"model_hash": "ab" * 32, "ledger_hash": "cd" * 32, "deterministic": True}
        ended = {"status": status, "rounds_completed": rounds, **figures, **(summary or {})}
        (path / "summary.json").write_text(json.dumps(ended))
    return path


def _tables(selects: str, base: float, rounds: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    n, s, p = np.zeros(CLIENTS), np.zeros(CLIENTS), np.zeros(CLIENTS)
    per_round, per_client = [], []
    for t in range(1, rounds + 1):
        there = available(t)
        chosen = there[:WANTED] if selects == "first" else there[-WANTED:]
        outcome = dict.fromkeys(chosen, "completed")
        outcome |= {4: {chosen[-1]: "timed_out"}, 6: {chosen[-1]: "late"}}.get(t, {})
        done = [k for k in chosen if outcome[k] == "completed"]
        n[there] += 1
        s[chosen] += 1
        p[done] += 1
        per_client += [_client_row(t, k, there, outcome, n[k], p[k], base) for k in range(CLIENTS)]
        per_round.append(_round_row(t, there, chosen, done, n, s, p, base))
    return per_round, per_client


def _client_row(  # noqa: PLR0917
    t: int, k: int, there: list[int], outcome: dict[int, str], n: float, p: float, base: float
) -> dict[str, Any]:
    return {
        "round": t,
        "client_id": f"h{k}",
        "available": int(k in there),
        "selected": int(k in outcome),
        "participated": int(outcome.get(k) == "completed"),
        "outcome": outcome.get(k),
        "availability_true": 1 / (k + 1) if k < CLIENTS - 1 else 0.0,
        "availability_estimate": n / t,
        "availability_low": max(n / t - 0.1, 0),
        "availability_high": min(n / t + 0.1, 1),
        "loss_gain": 0.02,
        "utility": 0.1 * p,
        "normalized_utility": 0.1 * p / n if n else None,
        "eval_loss": 2 - base - 0.02 * t + 0.03 * k,
        "eval_accuracy": base + 0.02 * t - 0.03 * k,
        "num_samples": 20 + k,
    }


def _round_row(  # noqa: PLR0917
    t: int, there: Any, chosen: Any, done: Any, n: Any, s: Any, p: Any, base: float
) -> dict[str, Any]:
    utility, rates = 0.1 * p[n > 0] / n[n > 0], s[n > 0] / n[n > 0]
    cv = float(utility.std() / utility.mean())
    late = int(t == 6)
    return {
        "round": t,
        "time_s": 600.0 * (t - 1),
        "num_available": len(there),
        "num_selected": len(chosen),
        "num_participated": len(done),
        "num_late": late,
        "num_failed": len(chosen) - len(done) - late,
        "global_accuracy": base + 0.02 * t,
        "global_loss": 2 - base - 0.02 * t,
        "mean_client_accuracy": base + 0.02 * t - 0.075,
        "worst10_client_accuracy": base + 0.02 * t - 0.15,
        "low_availability_accuracy": base + 0.02 * t - 0.12,
        "ema_global_accuracy": base + 0.02 * t + 0.01,
        "utility_cv": cv,
        "utility_jain": 1 / (1 + cv**2),
        "selection_gap": (s.max() - s.min()) / t,
        "conditional_selection_gap": rates.max() - rates.min(),
        "net_gain_cv": 0.25,
        "credited_to_net": 0.1 * p.sum() / (0.02 * t * CLIENTS),
        "bytes_up": 1000 * len(done),
        "rss_bytes": 1e8,
    }


def _write(path: Path, columns: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def register_late(path: Path, rounds: int) -> Path:
    """Take the clients out of the first rounds, as of a live run whose first device came after so many."""
    lines = (path / "clients.csv").read_text().splitlines(keepends=True)
    (path / "clients.csv").write_text("".join([lines[0], *lines[1 + rounds * CLIENTS :]]))
    return path
