"""MNIST and those that took over its layout, from idx files, compressed or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from nnmpq.data.dataset import Split
from nnmpq.data.errors import DataError
from nnmpq.data.image_folder import find_folder

UINT8 = 8
LARGEST_ARRAY = 2**28
IMAGES = {"train": 60_000, "t10k": 10_000}
CLASSES = 10
MNIST, FASHION = "MNIST", "Fashion-MNIST"
# Both sets use the same file names; the first ten training classes tell them apart.
FIRST_LABELS = {MNIST: [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], FASHION: [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]}


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes: two zeros, the type, the number of axes, their lengths (big-endian), the values.

    Args:
        path: the file; gzip where it ends in .gz.

    Returns:
        uint8 array.

    Raises:
        DataError: it is missing, cut off, too long or no idx file of bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            magic = stream.read(4)
            if len(magic) < 4 or magic[:3] != bytes([0, 0, UINT8]) or not magic[3]:
                raise DataError(f"{path}: no idx file of bytes: it begins with {magic.hex(' ') or 'nothing'}")
            lengths = stream.read(4 * magic[3])
            if len(lengths) < 4 * magic[3]:
                raise DataError(f"{path}: cut off in its head")
            shape = tuple(np.frombuffer(lengths, ">u4").tolist())
            size = math.prod(shape)
            if size > LARGEST_ARRAY:
                raise DataError(f"{path}: shape {shape} is larger than any data set of this kind")
            # One byte more than there must be: what a small compressed file unpacks to is never read whole.
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) != size:
        how = "cut off" if len(content) < size else "too long"
        raise DataError(f"{path}: {how}: shape {shape} needs {size} bytes of values")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _names(part: str, what: str, axes: int) -> tuple[str, ...]:
    name = f"{part}-{what}-idx{axes}-ubyte"
    return name, f"{name}.gz", f"{part}-{what}.idx{axes}-ubyte"


def _read(folder: Path, names: tuple[str, ...]) -> tuple[Path, np.ndarray]:
    path = next(folder / name for name in names if (folder / name).exists())
    return path, read_idx(path)


def read_part(folder: Path, part: str, count: int) -> Split:
    """Read the images of one part and their classes.

    Args:
        folder: folder of the four files.
        part: "train" or "t10k".
        count: images that it must hold.

    Raises:
        DataError: one of the files is damaged or holds something else.
    """
    images_path, images = _read(folder, _names(part, "images", 3))
    labels_path, labels = _read(folder, _names(part, "labels", 1))
    if images.shape != (count, 28, 28):
        raise DataError(f"{images_path}: shape {images.shape} instead of {(count, 28, 28)}")
    if labels.shape != (count,):
        raise DataError(f"{labels_path}: shape {labels.shape} instead of {(count,)}")
    if labels.max() >= CLASSES:
        raise DataError(f"{labels_path}: class {labels.max()} is not from 0 to {CLASSES - 1}")
    return Split(images.reshape(count, 1, 28, 28), labels.astype(np.int32))


def _load(title: str, data_dir: str | None, folders: tuple[str, ...]) -> tuple[Split, Split, int, float, float]:
    needed = [_names(part, what, axes) for part in IMAGES for what, axes in (("images", 3), ("labels", 1))]
    folder = find_folder(title, data_dir, folders, needed)
    train, test = (read_part(folder, part, count) for part, count in IMAGES.items())
    for other, first in FIRST_LABELS.items():
        if other != title and train.labels[: len(first)].tolist() == first:
            raise DataError(f"{title}: {folder} holds {other}, whose files have the same names")
    return train, test, CLASSES, 127.5, 127.5


def load_mnist(data_dir: str | None = None) -> tuple[Split, Split, int, float, float]:
    """Return 60,000 training and 10,000 test digits of 1x28x28, the number of classes, offset and scale of the pixels.

    Args:
        data_dir: folder of the four idx files, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: the folder or one of its files is missing, damaged or of another data set.

    Source:
        LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    return _load(MNIST, data_dir, ("mnist", "MNIST", "MNIST/raw"))


def load_fashion_mnist(data_dir: str | None = None) -> tuple[Split, Split, int, float, float]:
    """Return 60,000 training and 10,000 test images of 1x28x28, the number of classes, offset and scale of the pixels.

    Args:
        data_dir: folder of the four idx files, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: the folder or one of its files is missing, damaged or of another data set.

    Source:
        Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
        Machine Learning Algorithms", 2017.
    """
    return _load(FASHION, data_dir, ("fashion-mnist", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"))
