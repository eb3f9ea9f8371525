from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnmpq.data import DataError
from nnmpq.data.food import load_food101
from tests.data.made_up import food101, listed, real_folder


def test_a_subset_narrows_both_lists(tmp_path: Path) -> None:
    food101(tmp_path)
    (tmp_path / "food-101" / "subset.txt").write_text("waffles/3.jpg\nwaffles/9.jpg\n")
    train, test, classes, _, _ = load_food101(str(tmp_path))
    assert listed(train) == {"images/waffles/3.jpg": "waffles"} and listed(test) == {"images/waffles/9.jpg": "waffles"}
    assert classes == 2 and train.labels.tolist() == [1]


@pytest.mark.parametrize(
    "line,message",
    [
        ("wafles/9", "'wafles/9' is of no class; the nearest is 'waffles'"),
        ("9", "'9' is of no class"),
        ("waffles/4", "1 of its 1 images are not in .* the first is images/waffles/4.jpg"),
        ("../waffles/9", "is of no class"),
    ],
)
def test_wrong_lines_are_named(line: str, message: str, tmp_path: Path) -> None:
    food101(tmp_path)
    (tmp_path / "food-101" / "meta" / "test.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        load_food101(str(tmp_path))
    assert "test.txt" in str(caught.value)


def test_real_food101() -> None:
    root = real_folder("food-101")
    train, test, classes, _, _ = load_food101(str(root))
    per_class = [np.bincount(part.labels, minlength=classes) for part in (train, test)]
    if classes == 101:
        assert per_class[0].tolist() == [750] * 101 and per_class[1].tolist() == [250] * 101
    else:
        assert len(train) and all(counts.min() > 0 for counts in per_class)
