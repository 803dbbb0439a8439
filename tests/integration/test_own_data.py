"""Devices with data of their own, as processes: what they agree on, what is measured, what needs no torch."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import WITHOUT_TORCH, fleet, rows, summary
from sklearn.datasets import load_digits

CLASSES = [str(digit) for digit in range(10)]
MODEL = '''
"""A model that another package brings."""

import math

from torch import nn


class Linear(nn.Module):
    """A linear classifier."""

    def __init__(self, shape, num_classes):
        super().__init__()
        self.output = nn.Linear(math.prod(shape), num_classes)

    def forward(self, images):
        return self.output(images.flatten(1))
'''


def digits(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return handwritten digits as 8-bit images, and their labels."""
    bunch = load_digits()
    return (bunch.images[start:stop] * 15.9375).astype(np.uint8), bunch.target[start:stop]


def pictures(folder: Path, start: int, stop: int) -> Path:
    """Write digits as PNG files into a folder per class."""
    for number, (image, label) in enumerate(zip(*digits(start, stop), strict=True)):
        file = folder / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


def package(folder: Path) -> Path:
    """Install a tiny package with an entry point for a model, as pip would."""
    about = folder / "tiny_models-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "tiny_models.py").write_text(MODEL)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[parityfl.models]\ntiny-linear = tiny_models:Linear\n")
    return folder


def configured(folder: Path, count: int, data: str, model: str) -> str:
    file = folder / "run.toml"
    file.write_text(
        f'method = "fedavg"\n[data]\nname = "local"\n{data}\n[model]\nname = "{model}"\n'
        "[population]\nclients = 2\nper_round = 2\n[training]\nlr = 0.2\n"
        f"[rounds]\ncount = {count}\nheartbeat_s = 2\n"
    )
    return str(file)


def test_image_folders_a_model_of_one_s_own_and_a_coordinator_without_torch(tmp_path: Path) -> None:
    """The first device has 100 digits, of which it holds out 20; the second, which polls, has 50 and holds out 10.

    All of them prove who they are.
    """
    out, path = tmp_path / "out", [package(tmp_path / "packages")]
    file = configured(tmp_path, 4, f"classes = {json.dumps(CLASSES)}", "tiny-linear")
    with fleet(tmp_path, PARITYFL_JOIN_TOKEN="a token that is long enough") as whole:
        boss = whole.coordinator(file, "--out", str(out), "--min-clients", "2", program=WITHOUT_TORCH)
        odd = pictures(tmp_path / "odd", 0, 10)
        (odd / "apple").mkdir()
        stranger = whole.client("odd", "--data", str(odd), path=path)
        assert "has the class 'apple', this run's classes are '0', '1'" in stranger.ends(2).splitlines()[-1]
        assert "brings no data of its own" in whole.client("poor", path=path).ends(2)
        first = whole.client("first", "--data", str(pictures(tmp_path / "first", 0, 100)), path=path)
        second = whole.client("second", "--pull", "--data", str(pictures(tmp_path / "second", 100, 150)), path=path)
        for process in (boss, first, second):
            process.ends()
    found, table = summary(out), rows(out)
    assert (found["status"], found["global_accuracy"]) == ("done", None)
    assert found["label_coverage"] == 1.0
    assert {(row["client_id"], row["num_samples"]) for row in table} == {("first", "80"), ("second", "40")}
    assert [row["outcome"] for row in table] == ["completed"] * 8
    assert all(float(row["local_gain"]) > 0 and row["eval_accuracy"] for row in table)
    assert float(table[-2]["eval_loss"]) < float(table[0]["eval_loss"])
    config = json.loads((out / "config.json").read_text())
    assert config["utility"]["functional"] == "local_gain"
    assert [path.name for path in (out / "security").glob("*.key")] == []  # the folder may go wherever results go


def test_arrays_of_several_devices_in_one_process_and_a_test_set_of_the_coordinator_s(tmp_path: Path) -> None:
    """The test set settles classes and shape. Both devices share a process, each with a folder of its name."""
    out, data = tmp_path / "out", tmp_path / "data"
    for number, name in enumerate(("a", "b")):
        images, labels = digits(60 * number, 60 * number + 60)
        (data / name).mkdir(parents=True)
        np.savez(data / name / "mine.npz", images=images, labels=labels, classes=np.array(CLASSES))
    file = configured(tmp_path, 3, f'test = "{pictures(tmp_path / "test", 200, 300)}"', "mlp")
    with fleet(tmp_path) as whole:
        boss = whole.coordinator(file, "--out", str(out), "--min-clients", "2")
        client = whole.client("a,b", "--data", str(data))
        boss.ends()
        client.ends()
    assert 0 < summary(out)["global_accuracy"] <= 1
    agreed = json.loads((out / "agreement.json").read_text())
    assert (agreed["classes"], agreed["shape"], agreed["dtype"]) == (CLASSES, [1, 8, 8], "uint8")
    assert {row["num_samples"] for row in rows(out)} == {"48"}


@pytest.mark.parametrize("command", ["run", "coordinator"])
def test_the_virtual_clock_has_no_devices_with_data_of_their_own(tmp_path: Path, command: str) -> None:
    with fleet(tmp_path) as whole:
        process = whole.start("wrong", command, "--dataset", "local", "--set", "rounds.clock=virtual")
        assert "start `parityfl coordinator`" in process.ends(2)
