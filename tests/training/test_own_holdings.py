import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from parityfl.client.own import format_of
from parityfl.config import Config
from parityfl.core.errors import ConfigError, DataError
from parityfl.training.datasets import dataset
from parityfl.training.datasets.own import OwnData, read_own
from parityfl.training.own_holdings import judging_holdings, own_holdings
from parityfl.training.workbench import Workbench

IMAGES = np.arange(2 * 1 * 4 * 5, dtype=np.uint8).reshape(2, 1, 4, 5)


def picture(path: Path, mode: str = "L", size: tuple[int, int] = (5, 4), value: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else None).save(path)


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **{"images": IMAGES, "labels": np.array([0, 1]), **arrays})
    return path


def config(**sections: object) -> Config:
    given = {"data": {"name": "local", "classes": ["a", "b", "c"]}, "population": {"clients": 4, "per_round": 2}}
    return Config(**{"rounds": {"clock": "wall"}, "method": "fedavg", **given, **sections})


def own(count: int, classes: tuple[str, ...] = ("a", "b"), seed: int = 0) -> OwnData:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
    return OwnData(images, np.arange(count) % len(classes), classes)


def test_a_folder_has_a_class_per_sub_folder_also_an_empty_one(tmp_path: Path) -> None:
    picture(tmp_path / "dog" / "1.png", value=1)
    picture(tmp_path / "cat" / "2.PNG", value=2)
    picture(tmp_path / "cat" / "1.bmp", value=3)
    (tmp_path / "bird").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "Thumbs.db").write_text("not an image")
    data = read_own(tmp_path)
    assert data.classes == ("bird", "cat", "dog")
    assert data.labels.tolist() == [1, 1, 2]
    assert data.shape == (1, 4, 5)
    assert data.images[:, 0, 0, 0].tolist() == [3, 2, 1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_has_three_channels(tmp_path: Path, mode: str) -> None:
    picture(tmp_path / "cat" / "1.png", mode)
    assert read_own(tmp_path).shape == (3, 4, 5)


def test_grey_and_colour_in_one_folder_are_colour(tmp_path: Path) -> None:
    """A grey value of 7 becomes 7 in each of three channels; the order of the files does not matter."""
    picture(tmp_path / "cat" / "1.png", value=7)
    picture(tmp_path / "cat" / "2.png", "RGB")
    picture(tmp_path / "cat" / "3.png", value=9)
    data = read_own(tmp_path)
    assert data.shape == (3, 4, 5)
    assert data.images[[0, 2], :, 0, 0].tolist() == [[7, 7, 7], [9, 9, 9]]
    assert data.images[0, 2].tolist() == [[7] * 5] * 4


def test_images_of_other_sizes_are_refused_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "cat" / "2.png", "RGB", size=(6, 4))
    with pytest.raises(DataError, match=r"2\.png is 6 x 4 pixels, but .*1\.png is 5 x 4 pixels"):
        read_own(tmp_path)


@pytest.mark.parametrize("prepare", ["cut", "deep", "text"])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, prepare: str) -> None:
    file = tmp_path / "cat" / "1.png"
    picture(file)
    if prepare == "cut":
        file.write_bytes(file.read_bytes()[:50])
    elif prepare == "deep":
        Image.new("I;16", (5, 4)).save(file)
    else:
        file.write_text("hello")
    with pytest.raises(DataError, match=r"1\.png (cannot be read as an image|has pixels of mode)"):
        read_own(tmp_path)


def test_nothing_to_read_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a sub-folder per class"):
        read_own(tmp_path)
    with pytest.raises(DataError, match="name a folder with a sub-folder"):
        read_own(tmp_path / "absent")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"no \.npz or \.safetensors file"):
        read_own(tmp_path / "notes.txt")
    npz(tmp_path / "a.npz")
    npz(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"holds a\.npz and b\.npz"):
        read_own(tmp_path)


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    """Such as macOS puts beside a file on a disk of another system."""
    npz(tmp_path / "birds.npz")
    (tmp_path / "._birds.npz").write_bytes(b"resource fork")
    assert len(read_own(tmp_path).labels) == 2


