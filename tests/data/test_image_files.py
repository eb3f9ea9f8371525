from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import (
    ImageFiles,
    as_parts,
    check_files,
    check_names,
    concatenate,
    read_lines,
    read_mat,
    read_subset,
)

words = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(deadline=None, max_examples=50)
@given(st.lists(words, max_size=20), st.integers(0, 5))
def test_names_come_back_in_any_order(names: list[str], seed: int) -> None:
    files = ImageFiles.of(Path("root"), names, [0] * len(names), ["only"])
    assert [files.name(i) for i in range(len(files))] == names
    order = np.random.default_rng(seed).permutation(len(names))
    taken = files.take(order)
    assert [taken.path(i) for i in range(len(taken))] == [Path("root") / names[i] for i in order]
    assert taken.names is files.names


def test_taking_and_joining_keep_labels_and_boxes_with_their_names(tmp_path: Path) -> None:
    boxes = [[0, 0, 1, 1], [1, 2, 3, 4], [5, 6, 7, 8]]
    files = ImageFiles.of(tmp_path, ["a", "bb", "ccc"], [2, 0, 1], "xyz", boxes)
    both = concatenate(files.take(np.array([2])), files.take(np.array([1, 0])))
    assert [both.name(i) for i in range(3)] == ["ccc", "bb", "a"]
    assert both.labels.tolist() == [1, 0, 2]
    assert both.boxes is not None and both.boxes.tolist() == boxes[::-1]
    train, test, classes, offset, scale = as_parts(both, files)
    assert (train, test, classes, offset, scale) == (both, files, 3, 127.5, 127.5)
    with pytest.raises(DataError, match="one part has boxes"):
        concatenate(files, ImageFiles.of(tmp_path, ["d"], [0], "xyz"))
    with pytest.raises(DataError, match="different folders or classes"):
        concatenate(files, ImageFiles.of(tmp_path, ["d"], [0], "xy"))


def test_names_that_are_no_utf8_and_other_processes() -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    files = pickle.loads(pickle.dumps(ImageFiles.of(Path("r"), [name, "b.jpg"], [0, 0], ["c"])))
    assert [files.name(0), files.name(1)] == [name, "b.jpg"]


@pytest.mark.parametrize(
    "change,message",
    [
        ({"labels": np.array([0, 3], np.int32)}, "from 0 to 1"),
        ({"labels": np.array([-1, 0], np.int32)}, "from 0 to 1"),
        ({"labels": np.array([0, 1])}, "'labels' is no int32"),
        ({"labels": np.array([0], np.int32)}, "one entry an image"),
        ({"boxes": np.zeros((1, 4), np.int32)}, r"shape \(2, 4\)"),
        ({"starts": np.array([0, 9])}, "leads out"),
        ({"starts": np.array([0, -1])}, "leads out"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    files = ImageFiles.of(Path("r"), ["a", "b"], [0, 1], ["x", "y"])
    fields = {name: getattr(files, name) for name in ("root", "names", "starts", "lengths", "labels", "class_names")}
    with pytest.raises(DataError, match=message):
        ImageFiles(**{**fields, **change})


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "C:/a.jpg", "a\\..\\b", "", ".", "a\0b"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"list\.txt"):
        check_names(["fine/one.jpg", name], Path("list.txt"))


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    check_files(tmp_path, ["a/1.jpg"], Path("list.txt"))
    with pytest.raises(DataError, match=r"list\.txt: 2 of its 3 images .* first is a/2\.jpg; .*subset\.txt"):
        check_files(tmp_path, ["a/1.jpg", "a/2.jpg", "b/1.jpg"], Path("list.txt"))


def test_lists_are_read_without_marks_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa b\r\n\r\n  c\t\n")
    assert read_lines(path) == ["a b", "c"]
    assert read_subset(tmp_path) is None
    (tmp_path / "subset.txt").write_text("a.jpg 3 tst\nb.jpg\n")
    assert read_subset(tmp_path) == frozenset(("a.jpg", "b.jpg"))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"list\.txt: is no UTF-8"):
        read_lines(path)
    with pytest.raises(DataError, match="none.txt: cannot be read"):
        read_lines(tmp_path / "none.txt")


def test_mat_files_are_read_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"ids": np.array([[3.0, 1.0]]), "one": np.array([[7.0]])})
    assert read_mat(path, "ids").tolist() == [3, 1] and read_mat(path, "one").tolist() == [7]
    with pytest.raises(DataError, match="no 'labels', only ids, one"):
        read_mat(path, "labels")
    for content in (b"", b"no mat file" * 40, path.read_bytes()[:150]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.mat: (damaged|cannot|holds no)"):
            read_mat(path, "ids")
    with pytest.raises(DataError, match="b.mat: cannot be read"):
        read_mat(tmp_path / "b.mat", "ids")
