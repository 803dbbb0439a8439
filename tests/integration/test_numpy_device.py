"""The device of docs/examples, which knows of us what docs/http-api.md says and nothing more."""

import sys
from pathlib import Path

import numpy as np
from processes import fleet, rows, summary
from sklearn.datasets import load_digits

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "numpy_device.py"
WITHOUT_US = f"""
import runpy, sys
for name in ("parityfl", "torch", "pydantic", "httpx", "blake3"):
    sys.modules[name] = None
sys.argv[0] = {str(SCRIPT)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def write_digits(file: Path, start: int, stop: int) -> str:
    bunch = load_digits()
    images = bunch.images[start:stop, None].astype(np.float32) / 16
    np.savez(file, images=images, labels=bunch.target[start:stop])
    return str(file)


def test_devices_of_numpy_alone_complete_every_round_and_leave(tmp_path: Path) -> None:
    """Each holds 80 of its 100 digits for training; what they learn together shows on digits that neither has."""
    out, test = tmp_path / "out", write_digits(tmp_path / "test.npz", 300, 600)
    run = ["--clients", "2", "--per-round", "2", "--rounds", "5", "--method", "fedavg", "--dataset", "local"]
    keys = [f"data.test={test}", "model.name=mlp", "training.epochs=5", "training.lr=0.2", "rounds.heartbeat_s=4"]
    sets = [word for key in keys for word in ("--set", key)]
    with fleet(tmp_path) as whole:
        boss = whole.coordinator(*run, *sets, "--out", str(out), "--min-clients", "2")
        devices = [
            whole.start(
                name, name, whole.url, write_digits(tmp_path / f"{name}.npz", start, start + 100), program=WITHOUT_US
            )
            for name, start in (("ann", 0), ("bob", 100))
        ]
        for process in (boss, *devices):
            process.ends()
    table = rows(out)
    assert {row["client_id"] for row in table} == {"ann", "bob"}
    assert [row["outcome"] for row in table] == ["completed"] * 10
    assert {row["num_samples"] for row in table} == {"80"}
    assert all(float(row["local_gain"]) > 0 and row["eval_accuracy"] for row in table)
    assert summary(out)["status"] == "done"
    assert summary(out)["global_accuracy"] > 0.5


def test_it_needs_the_standard_library_numpy_and_safetensors_alone() -> None:
    words = [
        line.split()[1].partition(".")[0] for line in SCRIPT.read_text().splitlines() if line[:5] in ("impor", "from ")
    ]
    assert set(words) - set(sys.stdlib_module_names) == {"numpy", "safetensors"}
