"""CIFAR-10 from its original python batches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nnmpq.data.cifar_file import read_cifar_file
from nnmpq.data.dataset import Split
from nnmpq.data.errors import DataError

FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE = "test_batch"
IMAGES_A_FILE = 10000


def read_batch(path: Path, count: int = IMAGES_A_FILE) -> Split:
    """Read one batch file, whole or not at all; arguments and errors as of `read_cifar_file`."""
    return read_cifar_file(path, count, labels="labels", classes=10, what="CIFAR-10 batch")


def find_folder(data_dir: str | None) -> Path:
    """Return the folder with the batches: the named one, or `cifar-10-batches-py` in it.

    Raises:
        DataError: it is not there; says what was looked for and where, and how to name another.
    """
    named = data_dir or os.environ.get("NNMPQ_DATA")
    how = "name its folder by data_dir = in the .cfg, --data-dir, or the environment variable NNMPQ_DATA"
    if not named:
        raise DataError(f"CIFAR-10: no data folder is named; {how}")
    candidates = [Path(named), Path(named) / FOLDER]
    for candidate in candidates:
        if (candidate / TEST_FILE).is_file():
            return candidate
    looked = " and ".join(str(candidate / TEST_FILE) for candidate in candidates)
    raise DataError(f"CIFAR-10: looked for the python batches at {looked}; {how}")


def load_cifar10(data_dir: str | None = None) -> tuple[Split, Split, int, float, float]:
    """Return training and test images, the number of classes, offset and scale of the pixels.

    Args:
        data_dir: folder of the original python batches, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: the folder or one of its files is missing or damaged.

    Source:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    folder = find_folder(data_dir)
    parts = [read_batch(folder / name) for name in TRAIN_FILES]
    train = Split(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))
    return train, read_batch(folder / TEST_FILE), 10, 127.5, 127.5
