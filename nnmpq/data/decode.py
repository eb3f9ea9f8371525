"""Read one image file to RGB or grey pixels, whatever its kind, or say by name what is wrong with it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from nnmpq.data.errors import DataError
from nnmpq.data.views import View, render

# What data sets are made of. Others stay closed: some of Pillow's readers start programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
ORIENTATION = 0x0112  # the Exif tag
# Exif orientation -> what undoes it.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MODES = {1: "L", 3: "RGB"}
Choose = Callable[["tuple[int, int]"], View]


def read_image(path: str | Path, channels: int = 3) -> np.ndarray:
    """Read a whole image, upright.

    Args:
        path: the file.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8, shape (H, W, channels).

    Raises:
        DataError: the file is missing, no image, or damaged; names it and says why.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("CMYK", (5, 4)).save(f"{folder}/a.jpg")
        ...     read_image(f"{folder}/a.jpg").shape
        (4, 5, 3)
    """
    with _opened(path) as (image, turn):
        size = _size(image, turn)
        return np.asarray(_upright(path, image, turn, channels)).reshape(*size, channels)


def read_view(
    path: str | Path,
    choose: Choose,
    output: tuple[int, int],
    *,
    channels: int = 3,
    fill: int = 128,
    resample: str = "bilinear",
    margin: float | None = None,
) -> np.ndarray:
    """Read the part of an image that is wanted, resized.

    A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size in a fraction of the time. That is done as long as what is
    decoded stays `margin` times larger than the output.

    Args:
        path: the file.
        choose: told height and width of the upright image, returns the part.
        output: height and width of the result.
        channels: 3 for RGB, 1 for grey.
        fill: 0 to 255, the padding.
        resample: a key of `nnmpq.data.views.RESAMPLING`.
        margin: at least 1; None always decodes all pixels.

    Returns:
        uint8, shape (H, W, channels).

    Raises:
        DataError: as `read_image`.
    """
    with _opened(path) as (image, turn):
        size = _size(image, turn)
        try:
            view = choose(size)
        except DataError as error:
            raise DataError(f"{os.fspath(path)}: {error}") from error
        factor = 1 if margin is None or image.format not in ("JPEG", "MPO") else _shrinking(view, margin)
        if factor > 1 and min(size) >= factor:
            image.draft(MODES[channels], (image.width // factor, image.height // factor))
        else:
            factor = 1
        upright = _upright(path, image, turn, channels)
        return render(upright, view, output, shrunk=factor, fill=fill, resample=resample)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Image.Image, int]]:
    """Open an image, its pixels not yet read, and close it at the end."""
    # Pillow warns of odd metadata and of large images: neither hinders reading.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _named(path):
            image: Image.Image = Image.open(path, formats=FORMATS)
            if image.format == "TIFF":
                image.load()  # newer Pillow turns it then, and takes the tag away
        with image:
            yield image, _orientation(image)


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Make whatever Pillow raises an error that names the file."""
    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{os.fspath(path)}: no image, or none of {', '.join(FORMATS)}") from error
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise DataError(f"{os.fspath(path)}: damaged: {type(error).__name__}: {error}") from error


def _orientation(image: Image.Image) -> int:
    if image.format != "TIFF" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata around sound pixels
        return 1


def _size(image: Image.Image, turn: int) -> tuple[int, int]:
    """Height and width of the upright image."""
    return (image.width, image.height) if turn in (5, 6, 7, 8) else (image.height, image.width)


def _shrinking(view: View, margin: float) -> int:
    """By how much decoding may shrink: 1, 2, 4 or 8."""
    left, top, right, bottom = view.box
    _, _, height, width = view.place
    room = min((right - left) / width, (bottom - top) / height) / margin
    return max(factor for factor in (1, 2, 4, 8) if factor <= max(room, 1))


def _upright(path: str | Path, image: Image.Image, turn: int, channels: int) -> Image.Image:
    """Decode, convert and turn."""
    with _named(path):
        converted = _converted(image, MODES[channels])
    return converted.transpose(UPRIGHT[turn]) if turn in UPRIGHT else converted


def _converted(image: Image.Image, mode: str) -> Image.Image:
    image.load()
    if image.mode.startswith("I"):
        # 16 bits a pixel; Pillow would clip them.
        high = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        image = Image.fromarray(high.astype(np.uint8))
    elif image.mode in ("P", "PA") and mode == "L":
        image = image.convert("RGB")  # or the numbers of the palette's entries would be the greys
    return image if image.mode == mode else image.convert(mode)
