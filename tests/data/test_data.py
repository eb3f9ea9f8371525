from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.data import DataError, load
from nnmpq.data.batches import crop_and_flip, evaluation_batches, normalise, training_batches
from nnmpq.data.cifar10 import FOLDER, read_batch
from nnmpq.data.dataset import Split, hold_out, limit


def test_digits_are_the_published_ones() -> None:
    data = load("digits", validation_images=237)
    parts = (data.train, data.validation, data.test)
    assert [len(p) for p in parts] == [1200, 237, 360]
    counts = sum(np.bincount(p.labels, minlength=10) for p in parts)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    everything = np.concatenate([p.images for p in parts])
    assert everything.shape == (1797, 1, 8, 8) and everything.max() == 16
    # No image is in two parts: all 1,797 of the publisher are there.
    again = load("digits", validation_images=0)
    whole = np.concatenate([again.train.images, again.test.images])
    assert sorted(map(bytes, whole)) == sorted(map(bytes, everything))
    assert np.bincount(data.test.labels).min() >= 34


def test_the_test_part_does_not_depend_on_the_seed() -> None:
    first, second = load("digits", validation_images=100, seed=1), load("digits", validation_images=100, seed=2)
    np.testing.assert_array_equal(first.test.images, second.test.images)
    assert not np.array_equal(first.validation.images, second.validation.images)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 60), st.integers(0, 59), st.integers(0, 5))
def test_holding_out_keeps_every_image_and_the_shares(count: int, held: int, seed: int) -> None:
    held = min(held, count - 1)
    split = Split(np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1), np.arange(count, dtype=np.int32) % 3)
    kept, out = hold_out(split, held, seed)
    assert (len(kept), len(out)) == (count - held, held)
    assert sorted([*kept.images.ravel(), *out.images.ravel()]) == list(range(count))
    shares = np.bincount(out.labels, minlength=3)
    assert shares.max() - shares.min() <= 2
    assert len(limit(split, held or None, seed)) == (held or count)


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(DataError, match="1797"):
        load("digits", validation_images=1797 - 360 + 360)


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    data = load("digits")

    def epoch(seed: int, number: int) -> list[np.ndarray]:
        return [x for x, _ in training_batches(data, 64, seed=seed, epoch=number, augmentation="crop_flip")]

    for a, b in zip(epoch(1, 2), epoch(1, 2)):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(epoch(1, 2)[0], epoch(1, 3)[0])
    assert not np.array_equal(epoch(1, 2)[0], epoch(2, 2)[0])
    assert len(epoch(1, 2)) == len(data.train) // 64
    with pytest.raises(DataError, match="crop_flip"):
        next(training_batches(data, 64, seed=1, epoch=1, augmentation="flip"))


def test_an_epoch_shows_each_image_once() -> None:
    data = load("digits")
    shown = [normalise(data.train.images, data.offset, data.scale)]
    seen = np.concatenate([x for x, _ in training_batches(data, 1, seed=3, epoch=0)])
    assert sorted(map(bytes, seen)) == sorted(map(bytes, shown[0]))


def test_crops_are_windows_of_the_padded_image_or_its_mirror() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 255, (200, 2, 5, 6)).astype(np.uint8)
    crops = crop_and_flip(images, np.random.default_rng(1), 0)
    padded = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)))
    mirrored = 0
    for image, crop in zip(padded, crops):
        windows = [image[:, t : t + 5, s : s + 6] for t in range(9) for s in range(9)]
        plain = any(np.array_equal(crop, w) for w in windows)
        flipped = any(np.array_equal(crop[..., ::-1], w) for w in windows)
        assert plain or flipped
        mirrored += flipped and not plain
    assert 60 < mirrored < 140


def test_evaluation_batches_cover_all_in_order() -> None:
    data = load("digits")
    labels = np.concatenate([t[:count, 0] for _, t, count in evaluation_batches(data, data.test, 100)])
    np.testing.assert_array_equal(labels, data.test.labels)
    assert all(x.shape == (100, 1, 8, 8) for x, _, _ in evaluation_batches(data, data.test, 100))


def test_unknown_sets_name_the_nearest() -> None:
    with pytest.raises(DataError, match="'cifar10'"):
        load("cifar")


def batch(count: int = 4) -> dict[bytes, Any]:
    rng = np.random.RandomState(0)
    data = rng.randint(0, 256, (count, 3072)).astype(np.uint8)
    return {b"data": data, b"labels": [int(v) for v in rng.randint(0, 10, count)], b"batch_label": b"x"}


def write(path: Path, document: Any) -> Path:
    path.write_bytes(pickle.dumps(document, protocol=2))
    return path


def test_a_good_batch_is_read(tmp_path: Path) -> None:
    document = batch()
    split = read_batch(write(tmp_path / "b", document), 4)
    np.testing.assert_array_equal(split.images.reshape(4, -1), document[b"data"])
    assert split.labels.tolist() == document[b"labels"]


@pytest.mark.parametrize(
    "change,message",
    [
        ({b"data": None}, "'data' is no uint8 array"),
        ({b"data": np.zeros((4, 3072), np.float32)}, "'data' is no uint8 array"),
        ({b"data": np.zeros((3, 3072), np.uint8)}, "'data' is no uint8 array"),
        ({b"labels": [1, 2, 3]}, "no list of 4 classes"),
        ({b"labels": [1, 2, 3, 10]}, "no list of 4 classes"),
        ({b"labels": "1234"}, "no list of 4 classes"),
    ],
)
def test_a_bad_batch_is_named(change: dict[bytes, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data_batch_3", {**batch(), **change})
    with pytest.raises(DataError, match=message) as caught:
        read_batch(path, 4)
    assert "data_batch_3" in str(caught.value)


class _Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch hostile-pickle-ran",)


def test_a_hostile_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="system"):
        read_batch(write(tmp_path / "b", {**batch(), b"x": _Hostile()}), 4)
    assert not (tmp_path / "hostile-pickle-ran").exists()


@settings(deadline=None, max_examples=40)
@given(share=st.floats(0, 0.999))
def test_a_truncated_batch_is_never_half_read(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = write(tmp_path_factory.mktemp("cut") / "b", batch())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="damaged or no CIFAR-10 batch"):
        read_batch(path, 4)


def test_a_missing_folder_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNMPQ_DATA", raising=False)
    with pytest.raises(DataError, match="NNMPQ_DATA"):
        load("cifar10")
    with pytest.raises(DataError, match=FOLDER) as caught:
        load("cifar10", data_dir=str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_real_cifar10() -> None:
    folder = os.environ.get("NNMPQ_DATA")
    if not folder or not (Path(folder) / FOLDER).is_dir():
        pytest.skip("NNMPQ_DATA names no folder with cifar-10-batches-py")
    data = load("cifar10", validation_images=5000)
    assert (len(data.train), len(data.validation), len(data.test)) == (45000, 5000, 10000)
    assert np.bincount(data.validation.labels).tolist() == [500] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    both = np.concatenate([data.train.images, data.validation.images])
    # The published means of the training images.
    np.testing.assert_allclose(both.mean((0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=6e-5)
