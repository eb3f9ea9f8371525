from __future__ import annotations

import pytest

from nnmpq.data.colour import COLOURS
from nnmpq.data.errors import DataError
from nnmpq.data.transforms import CentreCrop, PadCrop, RandomResizedCrop
from nnmpq.data.usual import USUAL, ImageOptions, image_settings

# Size, short side and colour statistics of the published loaders.
PUBLISHED = {
    "imagenet": (224, 256, "imagenet"),
    "flowers102": (224, 256, "imagenet"),
    "fgvc_aircraft": (500, 571, "imagenet"),
    "stanford_cars": (224, 256, "cars"),
    "tiny_imagenet": (64, 64, "imagenet"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_usual_is_the_published(name: str) -> None:
    size, resize, colour = PUBLISHED[name]
    settings = image_settings(name, ImageOptions("random_resized_crop"))
    assert settings.size == (size, size) and settings.evaluation == CentreCrop(resize)
    assert settings.colour == COLOURS[colour] and settings.training == RandomResizedCrop()


@pytest.mark.parametrize("name", USUAL)
def test_every_set_can_be_changed_in_every_way(name: str) -> None:
    options = ImageOptions("crop_flip", 96, 100, "half", crop_to_box=USUAL[name].boxes, corrupt_share=0.5)
    settings = image_settings(name, options)
    assert settings.size == (96, 96) and settings.training == PadCrop(100, pad=0)
    assert settings.evaluation == CentreCrop(100) and settings.colour == COLOURS["half"]
    assert settings.crop_to_box == USUAL[name].boxes and settings.corrupt_share == 0.5


def test_the_usual_ratio_stays_where_only_the_size_changes() -> None:
    assert image_settings("imagenet", ImageOptions(size=112)).evaluation == CentreCrop(128)
    assert image_settings("fgvc_aircraft", ImageOptions(size=250)).evaluation == CentreCrop(286)
    assert image_settings("tiny_imagenet", ImageOptions(size=48)).evaluation == CentreCrop(48)


def test_padding_is_for_windows_that_have_no_room() -> None:
    assert image_settings("tiny_imagenet", ImageOptions("crop_flip")).training == PadCrop(64, pad=4)
    assert image_settings("imagenet", ImageOptions("crop_flip")).training == PadCrop(256, pad=0)
    assert image_settings("imagenet", ImageOptions("none")).training == CentreCrop(256)


@pytest.mark.parametrize(
    "options,message",
    [
        (ImageOptions(size=112, resize=100), "resize = 100 gives less than image_size = 112; nearest valid: 112"),
        (ImageOptions("flip"), "augmentation 'flip': one of crop_flip, none, random_resized_crop"),
        (ImageOptions(colour="cifar"), "no colour statistics 'cifar'; the nearest is 'cifar10'"),
        (ImageOptions(crop_to_box=True), "has no boxes; stanford_cars, fgvc_aircraft have"),
    ],
)
def test_what_is_not_possible_is_said(options: ImageOptions, message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_settings("food101", options)
