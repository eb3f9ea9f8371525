"""Batches of images that are in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nnmpq.data.dataset import DataSet, Split
from nnmpq.data.errors import DataError

AUGMENTATIONS = ("crop_flip", "none")
PAD = 4


def normalise(images: np.ndarray, offset: float, scale: float) -> np.ndarray:
    """Return (pixel - offset) / scale as float32.

    Example:
        >>> normalise(np.array([0, 255], np.uint8), 127.5, 127.5).tolist()
        [-1.0, 1.0]
    """
    return (images.astype(np.float32) - np.float32(offset)) * np.float32(1.0 / scale)


def numbers_of(data: DataSet, images: np.ndarray) -> np.ndarray:
    """Return pixels as the data set's numbers, float32.

    Args:
        data: its colour statistics, or else offset and scale.
        images: uint8, shape (B, C, H, W).
    """
    return normalise(images, data.offset, data.scale) if data.colour is None else data.colour.apply(images)


def crop_and_flip(images: np.ndarray, rng: np.random.Generator, fill: int) -> np.ndarray:
    """Shift each image by up to 4 pixels each way, filling with mid-grey, and mirror half of them.

    Args:
        images: uint8, shape (N, C, H, W).
        rng: source of the shifts and mirrorings.
        fill: pixel value of what comes into view.
    """
    count, channels, height, width = images.shape
    padded = np.full((count, channels, height + 2 * PAD, width + 2 * PAD), fill, np.uint8)
    padded[:, :, PAD : PAD + height, PAD : PAD + width] = images
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))  # type: ignore[call-overload]
    top, left = rng.integers(0, 2 * PAD + 1, (2, count))
    cropped = windows[np.arange(count), :, top, left]
    mirrored = rng.random(count) < 0.5
    cropped[mirrored] = cropped[mirrored][..., ::-1]
    return cropped


def training_batches(
    data: DataSet, batch_size: int, *, seed: int, epoch: int, augmentation: str = "none", rank: int = 0, size: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the training batches of one epoch; the last images that fill no batch are left for another epoch.

    Order and augmentation depend on seed and epoch alone, so that a resumed run sees what the killed one would have,
    and the shares of several processes together are what one process sees.

    Args:
        data: the data set, its images in memory.
        batch_size: images a batch.
        seed: the run's seed.
        epoch: number of the epoch, from 0.
        augmentation: one of `AUGMENTATIONS`.
        rank: number of this process, from 0.
        size: processes that share each batch.

    Yields:
        Images float32 (B / size, C, H, W) and labels int32 (B / size, 1).
    """
    if augmentation not in AUGMENTATIONS:
        raise DataError(f"augmentation {augmentation!r}: one of {', '.join(AUGMENTATIONS)} is needed")
    train = in_memory(data.train)
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(train))
    share = slice(rank * (batch_size // size), (rank + 1) * (batch_size // size))
    for first in range(0, len(order) - batch_size + 1, batch_size):
        chosen = order[first : first + batch_size]
        images = train.images[chosen]
        if augmentation == "crop_flip":
            images = crop_and_flip(images, rng, int(round(data.offset)))
        yield numbers_of(data, images[share]), train.labels[chosen[share]].reshape(-1, 1)


def evaluation_batches(
    data: DataSet, split: Split, batch_size: int, *, rank: int = 0, size: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield a split in order; the last batch is filled up with black images of class 0.

    Args:
        data: how pixels become numbers.
        split: images in memory.
        batch_size: images a batch.
        rank: number of this process, from 0.
        size: processes that take turns at the batches.

    Yields:
        Images float32 (B, C, H, W), labels int32 (B, 1), and how many of them count.
    """
    for first in range(rank * batch_size, len(split), size * batch_size):
        images, labels = split.images[first : first + batch_size], split.labels[first : first + batch_size]
        count = len(labels)
        if count < batch_size:
            filler = [(0, batch_size - count)] + [(0, 0)] * 3
            images = np.pad(images, filler)
            labels = np.pad(labels, filler[0])
        yield numbers_of(data, images), labels.reshape(-1, 1), count


def in_memory(part: object) -> Split:
    """Return a part whose images are in memory.

    Raises:
        DataError: they are in files.
    """
    if not isinstance(part, Split):
        raise DataError("these images are in files: nnmpq.data.feed.Feed makes batches of them")
    return part
