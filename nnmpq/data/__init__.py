"""Data sets: each in training, validation and test parts, from the layout that its publisher uses."""

from __future__ import annotations

from nnmpq.data.cifar10 import load_cifar10
from nnmpq.data.dataset import (
    AUGMENTATIONS,
    DataError,
    DataSet,
    Loader,
    Split,
    evaluation_batches,
    hold_out,
    limit,
    training_batches,
)
from nnmpq.data.digits import load_digits
from nnmpq.files import nearest

DATASETS: dict[str, Loader] = {
    "cifar10": load_cifar10,
    "digits": load_digits,
}


def load(
    name: str,
    *,
    data_dir: str | None = None,
    validation_images: int = 0,
    train_images: int | None = None,
    test_images: int | None = None,
    seed: int = 0,
) -> DataSet:
    """Load a data set in three parts.

    Args:
        name: a key of `DATASETS`.
        data_dir: folder that it is in, for those that do not come with the package.
        validation_images: images held out from the training part, the classes in the same shares.
        train_images: use so many of what is left; all if None.
        test_images: use so many of the test part; all if None.
        seed: which images are held out and used.

    Raises:
        DataError: the data set is unknown, missing or damaged.

    Example:
        >>> data = load("digits", validation_images=200)
        >>> len(data.train), len(data.validation), len(data.test), data.shape
        (1237, 200, 360, (1, 8, 8))
    """
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; the nearest is {nearest(name, DATASETS)!r}")
    everything, test, classes, offset, scale = DATASETS[name](data_dir)
    train, validation = hold_out(everything, validation_images, seed)
    return DataSet(
        name,
        classes,
        limit(train, train_images, seed),
        validation,
        limit(test, test_images, seed),
        offset,
        scale,
    )


__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "DataError",
    "DataSet",
    "Split",
    "evaluation_batches",
    "load",
    "training_batches",
]
