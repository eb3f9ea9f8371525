"""What a data set is, and how its batches are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import attrs
import numpy as np

AUGMENTATIONS = ("crop_flip", "none")
PAD = 4


class DataError(ValueError):
    """Data that are missing, damaged or in another layout."""


@attrs.frozen(eq=False)
class Split:
    """Images and their classes.

    Args:
        images: uint8, shape (N, C, H, W).
        labels: int32, shape (N,).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@attrs.frozen(eq=False)
class DataSet:
    """A data set in three parts: training learns, validation picks, test is read once, at the end.

    Args:
        name: its name.
        classes: number of classes.
        train: the training part.
        validation: held out from the publisher's training part.
        test: the publisher's test part.
        offset: subtracted from a pixel, then
        scale: divides it: (pixel - offset) / scale.
    """

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    offset: float
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image, (C, H, W)."""
        return tuple(self.train.images.shape[1:])


def normalise(images: np.ndarray, offset: float, scale: float) -> np.ndarray:
    """Return (pixel - offset) / scale as float32.

    Example:
        >>> normalise(np.array([0, 255], np.uint8), 127.5, 127.5).tolist()
        [-1.0, 1.0]
    """
    return (images.astype(np.float32) - np.float32(offset)) * np.float32(1.0 / scale)


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
    data: DataSet, batch_size: int, *, seed: int, epoch: int, augmentation: str = "none"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the training batches of one epoch; the last images that fill no batch are left for another epoch.

    Order and augmentation depend on seed and epoch alone, so that a resumed run sees what the killed one would have.

    Args:
        data: the data set.
        batch_size: images a batch.
        seed: the run's seed.
        epoch: number of the epoch, from 0.
        augmentation: one of `AUGMENTATIONS`.

    Yields:
        Images float32 (B, C, H, W) and labels int32 (B, 1).
    """
    if augmentation not in AUGMENTATIONS:
        raise DataError(f"augmentation {augmentation!r}: one of {', '.join(AUGMENTATIONS)} is needed")
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(data.train))
    for first in range(0, len(order) - batch_size + 1, batch_size):
        chosen = order[first : first + batch_size]
        images = data.train.images[chosen]
        if augmentation == "crop_flip":
            images = crop_and_flip(images, rng, int(round(data.offset)))
        yield normalise(images, data.offset, data.scale), data.train.labels[chosen].reshape(-1, 1)


def evaluation_batches(data: DataSet, split: Split, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield a split in order; the last batch is filled up with its first image.

    Yields:
        Images float32 (B, C, H, W), labels int32 (B, 1), and how many of them count.
    """
    for first in range(0, len(split), batch_size):
        images, labels = split.images[first : first + batch_size], split.labels[first : first + batch_size]
        count = len(labels)
        if count < batch_size:
            filler = [(0, batch_size - count)] + [(0, 0)] * 3
            images = np.pad(images, filler)
            labels = np.pad(labels, filler[0])
        yield normalise(images, data.offset, data.scale), labels.reshape(-1, 1), count


def hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Divide a split in two, the second with `count` images and the classes in the same shares.

    Args:
        split: what to divide.
        count: images to hold out, 0 <= count < len(split).
        seed: which images.
    """
    if not 0 <= count < len(split):
        raise DataError(f"{count} images cannot be held out of {len(split)}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split))
    # Ranks within a class, spread evenly: the first ones of every class are held out.
    ranks = np.empty(len(split))
    for label in np.unique(split.labels):
        members = order[split.labels[order] == label]
        ranks[members] = (np.arange(len(members)) + rng.random()) / len(members)
    held = np.sort(np.argsort(ranks, kind="stable")[:count])
    kept = np.setdiff1d(np.arange(len(split)), held)
    return take(split, kept), take(split, held)


def take(split: Split, indices: np.ndarray) -> Split:
    """Return the named images of a split."""
    return Split(split.images[indices], split.labels[indices])


def limit(split: Split, count: int | None, seed: int) -> Split:
    """Return `count` images of a split with the classes in the same shares; all if None or more than there are."""
    if count is None or count >= len(split):
        return split
    return hold_out(split, count, seed)[1]


Loader = Callable[..., "tuple[Split, Split, int, float, float]"]