def test_arrays_are_named_by_their_file_or_by_their_numbers(tmp_path: Path) -> None:
    assert read_own(npz(tmp_path / "a.npz", labels=np.array([2, 0]))).classes == ("0", "1", "2")
    named = read_own(npz(tmp_path / "b.npz", classes=np.array(["cat", "dog"])))
    assert (named.classes, named.labels.tolist(), named.dtype) == (("cat", "dog"), [0, 1], "uint8")
    file = tmp_path / "c" / "mine.safetensors"
    file.parent.mkdir()
    arrays = {"images": np.zeros((2, 4, 5), np.float32), "labels": np.array([1, 1], np.int32)}
    save_file(arrays, file, metadata={"classes": json.dumps(["cat", "dog"])})
    data = read_own(file.parent)
    assert (data.classes, data.labels.tolist(), data.shape, data.dtype) == (
        ("cat", "dog"),
        [1, 1],
        (1, 4, 5),
        "float32",
    )


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((2, 4, 5), np.float64)}, "images of float64"),
        ({"images": np.zeros((2, 6, 5, 3), np.uint8)}, "channels before height"),
        ({"images": np.full((2, 4, 5), np.nan, np.float32)}, "not finite"),
        ({"labels": np.array([0, -1])}, "whole numbers from 0"),
        ({"labels": np.array([0.0, 1.0])}, "whole numbers from 0"),
        ({"labels": np.array([0, 1, 2])}, "2 images and 3 labels"),
        ({"images": IMAGES[:0], "labels": np.array([], np.int64)}, "0 images and 0 labels"),
        ({"classes": np.array(["cat"])}, "label 1, but names 1 classes"),
        ({"labels": np.array([{}, {}])}, "no pickled objects"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, object], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_own(npz(tmp_path / "a.npz", **arrays))


def refusal(path: Path) -> str:
    """Read what has to be refused; return the line that says so."""
    with pytest.raises(DataError) as caught:
        read_own(path)
    line = str(caught.value)
    assert path.name in line
    assert "\n" not in line
    assert len(line) < 500
    return line


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (np.array("cat"), "no list of texts"),
        (np.array([["cat"], ["dog"]]), "no list of texts"),
        (np.array([7, 8]), "no list of texts"),
        (np.array(["cat", "cat"]), "2 classes called 'cat'"),
        (np.array(["cat", ""]), "a class called ''"),
        (np.array(["cat", "d" * 201]), "1 to 200 characters"),
        (np.array(["cat", "\ud800"]), "a class called"),
        (np.array([b"cat", b"\xff"]), "utf-8"),
        (np.array([str(label) for label in range(10_001)]), "10001 classes"),
    ],
)
def test_names_that_are_none_are_refused(tmp_path: Path, names: object, reason: str) -> None:
    assert reason in refusal(npz(tmp_path / "a.npz", classes=names))


@pytest.mark.parametrize("names", [{"dog": 1, "cat": 0}, "cat", 3, None, ["cat", 1], [["cat"], ["dog"]]])
def test_names_in_json_are_a_list_of_texts(tmp_path: Path, names: object) -> None:
    """In an object or a text, too, there is something to go through, which would name other classes or swap them."""
    file = tmp_path / "a.safetensors"
    arrays = {"images": np.zeros((2, 4, 5), np.float32), "labels": np.array([1, 1], np.int32)}
    save_file(arrays, file, metadata={"classes": json.dumps(names)})
    assert "no list of texts" in refusal(file)


def test_names_in_bytes_are_utf_8(tmp_path: Path) -> None:
    names = np.array([b"robin", "Häher".encode()])
    assert read_own(npz(tmp_path / "a.npz", classes=names)).classes == ("robin", "Häher")


def test_folders_whose_names_are_too_long_to_tell_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / ("c" * 201) / "1.png")
    assert "1 to 200 characters" in refusal(tmp_path)


@pytest.mark.parametrize("label", [10_000, 10**9, 2**63])
def test_a_label_that_would_need_too_many_classes_is_refused(tmp_path: Path, label: int) -> None:
    assert f"label {label}" in refusal(npz(tmp_path / "a.npz", labels=np.array([0, label], np.uint64)))


def test_what_is_read_can_be_told(tmp_path: Path) -> None:
    """The most classes that there can be, and the longest name."""
    assert len(format_of(read_own(npz(tmp_path / "a.npz", labels=np.array([0, 9_999])))).classes) == 10_000
    named = read_own(npz(tmp_path / "b.npz", classes=np.array(["cat", "d" * 200])))
    assert format_of(named).classes == ["cat", "d" * 200]


def test_images_without_pixels_are_refused(tmp_path: Path) -> None:
    assert "shape (2, 1, 0, 5)" in refusal(npz(tmp_path / "a.npz", images=np.zeros((2, 1, 0, 5), np.uint8)))


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, IMAGES)
    assert "a single array" in refusal(tmp_path / "a.npz")


def test_an_archive_of_other_files_is_refused(tmp_path: Path) -> None:
    with ZipFile(npz(tmp_path / "a.npz", classes=np.array(["cat", "dog"])), "w") as archive:
        archive.writestr("images.npy", b"no array")
        archive.writestr("labels.npy", b"no array")
    assert "images of |S8" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize(("offset", "value", "reason"), [(8, 1, "encrypted"), (10, 99, "compression")])
