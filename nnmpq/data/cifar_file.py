"""The pickles that CIFAR comes in, read without running anything that they might ask for."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from nnmpq.data.dataset import Split
from nnmpq.data.errors import DataError

PIXELS = 3 * 32 * 32
# Far above what the largest published file takes, 150 MB for 50,000 images.
LARGEST_FILE = 256 * 2**20
# All that a file needs to be read; a pickle that asks for anything else is refused before it runs.
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
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file does")
        return super().find_class(module, name)


def read_cifar_file(path: Path, count: int, *, labels: str, classes: int, what: str) -> Split:
    """Read one file, whole or not at all.

    Args:
        path: the file.
        count: images that it must hold.
        labels: key of the labels in it.
        classes: number of classes.
        what: the file should be, for messages, such as "CIFAR-10 batch".

    Raises:
        DataError: it is missing, damaged, or something else; names it and says why.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path}: {path.stat().st_size} bytes are no {what}")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        document = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path}: damaged or no {what}: {error}") from error
    if not isinstance(document, dict) or not {b"data", labels.encode()} <= document.keys():
        raise DataError(f"{path}: no {what}: keys 'data' and {labels!r} are needed")
    pixels, found = document[b"data"], document[labels.encode()]
    shape = (count, PIXELS)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape:
        raise DataError(f"{path}: 'data' is no uint8 array of shape {shape}")
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(isinstance(label, int) and 0 <= label < classes for label in found)
    ):
        raise DataError(f"{path}: {labels!r} is no list of {count} classes from 0 to {classes - 1}")
    return Split(pixels.reshape(-1, 3, 32, 32), np.asarray(found, np.int32))
