"""CIFAR-100 from its original python files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from nnmpq.data.cifar10 import ALLOWED, PIXELS
from nnmpq.data.dataset import Split
from nnmpq.data.errors import DataError
from nnmpq.data.image_folder import find_folder

FOLDER = "cifar-100-python"
IMAGES = {"train": 50_000, "test": 10_000}
CLASSES = 100
LARGEST_FILE = 256 * 2**20


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-100 file does")
        return super().find_class(module, name)


def read_part(path: Path, count: int) -> Split:
    """Read one file with its 100 fine classes, whole or not at all.

    Args:
        path: the file.
        count: images that it must hold.

    Raises:
        DataError: it is missing, damaged, or no CIFAR-100 file; names it and says why.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path}: {path.stat().st_size} bytes are no CIFAR-100 file")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        document = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path}: damaged or no CIFAR-100 file: {error}") from error
    if not isinstance(document, dict) or not {b"data", b"fine_labels"} <= document.keys():
        raise DataError(f"{path}: no CIFAR-100 file: keys 'data' and 'fine_labels' are needed")
    pixels, labels = document[b"data"], document[b"fine_labels"]
    shape = (count, PIXELS)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape:
        raise DataError(f"{path}: 'data' is no uint8 array of shape {shape}")
    if (
        not isinstance(labels, list)
        or len(labels) != count
        or not all(isinstance(label, int) and 0 <= label < CLASSES for label in labels)
    ):
        raise DataError(f"{path}: 'fine_labels' is no list of {count} classes from 0 to {CLASSES - 1}")
    return Split(pixels.reshape(-1, 3, 32, 32), np.asarray(labels, np.int32))


def load_cifar100(data_dir: str | None = None) -> tuple[Split, Split, int, float, float]:
    """Return 50,000 training and 10,000 test images, the number of classes, offset and scale of the pixels.

    Args:
        data_dir: folder of the original python files, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: the folder or one of its files is missing or damaged.

    Source:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    # All three, because other sets have a folder "train" and one "test" too.
    folder = find_folder("CIFAR-100", data_dir, (FOLDER,), (("train",), ("test",), ("meta",)))
    train, test = (read_part(folder / name, count) for name, count in IMAGES.items())
    return train, test, CLASSES, 127.5, 127.5
