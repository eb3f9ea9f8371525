from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnmpq.data import DataError
from nnmpq.data.tiny_imagenet import load_tiny_imagenet
from tests.data.made_up import real_folder, tiny_imagenet


def test_classes_are_in_the_order_of_their_wordnet_numbers(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path)
    train, test, *_ = load_tiny_imagenet(str(tmp_path))
    assert train.class_names == test.class_names == ("n01443537", "n02124075")
    assert test.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "file,content,message",
    [
        ("wnids.txt", "n01443537\n", "does not list the folders of .*train: n02124075"),
        ("wnids.txt", "n01443537\nn01443537\nn02124075\n", "a class named twice"),
        ("val/val_annotations.txt", "val_0.JPEG\tn02124076\t0\t0\t1\t1\n", "no class 'n02124076'; .* 'n02124075'"),
        ("val/val_annotations.txt", "val_0.JPEG\n", "no class ''"),
        ("val/val_annotations.txt", "val_9.JPEG\tn02124075\n", "1 of its 1 images are not in"),
        ("val/val_annotations.txt", "../../x.JPEG\tn02124075\n", "x.JPEG"),
    ],
)
def test_wrong_lists_are_named(file: str, content: str, message: str, tmp_path: Path) -> None:
    tiny_imagenet(tmp_path)
    (tmp_path / "tiny-imagenet-200" / file).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_tiny_imagenet(str(tmp_path))
    assert file.rpartition("/")[2] in str(caught.value)


def test_real_tiny_imagenet() -> None:
    root = real_folder("tiny-imagenet-200")
    train, test, classes, _, _ = load_tiny_imagenet(str(root))
    # 500 and 50 images of each class, of 200 in the whole set.
    assert np.bincount(train.labels).tolist() == [500] * classes
    assert np.bincount(test.labels).tolist() == [50] * classes
    with Image.open(train.path(0)) as image:
        assert image.size == (64, 64)
