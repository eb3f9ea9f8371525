from __future__ import annotations

import pytest

from nnmpq.export.integer.program import ExportError
from nnmpq.export.nnablart.levels import check_level, code_of, default_of, table

# From nnabla-c-runtime's include/nnablart/network.h.
PUBLISHED = {
    "Affine": 0,
    "DepthwiseConvolution": 2,
    "ReLU": 14,
    "Round": 73,
    "MinimumScalar": 46,
    "MaximumScalar": 47,
    "Concatenate": 74,
    "Pad": 123,
}


def test_numbers_are_the_published_ones() -> None:
    for level in (30, 39, 44):
        known = table(level)
        assert {name: known[name][0] for name in PUBLISHED} == PUBLISHED
    # Convolution had number 1 before it got channel_last, 265 since; MulScalar 38 before it got inplace.
    assert table(1)["Convolution"][0] == 1 and table(44)["Convolution"] == (265, "iiIiIiIiB")
    assert table(1)["MulScalar"] == (38, "f") and table(44)["MulScalar"] == (313, "fB")


@pytest.mark.parametrize("level", [0, -1, 46, 5000])
def test_levels_that_nobody_knows(level: int) -> None:
    with pytest.raises(ExportError, match=f"API level {level}: nnabla's converter knows 1 to 45"):
        table(level)


def test_codes_and_defaults() -> None:
    assert code_of("AveragePooling") == ["iI", "iI", "B", "iI", "B", "B"]
    assert default_of("AveragePooling", "including_pad") is True
    assert default_of("Convolution", "pad") is None and default_of("MaxPooling", "kernel") is None


def test_an_argument_that_an_old_level_cannot_say_must_not_matter() -> None:
    plain = {"base_axis": 1, "pad": (0, 0), "stride": (1, 1), "dilation": (1, 1), "group": 1, "channel_last": False}
    check_level([("Convolution", plain)], 1)
    with pytest.raises(ExportError, match="API level 1 cannot say channel_last = True of Convolution"):
        check_level([("Convolution", {**plain, "channel_last": True})], 1)
    check_level([("MulScalar", {"val": 2.0, "inplace": True})], 1)
    with pytest.raises(ExportError, match="API level 44 has no Trilu: give a higher one"):
        check_level([("Trilu", {"k": 0, "upper": True})], 44)
