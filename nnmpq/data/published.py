"""How many images the publishers' whole data sets have."""

from __future__ import annotations

import attrs


@attrs.frozen
class Counts:
    """Of a whole data set.

    Args:
        classes: number of classes.
        train: images to learn from, those of a validation part that the publisher made among them.
        test: images of the test part; where the publisher keeps its classes to himself, of the validation part.
    """

    classes: int
    train: int
    test: int


PUBLISHED: dict[str, Counts] = {
    "cifar10": Counts(10, 50_000, 10_000),
    "cifar100": Counts(100, 50_000, 10_000),
    "mnist": Counts(10, 60_000, 10_000),
    "fashion_mnist": Counts(10, 60_000, 10_000),
    "imagenet": Counts(1000, 1_281_167, 50_000),
    "imagenette": Counts(10, 9_469, 3_925),
    "tiny_imagenet": Counts(200, 100_000, 10_000),
    "flowers102": Counts(102, 2_040, 6_149),
    "oxford_iiit_pet": Counts(37, 3_680, 3_669),
    "stanford_cars": Counts(196, 8_144, 8_041),
    "fgvc_aircraft": Counts(100, 6_667, 3_333),
    "food101": Counts(101, 75_750, 25_250),
}


def remark(name: str, found: Counts) -> str:
    """Return what to say of a folder whose counts are not the publisher's; nothing where they are.

    Args:
        name: a data set; one that has no publisher is never remarked on.
        found: what is in the folder.

    Example:
        >>> remark("food101", Counts(10, 750, 300))
        'not the whole set, which has 75,750 and 25,250 images of 101 classes'
        >>> remark("cifar10", Counts(10, 50_000, 10_000))
        ''
    """
    whole = PUBLISHED.get(name, found)
    if found == whole:
        return ""
    return f"not the whole set, which has {whole.train:,} and {whole.test:,} images of {whole.classes:,} classes"
