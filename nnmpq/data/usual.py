"""How each set of image files is usually brought to a network, and the user's changes to that."""

from __future__ import annotations

import attrs

from nnmpq.data.colour import colours
from nnmpq.data.errors import DataError
from nnmpq.data.image_settings import ImageSettings
from nnmpq.data.transforms import CentreCrop, PadCrop, RandomResizedCrop, Transform

PAD = 4


@attrs.frozen
class Usual:
    """What is usual for a set.

    Args:
        size: height and width of the network's input, pixels.
        resize: short side before the evaluation's centre crop, pixels.
        colour: key of `nnmpq.data.colour.COLOURS`.
        boxes: whether the publisher gives a box around each object.
    """

    size: int = 224
    resize: int = 256
    colour: str = "imagenet"
    boxes: bool = False


# Sizes and colours of the published loaders: 571 and 500 pixels for aircraft, statistics of their own for cars.
USUAL: dict[str, Usual] = {
    "imagenet": Usual(),
    "imagenette": Usual(),
    "tiny_imagenet": Usual(64, 64),
    "flowers102": Usual(),
    "oxford_iiit_pet": Usual(),
    "stanford_cars": Usual(colour="cars", boxes=True),
    "fgvc_aircraft": Usual(500, 571, boxes=True),
    "food101": Usual(),
    "image_folder": Usual(),
}
AUGMENTATIONS = ("crop_flip", "none", "random_resized_crop")


@attrs.frozen
class ImageOptions:
    """What a user may change.

    Args:
        augmentation: of training images: "random_resized_crop"; "crop_flip", a random window of the resized image, with
            4 pixels of padding where the resized image leaves it no room; "none", as in evaluation. Mirrored but for
            "none".
        size: height and width of the network's input, pixels; None is the set's usual.
        resize: short side before a window is cut out, pixels; None keeps the usual ratio to the size.
        colour: key of `nnmpq.data.colour.COLOURS`; None is the set's usual.
        crop_to_box: cut to the publisher's bounding boxes first.
        corrupt_share: share of the training images that may be unreadable, 0 to 1.
    """

    augmentation: str = "none"
    size: int | None = None
    resize: int | None = None
    colour: str | None = None
    crop_to_box: bool = False
    corrupt_share: float = 0.01


def image_settings(name: str, options: ImageOptions) -> ImageSettings:
    """Return what is done to the images of a set.

    Args:
        name: a key of `USUAL`.
        options: the user's changes.

    Raises:
        DataError: an option is unknown, or not possible with this set.

    Example:
        >>> settings = image_settings("imagenette", ImageOptions("random_resized_crop", size=112))
        >>> settings.size, settings.evaluation
        ((112, 112), CentreCrop(resize=128))
    """
    usual = USUAL[name]
    size = options.size or usual.size
    resize = options.resize or round(size * usual.resize / usual.size)
    if resize < size:
        raise DataError(f"{name}: resize = {resize} gives less than image_size = {size}; nearest valid: {size}")
    if options.crop_to_box and not usual.boxes:
        having = ", ".join(other for other, of in USUAL.items() if of.boxes)
        raise DataError(f"{name}: crop_to_box = true: this set has no boxes; {having} have")
    return ImageSettings(
        size,
        size,
        training=_training(options.augmentation, size, resize),
        evaluation=CentreCrop(resize),
        colour=colours(options.colour or usual.colour),
        crop_to_box=options.crop_to_box,
        corrupt_share=options.corrupt_share,
    )


def _training(augmentation: str, size: int, resize: int) -> Transform:
    if augmentation == "random_resized_crop":
        return RandomResizedCrop()
    if augmentation == "crop_flip":
        return PadCrop(resize, pad=PAD if resize == size else 0)
    if augmentation == "none":
        return CentreCrop(resize)
    raise DataError(f"augmentation {augmentation!r}: one of {', '.join(AUGMENTATIONS)} is needed")
