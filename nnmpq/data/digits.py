"""1,797 real handwritten digits of 8x8 pixels that come with the package."""

from __future__ import annotations

from importlib import resources

import numpy as np

from nnmpq.data.dataset import Split, hold_out

TEST_IMAGES = 360
SPLIT_SEED = 0


def load_digits(data_dir: str | None = None) -> tuple[Split, Split, int, float, float]:
    """Return training and test images, the number of classes, offset and scale of the pixels (0 to 16).

    The publisher's test set of 1,797 images is all there is; 360 of them, the classes in equal shares and always the
    same ones, are the test part here.

    Source:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    del data_dir  # nothing to look for
    with resources.files("nnmpq.data").joinpath("digits.npz").open("rb") as stream:
        archive = np.load(stream, allow_pickle=False)
        everything = Split(archive["images"], archive["labels"].astype(np.int32))
    train, test = hold_out(everything, TEST_IMAGES, SPLIT_SEED)
    return train, test, 10, 8.0, 8.0
