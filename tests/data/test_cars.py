from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from nnmpq.data import DataError
from nnmpq.data.cars import every_fifth, load_stanford_cars, read_stanford_cars
from nnmpq.data.image_files import ImageFiles
from tests.data.made_up import CARS, listed, picture, real_folder, stanford_cars

TRAIN = "devkit/cars_train_annos.mat"


def changed(root: Path, file: str, field: str, value: object) -> None:
    rows = loadmat(root / file)["annotations"]
    rows[0, 0][field] = value
    savemat(root / file, {"annotations": rows})


def test_a_subset_without_test_images_tests_on_every_fifth_of_a_class(tmp_path: Path) -> None:
    stanford_cars(tmp_path)
    root = tmp_path / "stanford_cars"
    (root / "subset.txt").write_text("00001.jpg\n00002.jpg\n")
    for path in (root / "cars_test").iterdir():
        path.unlink()
    (root / "cars_test").rmdir()
    (root / "cars_train" / "00003.jpg").unlink()
    train, test, classes, _, _ = load_stanford_cars(str(tmp_path))
    assert (listed(train), len(test), classes) == (
        {"cars_train/00001.jpg": CARS[1], "cars_train/00002.jpg": CARS[0]},
        0,
        2,
    )
    (root / "subset.txt").unlink()
    picture(root / "cars_train" / "00003.jpg")
    with pytest.raises(DataError, match="has no cars_test"):
        load_stanford_cars(str(tmp_path))


def test_every_fifth_is_counted_by_class() -> None:
    labels = [0, 1] * 11
    rest, fifth = every_fifth(ImageFiles.of(Path("."), [str(i) for i in range(22)], labels, "ab"))
    assert [fifth.name(i) for i in range(len(fifth))] == ["8", "9", "18", "19"] and len(rest) == 18


@pytest.mark.parametrize(
    "field,value,message",
    [
        ("class", 3, "'class' is not from 1 to 2"),
        ("class", "x", "a class or box is no number"),
        ("bbox_x1", 0, "a 'bbox' is no box"),
        ("bbox_y2", 4, "a 'bbox' is no box"),
        ("fname", "../1.jpg", r"'../1\.jpg'|\.\./1"),
    ],
)
def test_wrong_annotations_are_named(field: str, value: object, message: str, tmp_path: Path) -> None:
    stanford_cars(tmp_path)
    changed(tmp_path / "stanford_cars", TRAIN, field, value)
    with pytest.raises(DataError, match=message) as caught:
        load_stanford_cars(str(tmp_path))
    assert "cars_train" in str(caught.value)


def test_the_devkits_test_list_without_classes_is_not_enough(tmp_path: Path) -> None:
    stanford_cars(tmp_path)
    source = tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat"
    rows = loadmat(source)["annotations"]
    fields = [name for name in rows.dtype.names if name != "class"]
    bare = np.zeros(rows.shape, [(name, object) for name in fields])
    for name in fields:
        bare[name] = rows[name]
    savemat(source, {"annotations": bare})
    with pytest.raises(DataError, match="cars_test_annos_withlabels.mat: 'annotations' has no field 'class'"):
        load_stanford_cars(str(tmp_path))


def test_copies_that_are_cropped_already_have_no_boxes(tmp_path: Path) -> None:
    stanford_cars(tmp_path)
    picture(tmp_path / "stanford_cars" / "cars_train" / "00001.jpg", (16, 10))
    assert len(read_stanford_cars(tmp_path / "stanford_cars", "train")) == 3
    with pytest.raises(
        DataError, match="00001.jpg: 16x10 pixels do not hold its box, which ends at 18, 14; .* cropped"
    ):
        read_stanford_cars(tmp_path / "stanford_cars", "train", boxes=True)


def test_real_cars() -> None:
    root = real_folder("stanford_cars")
    train, test, classes, _, _ = load_stanford_cars(str(root))
    assert classes == 196
    if (root / "stanford_cars" / "cars_test").is_dir():
        assert (len(train), len(test)) == (8144, 8041)
    else:
        lines = (root / "stanford_cars" / "subset.txt").read_text().splitlines()
        assert len(train) + len(test) == sum(bool(line.strip()) for line in lines)
        assert set(test.labels) <= set(train.labels)
