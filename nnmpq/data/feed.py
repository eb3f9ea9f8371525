"""The batches of a run, made ahead of the step that takes them, from memory or from files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from nnmpq.data.ahead import ahead
from nnmpq.data.batches import evaluation_batches, in_memory, training_batches
from nnmpq.data.corrupt import CorruptImages
from nnmpq.data.dataset import DataSet, Part
from nnmpq.data.errors import DataError
from nnmpq.data.image_files import ImageFiles
from nnmpq.data.pipeline import file_evaluation_batches, file_training_batches
from nnmpq.data.worker_pool import WorkerPool

logger = logging.getLogger("nnmpq")
Item = TypeVar("Item")


class Feed:
    """Hands one process of a run its batches; the order and every pixel depend on seed and epoch alone.

    Images in files are decoded by worker processes, which start with the first batch and live as long as the feed.

    Args:
        data: the data set.
        batch_size: images of a batch, all processes together; a multiple of their number.
        seed: the run's seed.
        augmentation: of images in memory, one of `nnmpq.data.batches.AUGMENTATIONS`; that of files is in the settings.
        workers: processes that decode, 0 for none; images in memory need none.
        rank: number of this process among those that train together, from 0.
        size: how many those are.

    Example:
        >>> from nnmpq.data import load
        >>> with Feed(load("digits"), 100, seed=0) as feed:
        ...     sum(len(labels) for _, labels in feed.training(epoch=0))
        1400
    """

    def __init__(
        self,
        data: DataSet,
        batch_size: int,
        *,
        seed: int,
        augmentation: str = "none",
        workers: int = 0,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % size:
            raise DataError(f"batch size {batch_size}: {size} processes cannot share it evenly")
        self.data = data
        self.batch_size = batch_size
        self._seed, self._augmentation, self._workers = seed, augmentation, workers
        self._rank, self._size = rank, size
        self._pool: WorkerPool | None = None
        self._corrupt: CorruptImages | None = None
        self._begun: list[Iterator[Any]] = []

    def training(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield this process' share of every training batch of an epoch.

        Args:
            epoch: number of the epoch, from 0.

        Yields:
            Images float32 (B / size, C, H, W) and labels int32 (B / size, 1).

        Raises:
            DataError: an image cannot be read, or more than may be.
        """
        data, train = self.data, self.data.train
        options = {"seed": self._seed, "epoch": epoch, "rank": self._rank, "size": self._size}
        if data.settings is None or not isinstance(train, ImageFiles):
            made = training_batches(data, self.batch_size, augmentation=self._augmentation, **options)
            return self._named(ahead(made))
        if self._corrupt is None:
            self._corrupt = CorruptImages(len(train), data.settings.corrupt_share)
        batches = file_training_batches(
            train, data.settings, self.batch_size, workers=self._makers(), corrupt=self._corrupt, **options
        )
        return self._named(ahead(batches))

    def evaluation(self, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Yield the batches of a part, each of one process' size, that it is this process' turn to evaluate.

        Args:
            part: any images of this kind, of this data set or not.

        Yields:
            Images float32 (B / size, C, H, W), labels int32 (B / size, 1), and how many of them count.

        Raises:
            DataError: an image cannot be read.
        """
        share = self.batch_size // self._size
        turn = {"rank": self._rank, "size": self._size}
        if self.data.settings is None or not isinstance(part, ImageFiles):
            return self._named(ahead(evaluation_batches(self.data, in_memory(part), share, **turn)))
        makers = self._makers()
        return self._named(ahead(file_evaluation_batches(part, self.data.settings, share, workers=makers, **turn)))

    def close(self) -> None:
        """End the iterators that were left early, and the worker processes."""
        while self._begun:
            self._begun.pop().close()  # type: ignore[attr-defined]
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _makers(self) -> int | WorkerPool:
        if self._workers < 1 or self.data.settings is None:
            return 0
        if self._pool is None:
            self._pool = WorkerPool(self.data.settings, self.batch_size // self._size, self._workers)
        return self._pool

    def _named(self, batches: Iterator[Item]) -> Iterator[Item]:
        """Let an error of a process that is not the first, whose errors nobody prints, be seen."""
        # Left early, the iterator is closed with this one or with the feed: its workers serve the next one.
        self._begun.append(batches)
        try:
            yield from batches
        except DataError as error:
            if self._rank > 0:
                logger.error("error: process %d: %s", self._rank, error)
            raise
        finally:
            self._begun = [other for other in self._begun if other is not batches]
