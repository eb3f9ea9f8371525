"""Colour statistics of data sets, and how pixels become numbers in one pass over a batch."""

from __future__ import annotations

import attrs
import numpy as np

from nnmpq.data.errors import DataError
from nnmpq.files import nearest


@attrs.frozen
class ColourStatistics:
    """Mean and standard deviation of each channel, of pixels from 0 to 1: number = (pixel / 255 - mean) / deviation.

    Args:
        mean: one number a channel.
        deviation: one number a channel, above 0.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...] = attrs.field()

    @deviation.validator
    def _matches(self, attribute: attrs.Attribute, value: tuple[float, ...]) -> None:
        if len(value) != len(self.mean) or not all(0 < number < float("inf") for number in value):
            raise DataError(f"deviation {value}: one positive number for each of {len(self.mean)} channels is needed")

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Return a batch as numbers.

        Args:
            images: uint8, shape (B, C, H, W).

        Returns:
            float32, same shape.

        Example:
            >>> COLOURS["half"].apply(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)).ravel().tolist()
            [-1.0, 1.0]
        """
        channels = images.shape[1]
        mean, deviation = (np.asarray(numbers, np.float64) for numbers in (self.mean, self.deviation))
        scale = np.broadcast_to(1 / (255 * deviation), channels).astype(np.float32).reshape(-1, 1, 1)
        shift = np.broadcast_to(-mean / deviation, channels).astype(np.float32).reshape(-1, 1, 1)
        numbers = np.empty(images.shape, np.float32)
        # Image by image, so that the second operation finds the numbers of the first in the cache.
        for image, out in zip(images, numbers):
            np.multiply(image, scale, out=out)
            out += shift
        return numbers


# The published numbers of each set; "half" maps 0..255 to -1..1.
COLOURS: dict[str, ColourStatistics] = {
    "cars": ColourStatistics((0.4706, 0.4600, 0.4548), (0.2667, 0.2658, 0.2706)),
    "cifar10": ColourStatistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "half": ColourStatistics((0.5,), (0.5,)),
    "imagenet": ColourStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def colours(name: str) -> ColourStatistics:
    """Return the statistics of a set.

    Raises:
        DataError: the name is unknown.
    """
    if name not in COLOURS:
        raise DataError(f"no colour statistics {name!r}; the nearest is {nearest(name, COLOURS)!r}")
    return COLOURS[name]
