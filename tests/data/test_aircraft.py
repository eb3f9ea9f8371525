from __future__ import annotations

from pathlib import Path

import pytest

from nnmpq.data import DataError
from nnmpq.data.aircraft import load_fgvc_aircraft, read_boxes, read_fgvc_aircraft
from tests.data.made_up import fgvc_aircraft, listed, real_folder


def test_the_publishers_three_parts_stay_apart_where_asked(tmp_path: Path) -> None:
    train, test = fgvc_aircraft(tmp_path)
    parts = read_fgvc_aircraft(str(tmp_path))
    assert [len(part) for part in parts.values()] == [3, 2, 3]
    assert {**listed(parts["train"]), **listed(parts["validation"])} == train and listed(parts["test"]) == test


@pytest.mark.parametrize("below", ["", "fgvc-aircraft-2013b", "fgvc-aircraft-2013b/data"])
def test_the_folder_is_found_from_above(below: str, tmp_path: Path) -> None:
    fgvc_aircraft(tmp_path)
    assert len(load_fgvc_aircraft(str(tmp_path / below))[0]) == 5


def test_a_variant_may_have_blanks_and_slashes(tmp_path: Path) -> None:
    fgvc_aircraft(tmp_path)
    root = tmp_path / "fgvc-aircraft-2013b" / "data"
    with (root / "variants.txt").open("a") as stream:
        stream.write("Model B200 / 1900\n")
    with (root / "images_variant_test.txt").open("a") as stream:
        stream.write("0000000 Model B200 / 1900\n")
    assert listed(load_fgvc_aircraft(str(tmp_path))[1])["images/0000000.jpg"] == "Model B200 / 1900"


@pytest.mark.parametrize(
    "file,line,message",
    [
        ("images_variant_val.txt", "0000003 A300B5", "'0000003 A300B5': no such variant; the nearest is 'A300B4'"),
        ("images_variant_val.txt", "0000003", "no such variant"),
        ("images_variant_val.txt", "../0000003 A300B4", "0000003"),
        ("images_variant_val.txt", "0000009 A300B4", "1 of its 1 images are not in"),
        ("images_box.txt", "0000003 1 2 3", "an image and four numbers are needed"),
        ("images_box.txt", "0000003 1 2 3 x", "an image and four numbers are needed"),
        ("images_box.txt", "0000003 0 2 3 4", "is no box"),
        ("images_box.txt", "0000003 1 2 3 4", "has no box for '0000000' of images_variant_train.txt"),
    ],
)
def test_wrong_lines_are_named(file: str, line: str, message: str, tmp_path: Path) -> None:
    fgvc_aircraft(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b" / "data" / file).write_text(f"{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        load_fgvc_aircraft(str(tmp_path), boxes=True)
    assert file in str(caught.value)


def test_boxes_count_from_zero_and_leave_their_end_out(tmp_path: Path) -> None:
    path = tmp_path / "images_box.txt"
    path.write_text("0034309 50 75 1000 600\n")
    assert read_boxes(path) == {"0034309": (49, 74, 1000, 600)}


def test_real_aircraft() -> None:
    root = real_folder("fgvc-aircraft-2013b")
    parts = read_fgvc_aircraft(str(root))
    assert [len(part) for part in parts.values()] == [3334, 3333, 3333]
    assert len(parts["train"].class_names) == 100
