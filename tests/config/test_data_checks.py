"""Rules between the keys that concern the data."""

from __future__ import annotations

import pytest

from nnmpq.config.choices import BOX_DATASETS, DATASETS, FILE_DATASETS
from nnmpq.config.errors import InvalidValue
from nnmpq.config.experiment import Experiment


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_is_possible(name):
    assert Experiment("X", dataset=name).dataset == name


@pytest.mark.parametrize("name", FILE_DATASETS)
def test_images_in_files_take_all_keys(name):
    keys = {"augmentation": "random_resized_crop", "image_size": 96, "resize": 96, "colour": "half"}
    chosen = Experiment("X", dataset=name, crop_to_box=name in BOX_DATASETS, corrupt_share=0.0, **keys)
    assert (chosen.image_size, chosen.resize) == (96, 96)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("augmentation", "random_resized_crop", "files, which dataset = cifar10 has not; nearest valid: crop_flip"),
        ("image_size", 32, "dataset = cifar10 has images of one size; nearest valid: none"),
        ("resize", 32, "images of one size"),
        ("crop_to_box", True, "has no boxes; stanford_cars and fgvc_aircraft have; nearest valid: false"),
        ("colour", "imagenett", "imagenet"),
        ("corrupt_share", 1.5, "between 0 and 1"),
    ],
)
def test_what_a_set_in_memory_cannot_do_is_said(key, value, words):
    with pytest.raises(InvalidValue, match=words) as caught:
        Experiment("X", dataset="cifar10", **{key: value})
    assert key in str(caught.value)


def test_a_window_larger_than_the_image_is_refused():
    with pytest.raises(InvalidValue, match="resize.*less than image_size = 64; nearest valid: 64"):
        Experiment("X", dataset="imagenette", image_size=64, resize=63)


@pytest.mark.parametrize("name", sorted(set(FILE_DATASETS) - set(BOX_DATASETS)))
def test_boxes_are_for_the_sets_that_have_them(name):
    with pytest.raises(InvalidValue, match="crop_to_box"):
        Experiment("X", dataset=name, crop_to_box=True)
