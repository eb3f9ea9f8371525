from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from nnmpq.data import DataError
from nnmpq.data.flowers import load_flowers102, read_flowers102
from tests.data.made_up import flowers102, listed, real_folder


def test_the_publishers_three_parts_stay_apart_where_asked(tmp_path: Path) -> None:
    flowers102(tmp_path)
    parts = read_flowers102(str(tmp_path))
    assert {name: sorted(listed(part)) for name, part in parts.items()} == {
        "train": ["jpg/image_00001.jpg", "jpg/image_00004.jpg"],
        "validation": ["jpg/image_00003.jpg"],
        "test": ["jpg/image_00002.jpg", "jpg/image_00005.jpg", "jpg/image_00006.jpg"],
    }


def test_a_subset_narrows_the_parts(tmp_path: Path) -> None:
    flowers102(tmp_path)
    root = tmp_path / "flowers-102"
    (root / "subset.txt").write_text("image_00001.jpg\nimage_00006.jpg 102\n")
    (root / "jpg" / "image_00002.jpg").unlink()  # not asked for
    train, test, classes, _, _ = load_flowers102(str(tmp_path))
    assert listed(train) == {"jpg/image_00001.jpg": "1"} and listed(test) == {"jpg/image_00006.jpg": "102"}
    assert classes == 102


@pytest.mark.parametrize(
    "file,content,message",
    [
        ("imagelabels", {"labels": np.array([[1, 2, 103, 1, 1, 1]])}, "imagelabels.mat: 'labels' are not all .* 102"),
        ("imagelabels", {"names": np.array([[1, 2]])}, "imagelabels.mat: holds no 'labels', only names"),
        ("setid", {"trnid": [[7]], "valid": [[1]], "tstid": [[2]]}, "setid.mat: 'trnid' are not all from 1 to 6"),
        ("setid", {"trnid": [[1]], "valid": [[2]], "tstid": [[1]]}, "an image of 'tstid' is named twice"),
        ("setid", {"trnid": [[1, 1]], "valid": [[2]], "tstid": [[3]]}, "an image of 'trnid' is named twice"),
    ],
)
def test_wrong_lists_are_named(file: str, content: dict, message: str, tmp_path: Path) -> None:
    flowers102(tmp_path)
    savemat(tmp_path / "flowers-102" / f"{file}.mat", content)
    with pytest.raises(DataError, match=message):
        load_flowers102(str(tmp_path))


def test_real_flowers102() -> None:
    root = real_folder("flowers-102")
    parts = read_flowers102(str(root))
    counts = [len(part) for part in parts.values()]
    if (root / "flowers-102" / "subset.txt").is_file():
        listed_names = (root / "flowers-102" / "subset.txt").read_text().split("\n")
        assert sum(counts) == len([line for line in listed_names if line.strip()])
    else:
        assert counts == [1020, 1020, 6149]
    # The publisher's training and validation parts have ten images of each class.
    for part in ("train", "validation"):
        images = np.bincount(parts[part].labels)
        assert images.max() <= 10
    with Image.open(parts["test"].path(0)) as image:
        assert image.format == "JPEG"
