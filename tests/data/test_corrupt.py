from __future__ import annotations

import logging

import pytest

from nnmpq.data.corrupt import NAMED, CorruptImages
from nnmpq.data.errors import DataError


def test_each_image_is_counted_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    corrupt = CorruptImages(100, share=0.02)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            corrupt.add(4, "a/4.jpg: truncated")
    assert len(corrupt) == 1 and corrupt.found == {4: "a/4.jpg: truncated"}
    assert [record.getMessage() for record in caplog.records] == ["skipped, 1 of at most 2: a/4.jpg: truncated"]


@pytest.mark.parametrize("total,share,allowed", [(100, 0.02, 2), (100, 0.019, 1), (10, 0.0, 0), (3, 1.0, 2)])
def test_so_many_may_be_corrupt_and_no_more(total: int, share: float, allowed: int) -> None:
    corrupt = CorruptImages(total, share)
    for index in range(allowed):
        corrupt.add(index, f"{index}.jpg: broken")
    with pytest.raises(DataError, match=rf"{allowed + 1} of {total} images .* {share:g} .*0\.jpg: broken"):
        corrupt.add(allowed, f"{allowed}.jpg: broken")


def test_many_are_named_by_the_first_few() -> None:
    corrupt = CorruptImages(1000, share=0.009)
    with pytest.raises(DataError) as caught:
        for index in range(10):
            corrupt.add(index, f"{index}.jpg")
    assert f"{NAMED - 1}.jpg; and {10 - NAMED} more" in str(caught.value) and "9.jpg" not in str(caught.value)


def test_the_next_sound_image_goes_round() -> None:
    corrupt = CorruptImages(5, share=1.0)
    for index in (3, 4, 0):
        corrupt.add(index, "x")
    assert [corrupt.next_sound(index) for index in range(5)] == [1, 1, 2, 1, 1]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        CorruptImages(5, share)
