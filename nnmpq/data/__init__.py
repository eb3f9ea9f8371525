"""Data sets: each in training, validation and test parts, from the layout that its publisher uses."""

from __future__ import annotations

from nnmpq.data.aircraft import load_fgvc_aircraft
from nnmpq.data.batches import evaluation_batches, training_batches
from nnmpq.data.cars import load_stanford_cars
from nnmpq.data.cifar10 import load_cifar10
from nnmpq.data.cifar100 import load_cifar100
from nnmpq.data.colour import colours
from nnmpq.data.dataset import DataSet, Loader, Part, Split, hold_out, limit
from nnmpq.data.digits import load_digits
from nnmpq.data.errors import DataError
from nnmpq.data.flowers import load_flowers102
from nnmpq.data.food import load_food101
from nnmpq.data.idx import load_fashion_mnist, load_mnist
from nnmpq.data.image_files import ImageFiles
from nnmpq.data.image_folder import load_image_folder
from nnmpq.data.imagenet import load_imagenet, load_imagenette
from nnmpq.data.pets import load_oxford_iiit_pet
from nnmpq.data.tiny_imagenet import load_tiny_imagenet
from nnmpq.data.usual import AUGMENTATIONS, USUAL, ImageOptions, image_settings
from nnmpq.files import nearest

DATASETS: dict[str, Loader] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion_mnist": load_fashion_mnist,
    "imagenet": load_imagenet,
    "imagenette": load_imagenette,
    "tiny_imagenet": load_tiny_imagenet,
    "flowers102": load_flowers102,
    "oxford_iiit_pet": load_oxford_iiit_pet,
    "stanford_cars": load_stanford_cars,
    "fgvc_aircraft": load_fgvc_aircraft,
    "food101": load_food101,
    "image_folder": load_image_folder,
}


def load(
    name: str,
    *,
    data_dir: str | None = None,
    validation_images: int = 0,
    train_images: int | None = None,
    test_images: int | None = None,
    seed: int = 0,
    options: ImageOptions | None = None,
) -> DataSet:
    """Load a data set in three parts.

    Args:
        name: a key of `DATASETS`.
        data_dir: folder that it is in, for those that do not come with the package.
        validation_images: images held out from the training part, the classes in the same shares.
        train_images: use so many of what is left; all if None.
        test_images: use so many of the test part; all if None.
        seed: which images are held out and used.
        options: what is done to images in files, and the colour statistics of any; the set's usual if None.

    Raises:
        DataError: the data set is unknown, missing or damaged.

    Example:
        >>> data = load("digits", validation_images=200)
        >>> len(data.train), len(data.validation), len(data.test), data.shape
        (1237, 200, 360, (1, 8, 8))
    """
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; the nearest is {nearest(name, DATASETS)!r}")
    options = ImageOptions() if options is None else options
    # Before anything is read: an option that is not possible need not wait for that.
    settings = image_settings(name, options) if name in USUAL else None
    boxes = {"boxes": True} if options.crop_to_box and settings is not None else {}
    everything, test, classes, offset, scale = DATASETS[name](data_dir, **boxes)

    train, validation = hold_out(everything, validation_images, seed)
    return DataSet(
        name,
        classes,
        limit(train, train_images, seed),
        validation,
        limit(test, test_images, seed),
        offset,
        scale,
        colour=None if settings is not None or options.colour is None else colours(options.colour),
        settings=settings,
    )


__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "DataError",
    "DataSet",
    "ImageFiles",
    "ImageOptions",
    "Part",
    "Split",
    "evaluation_batches",
    "load",
    "training_batches",
]
