"""How image files become the input of a network."""

from __future__ import annotations

import attrs
import numpy as np

from nnmpq.data.colour import COLOURS, ColourStatistics
from nnmpq.data.errors import DataError
from nnmpq.data.transforms import CentreCrop, RandomResizedCrop, Transform
from nnmpq.data.views import RESAMPLING

OUTPUTS = ("float32", "uint8")


@attrs.frozen
class ImageSettings:
    """What is done to each image; checked when made, so that no worker stumbles over it later.

    Args:
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        channels: 3 for RGB, 1 for grey.
        training: transform of training images.
        evaluation: transform of the others.
        colour: how pixels become numbers.
        output: "float32" for numbers, "uint8" for pixels that the graph is to normalise.
        crop_to_box: cut to the bounding box first, in sets that have them.
        fill: 0 to 255, padding of the pad-and-crop transform.
        resample: a key of `nnmpq.data.views.RESAMPLING`.
        margin: training JPEGs are decoded at 1/2 to 1/8 of their size as long as that is this many times larger than
            needed, at least 1; None decodes all pixels. Evaluation always does.
        corrupt_share: share of the training images that may be unreadable, 0 to 1.
        prefetch: batches that are made ahead of the one in use, at least 1.
    """

    height: int = attrs.field(default=224, validator=attrs.validators.ge(1))
    width: int = attrs.field(default=224, validator=attrs.validators.ge(1))
    channels: int = attrs.field(default=3, validator=attrs.validators.in_((1, 3)))
    training: Transform = attrs.field(factory=RandomResizedCrop)
    evaluation: Transform = attrs.field(factory=CentreCrop)
    colour: ColourStatistics = COLOURS["imagenet"]
    output: str = attrs.field(default="float32", validator=attrs.validators.in_(OUTPUTS))
    crop_to_box: bool = False
    fill: int = attrs.field(default=128, validator=[attrs.validators.ge(0), attrs.validators.le(255)])
    resample: str = attrs.field(default="bilinear", validator=attrs.validators.in_(tuple(RESAMPLING)))
    margin: float | None = 1.0
    corrupt_share: float = attrs.field(default=0.01, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    prefetch: int = attrs.field(default=4, validator=attrs.validators.ge(1))

    def __attrs_post_init__(self) -> None:
        if self.margin is not None and not self.margin >= 1:
            raise DataError(f"margin {self.margin}: at least 1, or None, is needed")
        if len(self.colour.mean) not in (1, self.channels):
            raise DataError(f"colour has {len(self.colour.mean)} channels, images have {self.channels}")
        for transform in (self.training, self.evaluation):
            transform.view(self.size, self.size, np.random.default_rng(0))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.height, self.width

    def numbers(self, images: np.ndarray) -> np.ndarray:
        """Return a batch as it goes to the graph, in memory of its own.

        Args:
            images: uint8, shape (B, C, H, W).
        """
        return self.colour.apply(images) if self.output == "float32" else images.copy()
