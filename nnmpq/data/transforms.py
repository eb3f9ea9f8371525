"""Crops, flips and resizing, as numbers before any pixel is read.

A transform looks at the size of an image alone and returns a `View`. So the reader of a file knows what will be seen
before it decodes, and decodes no more than that needs.
"""

from __future__ import annotations

import math
from typing import Protocol

import attrs
import numpy as np
from PIL import Image

from nnmpq.data.errors import DataError
from nnmpq.data.views import View, as_text, render
from nnmpq.files import nearest

ATTEMPTS = 10


class Transform(Protocol):
    """What chooses the part of an image."""

    def view(self, size: tuple[int, int], output: tuple[int, int], rng: np.random.Generator) -> View:
        """Choose it.

        Args:
            size: height and width of the image.
            output: height and width of what is wanted.
            rng: source of all that is random.
        """


@attrs.frozen
class RandomResizedCrop:
    """A part of random area and shape, resized: the usual training transform of ImageNet.

    Args:
        area: smallest and largest share of the image's area.
        ratio: smallest and largest width over height, drawn evenly on a logarithmic scale.
        mirror: probability of mirroring, 0 to 1.

    Example:
        >>> view = RandomResizedCrop().view((375, 500), (224, 224), np.random.default_rng(0))
        >>> view.place
        (0, 0, 224, 224)

    Source:
        Szegedy et al., "Going Deeper with Convolutions", 2015, section 6.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: float = 0.5

    def view(self, size: tuple[int, int], output: tuple[int, int], rng: np.random.Generator) -> View:
        """Choose a part; where ten draws do not fit, the largest part in the middle whose shape is allowed."""
        height, width = size
        mirrored = bool(rng.random() < self.mirror)
        place = (0, 0, *output)
        for _ in range(ATTEMPTS):
            pixels = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
                return View((left, top, left + w, top + h), place, mirrored)
        low, high = self.ratio
        w = max(1, min(width, round(height * high)))
        h = max(1, min(height, round(width / low)))
        left, top = (width - w) // 2, (height - h) // 2
        return View((left, top, left + w, top + h), place, mirrored)


@attrs.frozen
class PadCrop:
    """Resize, pad on all sides and cut out a random window: the usual training transform of CIFAR.

    Args:
        resize: short side in pixels after resizing, the shape kept; None brings the whole image to the output's size.
        pad: pixels added on each side.
        mirror: probability of mirroring, 0 to 1.

    Example:
        >>> PadCrop(pad=0, mirror=0).view((32, 32), (32, 32), np.random.default_rng(0)).box
        (0.0, 0.0, 32.0, 32.0)
    """

    resize: int | None = None
    pad: int = 4
    mirror: float = 0.5

    def view(self, size: tuple[int, int], output: tuple[int, int], rng: np.random.Generator) -> View:
        """Choose a window.

        Raises:
            DataError: the padded image is smaller than the output, or a window could hold padding alone.
        """
        if not 0 <= self.pad < min(output):
            raise DataError(
                f"pad {self.pad}: from 0 to {min(output) - 1} is needed for an output of {as_text(output)} pixels"
            )
        mirrored = bool(rng.random() < self.mirror)
        resized = output if self.resize is None else _short_side(size, self.resize)
        room = [side + 2 * self.pad - wanted for side, wanted in zip(resized, output)]
        if min(room) < 0:
            raise DataError(
                f"resize {self.resize} and pad {self.pad} give less than the output of {as_text(output)} pixels"
            )
        top, left = (int(rng.integers(0, extent + 1)) - self.pad for extent in room)
        return _window(size, resized, (top, left), output, mirrored)


@attrs.frozen
class CentreCrop:
    """Resize the short side and cut out the middle: the usual evaluation transform.

    Args:
        resize: short side in pixels after resizing; None is the output's short side times 256/224.

    Example:
        >>> CentreCrop(resize=256).view((256, 300), (224, 224), np.random.default_rng(0)).box
        (38.0, 16.0, 262.0, 240.0)

    Source:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 2.
    """

    resize: int | None = None

    def view(self, size: tuple[int, int], output: tuple[int, int], rng: np.random.Generator) -> View:
        """Return the part in the middle.

        Raises:
            DataError: the resized image is smaller than the output.
        """
        del rng  # nothing is random
        side = round(min(output) * 256 / 224) if self.resize is None else self.resize
        resized = _short_side(size, side)
        if self.resize is None:
            # An output that is not square may be longer than the short side alone asks for.
            grow = max(1.0, *(wanted / got for wanted, got in zip(output, resized)))
            resized = (math.ceil(resized[0] * grow), math.ceil(resized[1] * grow))
        top, left = (round((got - wanted) / 2) for got, wanted in zip(resized, output))
        if min(top, left) < 0:
            raise DataError(f"resize {side} gives less than the output of {as_text(output)} pixels")
        return _window(size, resized, (top, left), output, False)


@attrs.frozen
class Stretch:
    """The whole image brought to the output's size, its shape not kept.

    Args:
        mirror: probability of mirroring, 0 to 1.
    """

    mirror: float = 0.0

    def view(self, size: tuple[int, int], output: tuple[int, int], rng: np.random.Generator) -> View:
        """Return all of the image."""
        return View((0, 0, size[1], size[0]), (0, 0, *output), bool(rng.random() < self.mirror))


TRANSFORMS: dict[str, type[Transform]] = {
    "centre_crop": CentreCrop,
    "pad_crop": PadCrop,
    "random_resized_crop": RandomResizedCrop,
    "stretch": Stretch,
}


def transform(name: str) -> Transform:
    """Return a transform with its default settings.

    Raises:
        DataError: the name is unknown.

    Example:
        >>> transform("centre_crop")
        CentreCrop(resize=None)
    """
    if name not in TRANSFORMS:
        raise DataError(f"no transform {name!r}; the nearest is {nearest(name, TRANSFORMS)!r}")
    return TRANSFORMS[name]()


def apply(
    image: np.ndarray, chosen: Transform, output: tuple[int, int], rng: np.random.Generator, *, fill: int = 128
) -> np.ndarray:
    """Transform an image that is in memory.

    Args:
        image: uint8, shape (H, W, C), C 1 or 3.
        chosen: the transform.
        output: height and width of the result.
        rng: source of all that is random.
        fill: 0 to 255, the padding.

    Example:
        >>> apply(np.zeros((6, 8, 3), np.uint8), CentreCrop(4), (4, 4), np.random.default_rng(0)).shape
        (4, 4, 3)
    """
    view = chosen.view((image.shape[0], image.shape[1]), output, rng)
    grey = image.shape[2] == 1
    return render(Image.fromarray(image[:, :, 0] if grey else image), view, output, fill=fill)


def _short_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width after the short one became `side`; the long one is rounded down, as published loaders do."""
    short = min(size)
    height, width = (side if extent == short else int(side * extent / short) for extent in size)
    return height, width


def _window(
    size: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int], output: tuple[int, int], mirrored: bool
) -> View:
    """View of a window of the resized image; the corner may lie outside, where padding is."""
    first = [max(0, start) for start in corner]
    last = [min(extent, start + wanted) for extent, start, wanted in zip(resized, corner, output)]
    down, across = size[0] / resized[0], size[1] / resized[1]
    box = (first[1] * across, first[0] * down, last[1] * across, last[0] * down)
    place = (first[0] - corner[0], first[1] - corner[1], last[0] - first[0], last[1] - first[1])
    return View(box, place, mirrored)
