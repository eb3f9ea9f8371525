"""CIFAR-100 from its original python files."""

from __future__ import annotations

from pathlib import Path

from nnmpq.data.cifar_file import read_cifar_file
from nnmpq.data.dataset import Split
from nnmpq.data.image_folder import find_folder

FOLDER = "cifar-100-python"
IMAGES = {"train": 50_000, "test": 10_000}
CLASSES = 100


def read_part(path: Path, count: int) -> Split:
    """Read one file with its 100 fine classes, whole or not at all; arguments and errors as of `read_cifar_file`."""
    return read_cifar_file(path, count, labels="fine_labels", classes=CLASSES, what="CIFAR-100 file")


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
