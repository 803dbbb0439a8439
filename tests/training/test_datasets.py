"""Data sets from tiny files in the official formats, and what is said where they are missing or malformed."""

import gzip
import io
import struct
import tarfile
from hashlib import md5
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from parityfl.core.errors import DataError
from parityfl.training.datasets import Dataset, dataset
from parityfl.training.datasets.cifar import CIFAR10, CIFAR100, Cifar10, Cifar100, Edition
from parityfl.training.datasets.fashion_mnist import FILES, SYSTEM, FashionMnist, read_idx
from parityfl.training.datasets.files import RemoteFile, download, places, require_checksum


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """A user with an empty cache and no $PARITYFL_DATA."""
    monkeypatch.delenv("PARITYFL_DATA", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))


def no_network(file: RemoteFile, folder: Path) -> None:
    raise OSError("no route to host")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_fashion(folder: Path, num_train: int = 3, num_test: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for count, images, labels in ((num_train, FILES[0], FILES[1]), (num_test, FILES[2], FILES[3])):
        write_idx(folder / images.name, np.arange(count * 784).reshape(count, 28, 28) % 251)
        write_idx(folder / labels.name, np.arange(count))


def records(edition: Edition, labels: list[int], coarse: int = 7) -> bytes:
    """Binary records whose red, green and blue planes are 1, 2 and 3."""
    planes = bytes([1]) * 1024 + bytes([2]) * 1024 + bytes([3]) * 1024
    before = bytes([coarse]) * (edition.label_bytes - 1)
    return b"".join(before + bytes([label]) + planes for label in labels)


def binary_files(edition: Edition) -> dict[str, bytes]:
    train = {f"{stem}.bin": records(edition, [position]) for position, stem in enumerate(edition.train)}
    return {**train, f"{edition.test}.bin": records(edition, [9, 8])}


def write_archive(path: Path, folder: str, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


def assert_tiny_cifar(data: Dataset, edition: Edition) -> None:
    assert data.train_labels.tolist() == list(range(len(edition.train)))
    assert data.test_labels.tolist() == [9, 8]
    assert data.train_images.shape[1:] == (3, 32, 32)
    assert data.test_images[:, :, 5, 6].tolist() == [[1, 2, 3], [1, 2, 3]]
    assert data.num_classes == edition.num_classes


def test_what_is_registered():
    assert {"digits", "fashion-mnist", "cifar10", "cifar100"} <= set(dataset.names())
    for name in dataset.names():
        assert dataset.get(name).source
        assert dataset.get(name).__doc__


def test_digits_have_a_fixed_stratified_split():
    data = dataset.get("digits")().load(None)
    assert (data.train_images.shape, data.test_images.shape) == ((1438, 1, 8, 8), (359, 1, 8, 8))
    assert data.train_images.dtype == np.uint8
    assert data.train_images.max() == 16
    share = np.bincount(data.test_labels) / np.bincount(np.concatenate([data.train_labels, data.test_labels]))
    assert np.all(np.abs(share - 0.2) < 0.01)
    again = dataset.get("digits")().load(None)
    assert np.array_equal(data.test_images, again.test_images)
    standard = (data.train_images - data.mean[0]) / data.std[0]
    assert abs(standard.mean()) < 0.01
    assert abs(standard.std() - 1) < 0.01


def test_fashion_mnist_from_the_configured_folder_or_the_folder_of_its_name_in_it(tmp_path):
    for folder in (tmp_path / "here", tmp_path / "data" / "fashion-mnist"):
        write_fashion(folder)
    for root in (tmp_path / "here", tmp_path / "data"):
        data = FashionMnist(no_network).load(str(root))
        assert data.train_images.shape == (3, 1, 28, 28)
        assert data.test_labels.tolist() == [0, 1]
        assert data.test_images[1, 0, 0, :3].tolist() == [784 % 251, 785 % 251, 786 % 251]


def test_the_order_of_places(tmp_path, monkeypatch):
    monkeypatch.setenv("PARITYFL_DATA", str(tmp_path / "env"))
    assert list(places("cifar10", str(tmp_path / "root"), SYSTEM)) == [
        tmp_path / "root",
        tmp_path / "root" / "cifar10",
        tmp_path / "env",
        tmp_path / "env" / "cifar10",
        tmp_path / "cache" / "parityfl" / "cifar10",
        Path("/usr/share/datasets/fashion-mnist"),
    ]


def test_the_environment_comes_before_the_cache(tmp_path, monkeypatch):
    write_fashion(tmp_path / "cache" / "parityfl" / "fashion-mnist", num_train=1)
    assert len(FashionMnist(no_network).load(None).train_labels) == 1
    write_fashion(tmp_path / "env", num_train=4)
    monkeypatch.setenv("PARITYFL_DATA", str(tmp_path / "env"))
    assert len(FashionMnist(no_network).load(None).train_labels) == 4


@pytest.mark.skipif(not (SYSTEM[0] / FILES[2].name).is_file(), reason="needs Debian's dataset-fashion-mnist")
def test_the_real_fashion_mnist():
    images = read_idx(SYSTEM[0] / FILES[2].name, 3)
    labels = read_idx(SYSTEM[0] / FILES[3].name, 1)
    assert images.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert labels[:3].tolist() == [9, 2, 1]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"no gzip at all", "cannot be read as gzip"),
        (gzip.compress(bytes(100))[:-12], "cannot be read as gzip"),
        (gzip.compress(b"\0\0"), "no IDX file"),
        (gzip.compress(bytes((0, 0, 13, 3)) + bytes(12)), "begins with 00 00 0d 03"),
        (gzip.compress(bytes((0, 0, 8, 1)) + bytes(12)), "with 3 axes"),
        (gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 2, 2) + bytes(7)), "2 x 2 x 2 bytes and holds 7"),
    ],
    ids=["no gzip", "torn", "short", "type", "axes", "size"],
)
def test_malformed_idx(tmp_path, raw, message):
    path = tmp_path / "bad.gz"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_idx(path, 3)


