"""Where batches are made: a few slots of memory, each with a batch's orders and its pixels, that processes share.

A slot is a numpy record, so that its place in shared memory is the same for whoever maps it. All that decides an image
stands in the slot: its file, its number, seed and epoch. So it does not matter which process makes it, and when.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnmpq.data.decode import read_view
from nnmpq.data.errors import DataError
from nnmpq.data.image_settings import ImageSettings
from nnmpq.data.views import View, within

LONGEST_PATH = 4096
LONGEST_MESSAGE = 1024
READY, CORRUPT, FAILED = 0, 1, 2


def slot_type(batch_size: int, settings: ImageSettings) -> np.dtype[Any]:
    """Return the record of one batch.

    Args:
        batch_size: images in it.
        settings: their shape.
    """
    return np.dtype(
        [
            ("images", "u1", (batch_size, settings.channels, *settings.size)),
            ("paths", f"S{LONGEST_PATH}", (batch_size,)),
            ("messages", f"S{LONGEST_MESSAGE}", (batch_size,)),
            ("boxes", "f8", (batch_size, 4)),
            ("indices", "i8", (batch_size,)),
            ("status", "u1", (batch_size,)),
            ("seed", "i8"),
            ("epoch", "i8"),
            ("training", "u1"),
        ],
        align=True,
    )


def image_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator that augments image `index` in an epoch, whichever process does it.

    The epoch's order has (seed, epoch) itself; numpy gives (seed, epoch, 0) the same numbers, so images start at 1.
    """
    return np.random.default_rng((seed, epoch, 1 + index))


def write_order(
    slot: Any, position: int, index: int, path: str | Path, box: Sequence[float] | np.ndarray | None
) -> None:
    """Write which image belongs at a position.

    Args:
        slot: a record of `slot_type`.
        position: place in the batch.
        index: the number that its generator is made from.
        path: its file.
        box: its bounding box, left, top, right, bottom in pixels; None if it has none.

    Raises:
        DataError: the path is too long for a slot.
    """
    name = os.fsencode(path)
    if len(name) > LONGEST_PATH:
        raise DataError(f"{os.fspath(path)}: longer than {LONGEST_PATH} bytes")
    slot["paths"][position] = name
    slot["indices"][position] = index
    slot["boxes"][position] = np.nan if box is None else box


def fill(slot: Any, position: int, settings: ImageSettings) -> None:
    """Make one image of a batch as its order says.

    Args:
        slot: a record of `slot_type`; pixels and status of the position are written.
        position: place in the batch.
        settings: what is done to images.
    """
    training = bool(slot["training"])
    chosen = settings.training if training else settings.evaluation
    rng = image_generator(int(slot["seed"]), int(slot["epoch"]), int(slot["indices"][position]))
    box = slot["boxes"][position]

    def choose(size: tuple[int, int]) -> View:
        if not settings.crop_to_box or np.isnan(box).all():
            return chosen.view(size, settings.size, rng)
        left, top, right, bottom = within(tuple(box.tolist()), size)
        return chosen.view((bottom - top, right - left), settings.size, rng).moved(left, top)

    try:
        pixels = read_view(
            os.fsdecode(slot["paths"][position]),
            choose,
            settings.size,
            channels=settings.channels,
            fill=settings.fill,
            resample=settings.resample,
            margin=settings.margin if training else None,
        )
    except DataError as error:
        slot["messages"][position] = str(error).encode()[:LONGEST_MESSAGE]
        slot["status"][position] = CORRUPT
        return
    slot["images"][position] = pixels.transpose(2, 0, 1)
    slot["status"][position] = READY
