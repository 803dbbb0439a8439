"""CIFAR's Python layout: what is read, and what is refused before it can do anything."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from parityfl.core.errors import DataError
from parityfl.training.datasets.cifar import CIFAR10, Cifar10
from parityfl.training.datasets.pickled import read_arrays


class Calls:
    """Pickles as a call of `function`, whose result is given `state`."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = function, arguments, state

    def __reduce__(self):
        return self.reduced


def batch(labels, value=5):
    return {b"data": np.full((len(labels), 3072), value, dtype=np.uint8), b"labels": labels, b"batch_label": b"one"}


def write_python_layout(folder, protocol=2):
    folder.mkdir()
    for stem in (*CIFAR10.train, CIFAR10.test):
        (folder / stem).write_bytes(pickle.dumps(batch([1, 2]), protocol=protocol))


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_python_layout_is_read(tmp_path, protocol):
    write_python_layout(tmp_path / CIFAR10.python_folder, protocol)
    data = Cifar10().load(str(tmp_path))
    assert data.train_labels.tolist() == [1, 2] * 5
    assert data.test_images.shape == (2, 3, 32, 32)
    assert np.all(data.test_images == 5)


PYTHON_2_ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01"
    b"\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x05\x06tb"
)
"""The uint8 array (5, 6) as Python 2 pickles it: every string is bytes without a mark."""


def test_a_pickle_of_python_2_is_read(tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02}(U\x06labels](K\x03K\x04eU\x04data" + PYTHON_2_ARRAY + b"u.")
    content = read_arrays(path)
    assert content["labels"] == [3, 4]
    assert content["data"].dtype == np.uint8
    assert content["data"].tolist() == [5, 6]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_runs_a_command_is_refused(tmp_path, protocol):
    path, witness = tmp_path / "batch", tmp_path / "witness"
    path.write_bytes(pickle.dumps({b"data": Calls(os.system, f"touch {witness}")}, protocol=protocol))
    with pytest.raises(DataError, match=r"is refused: it asks for posix\.system"):
        read_arrays(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "hostile",
    [
        Calls(eval, "1"),
        Calls(getattr, "text", "upper"),
        Calls(np.load, "/etc/passwd"),
        Calls(np.frombuffer, b"12345678"),
    ],
)
def test_other_names_are_refused(tmp_path, hostile):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({b"data": hostile}, protocol=2))
    with pytest.raises(DataError, match="is refused"):
        read_arrays(path)


@pytest.mark.parametrize("arguments", [(np.ndarray, (10**12,), b"b"), (np.dtype, (0,), b"b")])
def test_an_array_of_any_size_or_class_is_not_made(tmp_path, arguments):
    rebuild = np.zeros(0).__reduce__()[0]
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({b"data": Calls(rebuild, *arguments)}, protocol=2))
    with pytest.raises(DataError, match="is no array as numpy pickles it"):
        read_arrays(path)


def test_a_type_of_numbers_that_reaches_into_memory_is_not_made(tmp_path):
    """Eight bytes with flags that have numpy take them for the address of an object: its own type crashes on them."""
    forged = Calls(np.dtype, "V8", False, True, state=(3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 1))
    rebuild = np.zeros(0).__reduce__()[0]
    path = tmp_path / "batch"
    content = {"data": Calls(rebuild, np.ndarray, (0,), b"b", state=(1, (1,), forged, False, b"A" * 8))}
    path.write_bytes(pickle.dumps(content, protocol=4))
    code = "import sys, pathlib, parityfl.training.datasets.pickled as p; p.read_arrays(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DataError" in done.stderr
    assert "is no array as numpy pickles it" in done.stderr


@pytest.mark.parametrize(
    "array",
    [np.arange(12, dtype=np.uint8).reshape(3, 4), np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4))],
)
def test_an_array_is_read_in_its_order(tmp_path, array):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": array}, protocol=4))
    data = read_arrays(path)["data"]
    assert data.tolist() == array.tolist()
    assert data.flags.writeable


def write_array(path, **changes):
    """Pickle two bytes as an array, a part of it changed."""
    rebuild = np.zeros(0).__reduce__()[0]
    state = {"version": 1, "shape": (2,), "number": np.dtype("u1"), "is_fortran": False, "raw": b"ab"} | changes
    array = Calls(rebuild, np.ndarray, (0,), b"b", state=tuple(state.values()))
    path.write_bytes(pickle.dumps({"data": array}, protocol=4))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"shape": [2]},
        {"shape": (2.0,)},
        {"shape": (-1, -2)},
        {"shape": (3,)},
        {"number": "u1"},
        {"raw": "ab"},
        {"raw": [5, 6]},
    ],
)
def test_an_array_whose_shape_and_bytes_do_not_fit_is_not_made(tmp_path, changes):
    with pytest.raises(DataError, match="is no array as numpy pickles it"):
        read_arrays(write_array(tmp_path / "batch", **changes))


def test_an_array_by_hand_is_read(tmp_path):
    assert read_arrays(write_array(tmp_path / "batch"))["data"].tolist() == [97, 98]


@pytest.mark.parametrize("other", [np.zeros(2, dtype=np.float64), np.array([None]), np.zeros(2, dtype="u1,u1")])
def test_arrays_of_other_numbers_are_not_made(tmp_path, other):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": other}, protocol=4))
    with pytest.raises(DataError, match="is no array as numpy pickles it"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "Ran out of input"),
        (b"garbage", "is refused"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps(Calls(__import__("codecs").encode, "x", "rot13"), protocol=2), "is refused"),
    ],
)
def test_malformed_pickles(tmp_path, raw, message):
    path = tmp_path / "batch"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_arrays(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros((2, 3071), dtype=np.uint8)}, "no 'data' of uint8"),
        ({"data": [1, 2]}, "no 'data' of uint8"),
        ({"labels": [1, 10]}, "list of labels 0 to 9"),
        ({"labels": [1, 10**30]}, "list of labels 0 to 9"),
        ({"labels": {1: 2}}, "list of labels 0 to 9"),
    ],
)
def test_batches_that_are_not_what_they_should_be(tmp_path, changes, message):
    write_python_layout(tmp_path / CIFAR10.python_folder)
    stem = tmp_path / CIFAR10.python_folder / "test_batch"
    changed = {key: value for key, value in batch([1, 2]).items() if key.decode() not in changes} | changes
    stem.write_bytes(pickle.dumps(changed, protocol=2))
    with pytest.raises(DataError, match=message):
        Cifar10().load(str(tmp_path))