def test_an_archive_that_python_cannot_open_is_refused(tmp_path: Path, offset: int, value: int, reason: str) -> None:
    """Flags and method of its first file, as the archive's directory has them."""
    raw = bytearray(npz(tmp_path / "a.npz").read_bytes())
    raw[raw.index(b"PK\1\2") + offset] = value
    (tmp_path / "a.npz").write_bytes(raw)
    assert reason in refusal(tmp_path / "a.npz")


def test_a_file_that_is_cut_is_one_line(tmp_path: Path) -> None:
    whole = npz(tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        read_own(tmp_path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_file_is_one_line(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_own(tmp_path)
    assert "\n" not in str(caught.value)


def test_each_device_splits_its_own_by_name_and_seed_wherever_it_is_placed() -> None:
    """Ten examples of two classes, holdout 0.2: eight to train on, one of each class held out."""
    data = {"phone": own(10), "tablet": own(4, classes=("c",), seed=1)}
    here = own_holdings(config(), data, {3: "phone", 1: "tablet"})
    assert here.num_samples.tolist() == [0, 3, 0, 8]
    assert here.label_counts.tolist() == [[0, 0, 0], [0, 0, 3], [0, 0, 0], [4, 4, 0]]
    assert here.hosted == {1, 3}
    assert here.held.sizes.tolist() == [0, 1, 0, 2]
    assert here.num_classes == 3
    assert here.shape == (1, 6, 6)
    assert (here.mean, here.std) == ((127.5,), (127.5,))
    alone = own_holdings(config(), {"phone": data["phone"]}, {0: "phone"})
    np.testing.assert_array_equal(alone.train.images, here.train.images[3:])
    other = own_holdings(config(seed=1), {"phone": data["phone"]}, {0: "phone"})
    assert not np.array_equal(alone.train.images, other.train.images)


def test_what_cannot_be_split_or_is_no_class_of_the_run_is_refused() -> None:
    with pytest.raises(DataError, match="one example"):
        own_holdings(config(), {"phone": own(1)}, {0: "phone"})
    with pytest.raises(DataError, match=r"class 'dog' is not among data\.classes"):
        own_holdings(config(), {"phone": own(4, classes=("a", "dog"))}, {0: "phone"})


def test_the_scale_is_the_configuration_s_or_that_of_the_pixels() -> None:
    data = OwnData(own(4).images.astype(np.float32), own(4).labels, ("a", "b"))
    assert own_holdings(config(), {"phone": data}, {0: "phone"}).std == (1.0,)
    given = config(data={"name": "local", "classes": ["a", "b"], "mean": [3.0], "std": [2.0]})
    assert own_holdings(given, {"phone": data}, {0: "phone"}).mean == (3.0,)


def test_a_workbench_trains_and_evaluates_what_is_here() -> None:
    here = config(model={"name": "mlp"})
    bench = Workbench(here, holdings=own_holdings(here, {"phone": own(10)}, {2: "phone"}))
    update, _ = bench.train(1, 2, bench.initial_weights())
    assert update.num_samples == 8
    loss, _, size = bench.evaluate_client(2, bench.initial_weights())
    assert (loss, size) == (update.loss_before, 2)
    judge = Workbench(here, holdings=judging_holdings(here, own(6)))
    assert judge.layout == bench.layout
    np.testing.assert_array_equal(judge.initial_weights(), bench.initial_weights())
    assert 0 < judge.evaluate_test(judge.initial_weights())[0] < 3


def test_own_data_need_the_wall_clock_and_a_device_that_brings_them() -> None:
    with pytest.raises(ConfigError, match="parityfl client --data DIR"):
        config(rounds={"clock": "virtual"})
    with pytest.raises(DataError, match="start it with --data DIR"):
        dataset.get("local")().load(None)
    assert config().utility.functional == "local_gain"
    assert config(utility={"functional": "loss_gain"}).utility.functional == "loss_gain"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"name": "digits", "classes": ["a"]}, "data.classes belongs to data.name = 'local'"),
        ({"name": "local", "root": "/data"}, "data.root"),
        ({"name": "local", "classes": ["a", "a"]}, "names a class twice"),
        ({"name": "local", "mean": [1.0]}, "belong together"),
        ({"name": "local", "mean": [1.0], "std": [1.0, 2.0]}, "belong together"),
        ({"name": "local", "mean": [1.0], "std": [1.0], "shape": [3, 4, 4]}, "3 channels"),
        ({"name": "local", "shape": [28, 28]}, "data.shape"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        config(data=keys)
