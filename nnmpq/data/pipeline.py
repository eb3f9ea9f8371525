"""Batches of image files, decoded and augmented by worker processes ahead of their use.

Every image is a pure function of settings, seed, epoch and its number: any number of workers makes the same batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np

from nnmpq.data.corrupt import CorruptImages
from nnmpq.data.errors import DataError
from nnmpq.data.image_settings import ImageSettings
from nnmpq.data.slots import CORRUPT, FAILED, fill, write_order
from nnmpq.data.worker_pool import InProcess, WorkerError, WorkerPool


class Files(Protocol):
    """What is needed of a list of image files."""

    @property
    def labels(self) -> np.ndarray:
        """Classes, int32, shape (N,)."""

    @property
    def boxes(self) -> np.ndarray | None:
        """Bounding boxes, shape (N, 4): left, top, right, bottom in pixels; None where there are none."""

    def __len__(self) -> int: ...

    def path(self, index: int) -> str | Path:
        """Path of image `index`."""


@attrs.define(eq=False)
class _Batch:
    """A batch that is being made: its slot, the numbers that draw the augmentation, the images that are shown."""

    slot: int
    indices: np.ndarray
    shown: np.ndarray


def file_training_batches(
    files: Files,
    settings: ImageSettings,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    workers: int | WorkerPool = 0,
    corrupt: CorruptImages | None = None,
    rank: int = 0,
    size: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the training batches of one epoch; the last images that fill no batch are left for another epoch.

    An image that cannot be read is replaced by the next one of the list, with that one's label.

    Args:
        files: the images.
        settings: what is done to them.
        batch_size: images a batch.
        seed: the run's seed, at least 0.
        epoch: number of the epoch, from 0.
        workers: processes, 0 for this one; or a pool that lives longer than the epoch.
        corrupt: counts unreadable images; hand over the same one in every epoch.
        rank: number of this process among those that share each batch, from 0.
        size: how many those are; a pool is made for batches of B / size.

    Yields:
        Images float32 or uint8 (B / size, C, H, W), as the settings say, and labels int32 (B / size, 1).

    Raises:
        DataError: more images are corrupt than may be.
        WorkerError: a worker process ended.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(files))
    share = batch_size // size
    parts = [
        part[rank * share : (rank + 1) * share]
        for part in _parts(order[: len(order) // max(batch_size, 1) * batch_size], batch_size)
    ]
    counted = corrupt if corrupt is not None else CorruptImages(len(files), settings.corrupt_share)
    for images, labels, _ in _batches(files, settings, share, parts, (seed, epoch), workers, counted):
        yield images, labels


def file_evaluation_batches(
    files: Files,
    settings: ImageSettings,
    batch_size: int,
    *,
    workers: int | WorkerPool = 0,
    rank: int = 0,
    size: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield all images in order; the last batch is filled up with black ones of class 0.

    Args:
        files: the images.
        settings: what is done to them.
        batch_size: images a batch.
        workers: as of `file_training_batches`.
        rank: number of this process, from 0.
        size: processes that take turns at the batches.

    Yields:
        Images float32 or uint8 (B, C, H, W), labels int32 (B, 1), and how many of them count.

    Raises:
        DataError: an image cannot be read.
        WorkerError: a worker process ended.
    """
    parts = _parts(np.arange(len(files)), batch_size)[rank::size]
    return _batches(files, settings, batch_size, parts, (0, 0), workers, None)


def _parts(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    if batch_size < 1:
        raise DataError(f"batch size {batch_size}: at least 1 is needed")
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def _batches(
    files: Files,
    settings: ImageSettings,
    batch_size: int,
    parts: Sequence[np.ndarray],
    moment: tuple[int, int],
    workers: int | WorkerPool,
    corrupt: CorruptImages | None,
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Keep every slot busy: one batch is handed over while the ones after it are made."""
    with _makers(settings, batch_size, workers) as makers:
        free = deque(range(len(makers.records)))
        waiting: deque[_Batch] = deque()
        rest = iter(parts)

        def refill() -> None:
            while free and (indices := next(rest, None)) is not None:
                waiting.append(_order(files, makers, free.popleft(), indices, moment, corrupt))

        refill()
        while waiting:
            batch = waiting.popleft()
            makers.wait(batch.slot)
            record = makers.records[batch.slot]
            _mend(files, settings, record, batch, corrupt)
            count = len(batch.shown)
            record["images"][count:] = 0
            labels = np.zeros((batch_size, 1), np.int32)
            labels[:count, 0] = files.labels[batch.shown]
            images = settings.numbers(record["images"])
            free.append(batch.slot)
            refill()  # before the training step that follows, so that the workers are busy during it
            yield images, labels, count


def _order(
    files: Files,
    makers: InProcess | WorkerPool,
    slot: int,
    indices: np.ndarray,
    moment: tuple[int, int],
    corrupt: CorruptImages | None,
) -> _Batch:
    """Write into a slot which images it is to hold, and have them made."""
    record = makers.records[slot]
    record["seed"], record["epoch"] = moment
    record["training"] = corrupt is not None
    shown = np.array([corrupt.next_sound(int(i)) if corrupt is not None else i for i in indices], np.int64)
    for position, (index, image) in enumerate(zip(indices, shown)):
        _write(files, record, position, int(index), int(image))
    makers.submit(slot, len(indices))
    return _Batch(slot, indices, shown)


def _write(files: Files, record: Any, position: int, index: int, image: int) -> None:
    box = None if files.boxes is None else files.boxes[image]
    write_order(record, position, index, files.path(image), box)


def _mend(files: Files, settings: ImageSettings, record: Any, batch: _Batch, corrupt: CorruptImages | None) -> None:
    """Replace what could not be read, here and now: that is rare, and every image is met once at most."""
    for position in np.flatnonzero(record["status"][: len(batch.shown)]):
        while record["status"][position]:
            message = bytes(record["messages"][position]).decode(errors="replace")
            if record["status"][position] == FAILED:
                raise WorkerError(f"{files.path(int(batch.shown[position]))}: a worker process failed:\n{message}")
            assert record["status"][position] == CORRUPT
            if corrupt is None:
                raise DataError(message)
            corrupt.add(int(batch.shown[position]), message)
            batch.shown[position] = corrupt.next_sound(int(batch.shown[position]))
            _write(files, record, position, int(batch.indices[position]), int(batch.shown[position]))
            fill(record, position, settings)


@contextmanager
def _makers(settings: ImageSettings, batch_size: int, workers: int | WorkerPool) -> Iterator[InProcess | WorkerPool]:
    """Whoever makes the batches; ended afterwards, or only emptied if it is the caller's."""
    if isinstance(workers, WorkerPool):
        if (workers.settings, workers.batch_size) != (settings, batch_size):
            raise DataError("the pool of workers was made for other settings or another batch size")
        workers.begin()
        try:
            yield workers
        finally:
            workers.cancel()
        return
    if workers < 0:
        raise DataError(f"{workers} workers: 0 or more are needed")
    made = WorkerPool(settings, batch_size, workers) if workers else InProcess(settings, batch_size)
    try:
        yield made
    finally:
        made.close()
