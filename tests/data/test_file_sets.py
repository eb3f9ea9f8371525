"""What every data set of image files must do; a new one enters by a made-up folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnmpq.data import DATASETS, DataError, ImageOptions, load
from nnmpq.data.feed import Feed
from nnmpq.data.image_files import ImageFiles
from nnmpq.data.sources import SOURCES
from nnmpq.data.usual import USUAL
from tests.data.made_up import MADE_UP, listed


def test_every_set_of_files_is_here() -> None:
    assert set(MADE_UP) == set(USUAL) < set(DATASETS)
    assert set(SOURCES) == set(DATASETS) - {"digits", "image_folder"}


@pytest.mark.parametrize("name", MADE_UP)
def test_images_and_classes_are_the_publishers(name: str, tmp_path: Path) -> None:
    train, test = MADE_UP[name](tmp_path)
    data = load(name, data_dir=str(tmp_path))
    assert isinstance(data.train, ImageFiles) and isinstance(data.test, ImageFiles)
    assert listed(data.train) == train and listed(data.test) == test
    assert data.classes == len(data.train.class_names) == len(data.test.class_names)
    assert data.shape == (3, USUAL[name].size, USUAL[name].size)
    assert all(data.train.path(i).is_file() for i in range(len(data.train)))


@pytest.mark.parametrize("name", MADE_UP)
def test_parts_are_divided_like_any_others(name: str, tmp_path: Path) -> None:
    train, test = MADE_UP[name](tmp_path)
    data = load(name, data_dir=str(tmp_path), validation_images=1, train_images=1, test_images=1, seed=3)
    parts = [data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [1, 1, 1]
    names = [next(iter(listed(part))) for part in parts]
    assert {names[0], names[1]} <= set(train) and names[0] != names[1] and names[2] in test
    assert data.settings is not None and data.settings.colour is load(name, data_dir=str(tmp_path)).settings.colour


@pytest.mark.parametrize("name", MADE_UP)
def test_batches_show_the_pictures_with_their_classes(name: str, tmp_path: Path) -> None:
    _, test = MADE_UP[name](tmp_path)
    data = load(name, data_dir=str(tmp_path), options=ImageOptions("crop_flip", size=8, colour="half"))
    with Feed(data, 2, seed=0) as feed:
        batches = list(feed.training(0))
        assert len(batches) == len(data.train) // 2
        assert all(x.shape == (2, 3, 8, 8) and x.dtype == np.float32 for x, _ in batches)
        found = [(x[i], int(t[i, 0])) for x, t, count in feed.evaluation(data.test) for i in range(count)]
    assert [label for _, label in found] == data.test.labels.tolist()
    for i, (image, _) in enumerate(found):
        colour = np.random.default_rng(list(data.test.path(i).name.encode())).integers(0, 256, 3)
        # Half of 255 is one; JPEG moves a colour by a few steps.
        np.testing.assert_allclose(image.mean((1, 2)), colour / 127.5 - 1, atol=0.05)


@pytest.mark.parametrize("name", MADE_UP)
def test_an_empty_folder_says_what_was_looked_for(name: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"looked for .*nearest thing found is .*photos.*NNMPQ_DATA") as caught:
        load(name, data_dir=str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", [n for n in MADE_UP if n not in ("imagenet", "imagenette", "image_folder")])
def test_a_missing_image_of_a_list_is_named(name: str, tmp_path: Path) -> None:
    MADE_UP[name](tmp_path)
    data = load(name, data_dir=str(tmp_path))
    data.test.path(1).unlink()
    with pytest.raises(DataError, match=r"1 of its . images are not in .*, the first is .*\.(jpg|JPEG)"):
        load(name, data_dir=str(tmp_path))


def test_boxes_are_for_the_sets_that_have_them(tmp_path: Path) -> None:
    cut = ImageOptions(size=8, crop_to_box=True)
    for name in ("stanford_cars", "fgvc_aircraft"):
        MADE_UP[name](tmp_path)
        data = load(name, data_dir=str(tmp_path), options=cut)
        # The publishers count pixels from 1 and include the last: 3 5 18 14 is 16 wide and 10 high.
        for part in (data.train, data.test):
            assert part.boxes.tolist() == [[2, 4, 18, 14]] * len(part)
        assert load(name, data_dir=str(tmp_path)).train.boxes is None
    with pytest.raises(DataError, match="food101: crop_to_box = true: .* stanford_cars, fgvc_aircraft have"):
        load("food101", data_dir=str(tmp_path), options=cut)
