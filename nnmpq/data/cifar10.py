"""CIFAR-10 from its original python batches."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from nnmpq.data.dataset import Split
from nnmpq.data.errors import DataError

FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE = "test_batch"
IMAGES_A_FILE = 10000
PIXELS = 3 * 32 * 32
LARGEST_FILE = 64 * 2**20
# All that a batch needs to be read; a pickle that asks for anything else is refused before it runs.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 batch does")
        return super().find_class(module, name)


def read_batch(path: Path, count: int = IMAGES_A_FILE) -> Split:
    """Read one batch file, whole or not at all.

    Args:
        path: the file.
        count: images that it must hold.

    Raises:
        DataError: it is missing, damaged, or no CIFAR-10 batch; names it and says why.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path}: {path.stat().st_size} bytes are no CIFAR-10 batch")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        document = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path}: damaged or no CIFAR-10 batch: {error}") from error
    if not isinstance(document, dict) or not {b"data", b"labels"} <= document.keys():
        raise DataError(f"{path}: no CIFAR-10 batch: keys 'data' and 'labels' are needed")
    pixels, labels = document[b"data"], document[b"labels"]
    shape = (count, PIXELS)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape:
        raise DataError(f"{path}: 'data' is no uint8 array of shape {shape}")
    if (
        not isinstance(labels, list)
        or len(labels) != count
        or not all(isinstance(label, int) and 0 <= label <= 9 for label in labels)
    ):
        raise DataError(f"{path}: 'labels' is no list of {count} classes from 0 to 9")
    return Split(pixels.reshape(-1, 3, 32, 32), np.asarray(labels, np.int32))


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
