from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnmpq.data import cifar100
from nnmpq.data.cifar100 import FOLDER, load_cifar100, read_part
from nnmpq.data.errors import DataError


def document(count: int, seed: int = 0) -> dict[bytes, Any]:
    """What one of the publisher's files holds, with made-up pixels."""
    rng = np.random.RandomState(seed)
    fine = [int(label) for label in rng.randint(0, 100, count)]
    return {
        b"filenames": [b"x.png"] * count,
        b"batch_label": b"training batch 1 of 1",
        b"fine_labels": fine,
        b"coarse_labels": [label // 5 for label in fine],
        b"data": rng.randint(0, 256, (count, 3072)).astype(np.uint8),
    }


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def test_both_parts_are_read_with_their_fine_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cifar100.IMAGES == {"train": 50_000, "test": 10_000}  # the publisher's
    monkeypatch.setattr(cifar100, "IMAGES", {"train": 7, "test": 3})
    contents = {"train": document(7, 1), "test": document(3, 2), "meta": {}}
    for name, content in contents.items():
        write(tmp_path / FOLDER / name, content)
    for folder in (tmp_path, tmp_path / FOLDER):
        train, test, classes, offset, scale = load_cifar100(str(folder))
        assert (len(train), len(test), classes, offset, scale) == (7, 3, 100, 127.5, 127.5)
        assert train.labels.tolist() == contents["train"][b"fine_labels"] and train.labels.dtype == np.int32
        # Red, green and blue planes of 1,024 pixels, row by row.
        pixels = contents["test"][b"data"]
        assert test.images.shape == (3, 3, 32, 32)
        assert test.images[2, 1, 4, 5] == pixels[2, 1024 + 4 * 32 + 5]


@pytest.mark.parametrize(
    "change,message",
    [
        ({b"data": np.zeros((4, 3072), np.float32)}, "'data' is no uint8 array"),
        ({b"data": np.zeros((3, 3072), np.uint8)}, "'data' is no uint8 array"),
        ({b"fine_labels": [1, 2, 3]}, "no list of 4 classes"),
        ({b"fine_labels": [1, 2, 3, 100]}, "from 0 to 99"),
        ({b"fine_labels": [1, 2, 3, "4"]}, "from 0 to 99"),
    ],
)
def test_a_bad_file_is_named(change: dict[bytes, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_part(write(tmp_path / "train", {**document(4), **change}), 4)
    assert str(tmp_path / "train") in str(caught.value)


def test_cifar10_is_no_cifar100(tmp_path: Path) -> None:
    content = document(4)
    content[b"labels"] = content.pop(b"fine_labels")
    with pytest.raises(DataError, match="'fine_labels' are needed"):
        read_part(write(tmp_path / "train", content), 4)


class _Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch hostile-pickle-ran",)


def test_a_hostile_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="system"):
        read_part(write(tmp_path / "b", {**document(4), b"x": _Hostile()}), 4)
    assert not (tmp_path / "hostile-pickle-ran").exists()


def test_truncation_and_absence_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "train", document(4))
    for size in (0, 10, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DataError, match="damaged or no CIFAR-100 file"):
            read_part(path, 4)
    with pytest.raises(DataError, match="cannot be read"):
        read_part(tmp_path / "none", 4)
    (tmp_path / "cifar100-python").mkdir()
    with pytest.raises(DataError, match="looked for train, test, meta .* found is .*cifar100-python"):
        load_cifar100(str(tmp_path))


def test_real_cifar100() -> None:
    folder = os.environ.get("NNMPQ_DATA")
    if not folder or not (Path(folder) / FOLDER).is_dir():
        pytest.skip(f"NNMPQ_DATA names no folder with {FOLDER}")
    train, test, *_ = load_cifar100(folder)
    assert np.bincount(train.labels).tolist() == [500] * 100
    assert np.bincount(test.labels).tolist() == [100] * 100
