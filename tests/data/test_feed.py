from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import attrs
import numpy as np
import pytest

from nnmpq.data import DataError, DataSet, ImageOptions, load
from nnmpq.data.batches import evaluation_batches, training_batches
from nnmpq.data.feed import Feed
from nnmpq.data.worker_pool import WorkerPool, default_workers
from tests.data.made_up import imagenette


@pytest.fixture
def nette(tmp_path: Path) -> DataSet:
    """Forty training and twenty test images in files."""
    imagenette(tmp_path)
    return load("imagenette", data_dir=str(tmp_path), options=ImageOptions("random_resized_crop", size=8))


def digits() -> DataSet:
    return load("digits", validation_images=37, train_images=100)


def assert_same(first: list, second: list) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)


def test_images_in_memory_come_as_without_a_thread() -> None:
    data = digits()
    with Feed(data, 32, seed=5, augmentation="crop_flip") as feed:
        plain = training_batches(data, 32, seed=5, epoch=2, augmentation="crop_flip")
        assert_same(list(feed.training(2)), list(plain))
        assert_same(list(feed.evaluation(data.validation)), list(evaluation_batches(data, data.validation, 32)))


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_the_shares_of_processes_make_the_whole_batch(kind: str, nette: DataSet) -> None:
    data = digits() if kind == "memory" else nette
    whole = list(Feed(data, 12, seed=1, augmentation="crop_flip").training(3))
    shares = [list(Feed(data, 12, seed=1, augmentation="crop_flip", rank=r, size=3).training(3)) for r in range(3)]
    assert len(whole) == len(data.train) // 12
    assert shares[0][0][0].shape[0] == 4
    assert_same(whole, [tuple(np.concatenate(parts) for parts in zip(*batches)) for batches in zip(*shares)])


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_processes_take_turns_at_evaluation(kind: str, nette: DataSet) -> None:
    data = digits() if kind == "memory" else nette
    part = data.validation if kind == "memory" else data.test
    alone = list(Feed(data, 4, seed=0).evaluation(part))
    shared = [list(Feed(data, 12, seed=0, rank=rank, size=3).evaluation(part)) for rank in range(3)]
    assert sum(count for _, _, count in alone) == len(part)
    for rank in range(3):
        assert_same(alone[rank::3], shared[rank])


def test_workers_change_nothing_and_serve_all_epochs(nette: DataSet) -> None:
    with Feed(nette, 8, seed=1) as alone, Feed(nette, 8, seed=1, workers=2) as feed:
        for epoch in (0, 1):
            assert_same(list(alone.training(epoch)), list(feed.training(epoch)))
            assert_same(list(alone.evaluation(nette.test)), list(feed.evaluation(nette.test)))
        pool = feed._pool
        assert isinstance(pool, WorkerPool)
        # One left early does not keep the workers.
        broken_off = feed.training(2)
        next(broken_off)
        broken_off.close()
        assert_same(list(alone.training(3)), list(feed.training(3)))
        assert feed._pool is pool
    with pytest.raises(DataError, match="closed"):
        pool.begin()


def test_closing_ends_what_an_error_left_open(nette: DataSet) -> None:
    batches = None
    with pytest.raises(ZeroDivisionError), Feed(nette, 8, seed=1, workers=1) as feed:
        batches = feed.training(0)
        for _ in batches:
            raise ZeroDivisionError
    # Somebody still holds the iterator, as a traceback would.
    assert batches is not None and not [t for t in threading.enumerate() if t.name == "nnmpq-ahead"]
    assert list(batches) == []


def test_an_epoch_begins_anew_the_same_after_a_break(nette: DataSet) -> None:
    with Feed(nette, 8, seed=1) as feed:
        first = [list(feed.training(epoch)) for epoch in (0, 1)]
    with Feed(nette, 8, seed=1) as resumed:
        assert_same(first[1], list(resumed.training(1)))
    assert not np.array_equal(first[0][0][0], first[1][0][0])


def test_corrupt_images_are_counted_over_epochs_and_an_error_in_evaluation(nette: DataSet, caplog) -> None:
    nette.train.path(3).write_bytes(b"\xff\xd8 no image")
    nette.test.path(5).write_bytes(b"")
    with Feed(nette, 8, seed=1) as feed, pytest.raises(DataError, match="1 of 40 images cannot be read"):
        list(feed.training(0))
    lenient = attrs.evolve(nette, settings=attrs.evolve(nette.settings, corrupt_share=0.05))
    with caplog.at_level(logging.WARNING), Feed(lenient, 8, seed=1) as feed:
        for epoch in range(3):
            assert len(list(feed.training(epoch))) == 5
    assert sum("skipped, 1 of at most 2" in record.getMessage() for record in caplog.records) == 1
    with Feed(lenient, 8, seed=1) as feed, pytest.raises(DataError, match=nette.test.path(5).name):
        list(feed.evaluation(nette.test))


def test_the_error_of_a_later_process_is_logged(nette: DataSet, caplog) -> None:
    nette.test.path(5).write_bytes(b"")
    with caplog.at_level(logging.ERROR), Feed(nette, 8, seed=1, rank=1, size=2) as feed, pytest.raises(DataError):
        list(feed.evaluation(nette.test))
    assert [r.getMessage() for r in caplog.records if "process 1" in r.getMessage() and "no image" in r.getMessage()]


def test_what_does_not_fit_is_told(nette: DataSet) -> None:
    with pytest.raises(DataError, match="batch size 10: 3 processes"):
        Feed(nette, 10, seed=0, size=3)
    with pytest.raises(DataError, match="these images are in files"):
        list(training_batches(nette, 4, seed=0, epoch=0))
    with Feed(digits(), 8, seed=0) as feed, pytest.raises(DataError, match="these images are in files"):
        list(feed.evaluation(nette.test))


@pytest.mark.skipif(sys.platform != "linux", reason="counts cores by affinity")
def test_workers_share_the_cores_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert [default_workers(n) for n in (1, 2, 4, 8)] == [4, 2, 1, 1]
    monkeypatch.setattr("os.name", "nt")
    assert default_workers() == 0
