"""A part of an image and how it becomes the pixels of a network's input."""

from __future__ import annotations

import math

import attrs
import numpy as np
from PIL import Image

from nnmpq.data.errors import DataError

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


@attrs.frozen
class View:
    """A part of an image and the rectangle of the output that it fills; the rest of the output is padding.

    Args:
        box: left, top, right, bottom in the image's pixels, inside the image.
        place: top, left, height, width in the output's pixels.
        mirrored: whether left and right of the output are exchanged at the end.
    """

    box: tuple[float, float, float, float]
    place: tuple[int, int, int, int]
    mirrored: bool = False

    def moved(self, left: float, top: float) -> View:
        """Return the same view of an image whose corner lies at (left, top)."""
        x0, y0, x1, y1 = self.box
        return attrs.evolve(self, box=(x0 + left, y0 + top, x1 + left, y1 + top))


def within(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a bounding box in whole pixels, cut to the image.

    Args:
        box: left, top, right, bottom; right and bottom are outside.
        size: height and width of the image.

    Raises:
        DataError: nothing of the box lies in the image.

    Example:
        >>> within((-3, 5.2, 20, 99), (40, 30))
        (0, 5, 20, 40)
    """
    if not all(math.isfinite(side) for side in box):
        raise DataError(f"bounding box {box} is no box")
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(size[1], math.ceil(box[2])), min(size[0], math.ceil(box[3]))
    if left >= right or top >= bottom:
        raise DataError(f"bounding box {box} holds nothing of an image of {as_text(size)} pixels")
    return left, top, right, bottom


def render(
    image: Image.Image,
    view: View,
    output: tuple[int, int],
    *,
    shrunk: int = 1,
    fill: int = 128,
    resample: str = "bilinear",
) -> np.ndarray:
    """Make the pixels of a view.

    Args:
        image: mode "L" or "RGB".
        view: which part, in pixels of the image as it is on disk.
        output: height and width.
        shrunk: by how much the image was made smaller when it was decoded.
        fill: 0 to 255, the padding.
        resample: a key of `RESAMPLING`; minification is antialiased.

    Returns:
        uint8, shape (H, W, C).
    """
    top, left, height, width = view.place
    x0, y0, x1, y1 = (side / shrunk for side in view.box)
    box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(image.width)), min(y1, float(image.height)))
    whole = (int(box[0]), int(box[1]), int(box[2]), int(box[3]))
    if whole == box and (whole[2] - whole[0], whole[3] - whole[1]) == (width, height):
        part = image.crop(whole)  # no pixel changes: no resampling
    else:
        part = image.resize((width, height), RESAMPLING[resample], box)
    pixels = np.asarray(part).reshape(height, width, -1)
    if (height, width) != output:
        canvas = np.full((*output, pixels.shape[2]), fill, np.uint8)
        canvas[top : top + height, left : left + width] = pixels
        pixels = canvas
    return pixels[:, ::-1] if view.mirrored else pixels


def as_text(size: tuple[int, int]) -> str:
    """Return height and width as they stand in messages."""
    return f"{size[0]}x{size[1]}"
