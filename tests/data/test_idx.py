from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.data import idx
from nnmpq.data.errors import DataError
from nnmpq.data.idx import load_fashion_mnist, load_mnist, read_idx

MNIST_LABELS = [5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5]


def packed(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def publish(folder: Path, ending: str = ".gz", labels: list[int] = MNIST_LABELS, dot: bool = False) -> np.ndarray:
    """Write the four files with 12 and 3 made-up images; returns the training images."""
    images = np.random.RandomState(0).randint(0, 256, (12, 28, 28)).astype(np.uint8)
    separator = "." if dot else "-"
    for part, count in (("train", 12), ("t10k", 3)):
        write(folder / f"{part}-images{separator}idx3-ubyte{ending}", packed(images[:count]))
        write(folder / f"{part}-labels{separator}idx1-ubyte{ending}", packed(np.array(labels[:count], np.uint8)))
    return images


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert idx.IMAGES == {"train": 60_000, "t10k": 10_000}  # the publishers'
    monkeypatch.setattr(idx, "IMAGES", {"train": 12, "t10k": 3})


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.booleans())
def test_an_array_comes_back(tmp_path_factory: pytest.TempPathFactory, shape: list[int], zipped: bool) -> None:
    array = np.random.RandomState(1).randint(0, 256, shape).astype(np.uint8)
    path = write(tmp_path_factory.mktemp("idx") / ("a.gz" if zipped else "a"), packed(array))
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize("ending,dot", [("", False), (".gz", False), ("", True)])
@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
@pytest.mark.usefixtures("small")
def test_mnist_is_read_from_the_usual_places(tmp_path: Path, ending: str, dot: bool, below: str) -> None:
    images = publish(tmp_path / below, ending, dot=dot)
    train, test, classes, offset, scale = load_mnist(str(tmp_path))
    np.testing.assert_array_equal(train.images[:, 0], images)
    assert train.images.shape == (12, 1, 28, 28) and (classes, offset, scale) == (10, 127.5, 127.5)
    assert train.labels.tolist() == MNIST_LABELS and test.labels.tolist() == [5, 0, 4]
    assert train.labels.dtype == np.int32


@pytest.mark.usefixtures("small")
def test_the_two_sets_are_told_apart(tmp_path: Path) -> None:
    publish(tmp_path / "mnist")
    publish(tmp_path / "fashion-mnist", labels=[9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9])
    assert load_mnist(str(tmp_path))[0].labels[0] == 5
    assert load_fashion_mnist(str(tmp_path))[0].labels[0] == 9
    with pytest.raises(DataError, match="Fashion-MNIST: .* holds MNIST"):
        load_fashion_mnist(str(tmp_path / "mnist"))
    with pytest.raises(DataError, match="MNIST: .* holds Fashion-MNIST"):
        load_mnist(str(tmp_path / "fashion-mnist"))


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "begins with nothing"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x00\x00", "begins with 00 00 0d 01"),
        (b"\x00\x00\x08\x00", "no idx file"),
        (b"\x00\x00\x08\x03\x00\x00\x00\x01", "cut off in its head"),
        (packed(np.zeros((2, 3), np.uint8))[:-1], r"cut off: shape \(2, 3\) needs 6 bytes"),
        (packed(np.zeros((2, 3), np.uint8)) + b"x", "too long"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31), "larger than any data set"),
    ],
)
@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_damage_is_named(tmp_path: Path, content: bytes, message: str, name: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_idx(write(tmp_path / name, content))
    assert str(tmp_path / name) in str(caught.value)


def test_a_damaged_gzip_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", packed(np.arange(200, dtype=np.uint8)))
    good = path.read_bytes()
    for content in (b"no gzip", good[:-20], good[:-8] + bytes(8), good[:12] + b"\xff" * 20 + good[32:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.gz: (cannot be read|no idx file)"):
            read_idx(path)


@pytest.mark.usefixtures("small")
def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    publish(tmp_path)
    write(tmp_path / "t10k-labels-idx1-ubyte.gz", packed(np.array([1, 2], np.uint8)))
    with pytest.raises(DataError, match=r"t10k-labels.*shape \(2,\) instead of \(3,\)"):
        load_mnist(str(tmp_path))
    write(tmp_path / "t10k-labels-idx1-ubyte.gz", packed(np.array([1, 2, 10], np.uint8)))
    with pytest.raises(DataError, match="t10k-labels.*class 10"):
        load_mnist(str(tmp_path))
    write(tmp_path / "t10k-images-idx3-ubyte.gz", packed(np.zeros((3, 28, 27), np.uint8)))
    with pytest.raises(DataError, match=r"t10k-images.*instead of \(3, 28, 28\)"):
        load_mnist(str(tmp_path))
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match="has no t10k-images-idx3-ubyte or .*; nothing else is in .*NNMPQ_DATA"):
        load_mnist(str(tmp_path))


@pytest.mark.parametrize("loader,folder", [(load_mnist, "mnist"), (load_fashion_mnist, "fashion-mnist")])
def test_real_idx_files(loader: Callable, folder: str) -> None:
    root = os.environ.get("NNMPQ_DATA")
    if not root or not (Path(root) / folder).is_dir():
        pytest.skip(f"NNMPQ_DATA names no folder with {folder}")
    train, test, *_ = loader(root)
    assert (len(train), len(test)) == (60_000, 10_000)
    # The published means of the training images.
    mean = {"mnist": 0.1307, "fashion-mnist": 0.2860}[folder]
    assert train.images.mean() / 255 == pytest.approx(mean, abs=6e-5)
