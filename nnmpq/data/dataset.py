"""What a data set is: images in three parts, in memory or in files."""

from __future__ import annotations

from typing import Callable, Protocol, TypeVar, Union

import attrs
import numpy as np

from nnmpq.data.colour import ColourStatistics
from nnmpq.data.errors import DataError
from nnmpq.data.image_files import ImageFiles
from nnmpq.data.image_settings import ImageSettings

AnyPart = TypeVar("AnyPart", bound="Divisible")


class Divisible(Protocol):
    """What can be divided: images in memory and images in files alike."""

    @property
    def labels(self) -> np.ndarray:
        """Classes, int32, shape (N,)."""

    def __len__(self) -> int: ...

    def take(self: AnyPart, indices: np.ndarray) -> AnyPart:
        """Return the images at these indices."""


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

    def take(self, indices: np.ndarray) -> Split:
        """Return the images at these indices."""
        return Split(self.images[indices], self.labels[indices])


Part = Union[Split, ImageFiles]
Loader = Callable[..., "tuple[Part, Part, int, float, float]"]


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
        colour: statistics that are used instead of offset and scale; for images in memory.
        settings: what is done to images that are in files; None for those in memory.
    """

    name: str
    classes: int
    train: Part
    validation: Part
    test: Part
    offset: float
    scale: float
    colour: ColourStatistics | None = None
    settings: ImageSettings | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the network's input without the batch, (C, H, W)."""
        if self.settings is not None:
            return (self.settings.channels, *self.settings.size)
        assert isinstance(self.train, Split)
        return tuple(self.train.images.shape[1:])


def hold_out(split: AnyPart, count: int, seed: int) -> tuple[AnyPart, AnyPart]:
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
    return split.take(kept), split.take(held)


def limit(split: AnyPart, count: int | None, seed: int) -> AnyPart:
    """Return `count` images of a split with the classes in the same shares; all if None or more than there are."""
    if count is None or count >= len(split):
        return split
    return hold_out(split, count, seed)[1]
