from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnmpq.data import DATASETS, cifar100, idx
from nnmpq.data.cifar10 import IMAGES_A_FILE, TRAIN_FILES
from nnmpq.data.command import describe
from nnmpq.data.flowers import CLASSES
from nnmpq.data.pets import BREEDS
from nnmpq.data.published import PUBLISHED, Counts, remark
from nnmpq.data.sources import SOURCES
from tests.data.made_up import food101


def test_every_set_that_has_a_publisher_is_here() -> None:
    assert set(PUBLISHED) == set(SOURCES) == set(DATASETS) - {"digits", "image_folder"}


def test_counts_are_those_of_the_publishers_parts() -> None:
    # Parts by class where they are equal, else as the publishers' papers and pages state them.
    assert PUBLISHED["cifar10"] == Counts(10, IMAGES_A_FILE * len(TRAIN_FILES), IMAGES_A_FILE)
    assert PUBLISHED["cifar100"] == Counts(cifar100.CLASSES, *cifar100.IMAGES.values())
    assert PUBLISHED["mnist"] == PUBLISHED["fashion_mnist"] == Counts(idx.CLASSES, *idx.IMAGES.values())
    assert PUBLISHED["tiny_imagenet"] == Counts(200, 200 * 500, 200 * 50)
    assert PUBLISHED["flowers102"] == Counts(CLASSES, 102 * 10 + 102 * 10, 8189 - 102 * 20)
    assert PUBLISHED["oxford_iiit_pet"].classes == len(BREEDS)
    assert PUBLISHED["oxford_iiit_pet"].train + PUBLISHED["oxford_iiit_pet"].test == 7349
    assert PUBLISHED["stanford_cars"].train + PUBLISHED["stanford_cars"].test == 16_185
    assert PUBLISHED["fgvc_aircraft"].train + PUBLISHED["fgvc_aircraft"].test == 100 * 100
    assert PUBLISHED["food101"] == Counts(101, 101 * 750, 101 * 250)
    assert PUBLISHED["imagenette"].train + PUBLISHED["imagenette"].test == 13_394


@pytest.mark.parametrize("change", [Counts(9, 60_000, 10_000), Counts(10, 59_999, 10_000), Counts(10, 60_000, 1)])
def test_any_other_count_is_remarked_on(change: Counts) -> None:
    assert "60,000 and 10,000 images of 10 classes" in remark("mnist", change)
    assert remark("image_folder", change) == ""


def test_the_command_says_what_is_a_part_only(tmp_path: Path) -> None:
    food101(tmp_path)
    assert describe("food101", str(tmp_path)) == [
        "food101: 2 classes",
        "  train               3 images of 2 classes, 1 to 2 a class",
        "  test                2 images of 2 classes, 1 a class",
        "  not the whole set, which has 75,750 and 25,250 images of 101 classes",
    ]
    assert len(describe("digits", None)) == 3


@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_real_whole_sets_have_no_remark(name: str) -> None:
    root = os.environ.get("NNMPQ_DATA")
    folders = {"cifar10": "cifar-10-batches-py", "imagenette": "imagenette2*"}
    if not root or not list(Path(root).glob(folders[name])):
        pytest.skip(f"NNMPQ_DATA names no folder with {folders[name]}")
    assert len(describe(name, root)) == 3