def test_labels_outside_the_range_are_refused(tmp_path):
    write_fashion(tmp_path)
    write_idx(tmp_path / FILES[3].name, np.array([0, 10]))
    with pytest.raises(DataError, match="test part has label 10: labels must be 0 to 9"):
        FashionMnist(no_network).load(str(tmp_path))


def test_an_image_of_no_numbers_is_refused():
    images, labels = np.zeros((3, 1, 2, 2), np.float32), np.zeros(3, np.int64)
    broken = images.copy()
    broken[1, 0, 1, 0] = np.nan
    with pytest.raises(DataError, match="image 1 of the train part holds a number that is not finite"):
        Dataset(broken, labels, images, labels, 1, (0.0,), (1.0,))


def test_fewer_labels_than_images_are_refused(tmp_path):
    write_fashion(tmp_path)
    write_idx(tmp_path / FILES[1].name, np.array([0]))
    with pytest.raises(DataError, match=r"train part has images \(3, 1, 28, 28\) and labels \(1,\)"):
        FashionMnist(no_network).load(str(tmp_path))


@pytest.mark.parametrize(("source", "edition"), [(Cifar10, CIFAR10), (Cifar100, CIFAR100)])
def test_cifar_from_the_archive_and_from_the_unpacked_folder(tmp_path, source, edition):
    files = binary_files(edition)
    (tmp_path / "a").mkdir()
    write_archive(tmp_path / "a" / edition.archive.name, edition.binary_folder, files)
    unpacked = tmp_path / "b" / edition.binary_folder
    unpacked.mkdir(parents=True)
    for name, raw in files.items():
        (unpacked / name).write_bytes(raw)
    for root in (tmp_path / "a", tmp_path / "b", unpacked):
        assert_tiny_cifar(source(no_network).load(str(root)), edition)


def test_cifar_archive_that_was_packed_from_its_folder(tmp_path):
    """`tar -czf archive .` writes `./` before every name."""
    write_archive(tmp_path / CIFAR10.archive.name, f"./{CIFAR10.binary_folder}", binary_files(CIFAR10))
    assert_tiny_cifar(Cifar10(no_network).load(str(tmp_path)), CIFAR10)


def test_cifar_archive_that_lacks_a_file(tmp_path):
    files = binary_files(CIFAR10)
    del files["data_batch_3.bin"]
    write_archive(tmp_path / CIFAR10.archive.name, CIFAR10.binary_folder, files)
    with pytest.raises(DataError, match=r"has no cifar-10-batches-bin/data_batch_3\.bin"):
        Cifar10(no_network).load(str(tmp_path))


def test_cifar_archive_that_was_cut_off(tmp_path):
    path = tmp_path / CIFAR10.archive.name
    write_archive(path, CIFAR10.binary_folder, binary_files(CIFAR10))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cannot be read as a tar\.gz archive"):
        Cifar10(no_network).load(str(tmp_path))


def test_cifar_records_of_another_length(tmp_path):
    files = binary_files(CIFAR10) | {"test_batch.bin": bytes(3000)}
    write_archive(tmp_path / CIFAR10.archive.name, CIFAR10.binary_folder, files)
    with pytest.raises(DataError, match=r"test_batch\.bin has 3000 bytes, not a multiple of 3073"):
        Cifar10(no_network).load(str(tmp_path))


def test_checksum_holds_for_archives_of_the_official_size_only(tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(b"twelve bytes")
    require_checksum(path, 12, md5(b"twelve bytes", usedforsecurity=False).hexdigest())
    require_checksum(path, 13, "another archive altogether")
    with pytest.raises(DataError, match="is damaged: its MD5 is"):
        require_checksum(path, 12, "0" * 32)


def test_without_network_and_data_the_error_says_which_file_to_put_where(tmp_path):
    with pytest.raises(DataError) as caught:
        Cifar100(no_network).load(str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    for needed in ("cifar-100-binary.tar.gz", str(tmp_path / "cache"), "data.root", "$PARITYFL_DATA", "no route"):
        assert needed in message


def test_a_download_goes_to_the_cache_whole_and_is_found_there(tmp_path):
    asked = []

    def fetch(file: RemoteFile, folder: Path) -> None:
        asked.append(file.name)
        write_archive(folder / file.name, CIFAR10.binary_folder, binary_files(CIFAR10))

    assert_tiny_cifar(Cifar10(fetch).load(None), CIFAR10)
    assert_tiny_cifar(Cifar10(fetch).load(None), CIFAR10)
    assert asked == ["cifar-10-binary.tar.gz"]
    assert [path.name for path in (tmp_path / "cache" / "parityfl" / "cifar10").iterdir()] == asked


def test_a_failed_download_leaves_nothing_behind(tmp_path):
    def fetch(file: RemoteFile, folder: Path) -> None:
        (folder / file.name).write_bytes(b"half a fi")
        raise RuntimeError("File not found or corrupted.")

    with pytest.raises(DataError, match="not found or corrupted"):
        download("cifar10", [CIFAR10.archive], fetch)
    assert list((tmp_path / "cache" / "parityfl" / "cifar10").iterdir()) == []
