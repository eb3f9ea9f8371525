from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnmpq.data import image_folder
from nnmpq.data.errors import DataError
from nnmpq.data.image_files import ImageFiles
from nnmpq.data.image_folder import cache_paths, find_folder, index_classes, load_image_folder, scan


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (200, 30, 60)).save(path)


def listed(files: ImageFiles) -> dict[str, str]:
    return {files.name(i): files.class_names[files.labels[i]] for i in range(len(files))}


def settle(root: Path) -> None:
    """Make all folders as old as those of a data set that was unpacked a while ago."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, (time.time() - 100, time.time() - 100))


def test_classes_are_sorted_and_part_folders_are_the_publishers(tmp_path: Path) -> None:
    for name in ("train/dog/2.png", "train/dog/1.JPG", "train/cat/in/3.jpeg", "val/dog/9.jpg"):
        picture(tmp_path / name)
    for name in ("train/cat/boxes.txt", "train/cat/.hidden.jpg", "train/.checkpoints/x.jpg", "train/readme.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    train, test, classes, _, _ = load_image_folder(str(tmp_path))
    assert classes == 2 and train.class_names == test.class_names == ("cat", "dog")
    assert listed(train) == {"train/cat/in/3.jpeg": "cat", "train/dog/1.JPG": "dog", "train/dog/2.png": "dog"}
    # The only class of val/ is number 1, as in training.
    assert listed(test) == {"val/dog/9.jpg": "dog"} and test.labels.tolist() == [1]
    with Image.open(train.path(0)) as image:
        assert image.size == (5, 4)


def test_of_three_parts_val_is_training_data(tmp_path: Path) -> None:
    for name in ("train/a/1.jpg", "val/a/2.jpg", "test/a/3.jpg"):
        picture(tmp_path / name)
    train, test, *_ = load_image_folder(str(tmp_path))
    assert list(listed(train)) == ["train/a/1.jpg", "val/a/2.jpg"] and list(listed(test)) == ["test/a/3.jpg"]


@pytest.mark.parametrize(
    "names,message",
    [
        (["train/cat/1.jpg", "val/cats/1.jpg"], "val/cats: no such class in training; the nearest is 'cat'"),
        (["train/1.jpg", "val/cat/1.jpg"], r"train: looked for a folder a class, found 1 images, the first 1\.jpg"),
        (["train/cat/1.txt", "val/cat/1.jpg"], "train/cat: no image"),
        (["trian/cat/1.jpg", "val/cat/1.jpg"], "looked for train, .* has no train; .* found is .*/trian;"),
        (["train/cat/1.jpg", "testing/cat/1.jpg"], "has no test or val, ...; .* found is .*/testing;"),
    ],
)
def test_another_layout_is_named_with_the_nearest_thing(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message) as caught:
        load_image_folder(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_folders_are_found_below_the_named_one_or_missed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pets" / "lists").mkdir(parents=True)
    needed = (("lists",), ("a", "b"))
    with pytest.raises(DataError, match=r"Pets: looked for lists, a or b in .* below it in pets; .*pets has no a or b"):
        find_folder("Pets", str(tmp_path), ("pets",), needed)
    (tmp_path / "pets" / "b").touch()
    assert find_folder("Pets", str(tmp_path), ("pets",), needed) == tmp_path / "pets"
    assert find_folder("Pets", str(tmp_path / "pets"), ("pets",), needed) == tmp_path / "pets"
    with pytest.raises(DataError, match=r"there is no folder .*/petz; the nearest thing found is .*/pets;"):
        find_folder("Pets", str(tmp_path / "petz"), ("pets",), needed)
    with pytest.raises(DataError, match=r"the nearest thing found is .*/pets;"):
        find_folder("Pets", str(tmp_path), ("oxford-pets",), needed)
    monkeypatch.setenv("NNMPQ_DATA", str(tmp_path))
    assert find_folder("Pets", None, ("pets",), needed) == tmp_path / "pets"
    monkeypatch.delenv("NNMPQ_DATA")
    with pytest.raises(DataError, match="no data folder is named; .*NNMPQ_DATA"):
        find_folder("Pets", None, ("pets",), needed)


def test_a_link_that_leads_back_is_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a" / "1.jpg")
    (tmp_path / "train" / "a" / "loop").symlink_to(tmp_path / "train" / "a")
    with pytest.raises(DataError, match="does a link lead back"):
        scan(tmp_path, "train")


Counter = Callable[[], int]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Counter]:
    """A tree whose index is kept, and the number of folders read so far."""
    for name in ("train/a/1.jpg", "train/a/2.jpg", "train/b/x/3.jpg"):
        picture(tmp_path / "set" / name)
    settle(tmp_path)
    monkeypatch.setattr(image_folder, "CACHED_FROM", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reads = []
    original = image_folder.list_folder
    monkeypatch.setattr(image_folder, "list_folder", lambda path: (reads.append(path), original(path))[1])
    return tmp_path / "set", lambda: len(reads)


def test_an_index_is_made_once(kept: tuple[Path, Counter]) -> None:
    root, reads = kept
    first = index_classes(root, "train")
    assert reads() == 4
    again = index_classes(root, "train")
    assert reads() == 4 and cache_paths(root, "train")[0].is_file()
    assert listed(first) == listed(again) == {"train/a/1.jpg": "a", "train/a/2.jpg": "a", "train/b/x/3.jpg": "b"}
    # The data set may move: nothing but times of its own folders is compared.
    root.rename(root.parent / "moved")
    assert index_classes(root.parent / "moved", "train").root == root.parent / "moved"
    assert reads() == 4


@pytest.mark.parametrize("change", ["new image", "gone image", "new class", "gone class"])
def test_an_index_is_made_anew_when_a_folder_changes(kept: tuple[Path, Counter], change: str) -> None:
    root, _ = kept
    before = listed(index_classes(root, "train"))
    if change == "new image":
        picture(root / "train" / "b" / "x" / "4.jpg")
        before["train/b/x/4.jpg"] = "b"
    elif change == "gone image":
        (root / "train" / "a" / "1.jpg").unlink()
        del before["train/a/1.jpg"]
    elif change == "new class":
        picture(root / "train" / "c" / "5.jpg")
        before["train/c/5.jpg"] = "c"
    else:
        (root / "train" / "b").rename(root / "b")
        del before["train/b/x/3.jpg"]
    assert listed(index_classes(root, "train")) == before


def test_an_index_of_a_folder_that_has_only_just_changed_is_not_trusted(kept: tuple[Path, Counter]) -> None:
    root, reads = kept
    os.utime(root / "train" / "a")
    index_classes(root, "train")
    index_classes(root, "train")
    assert reads() == 8


def test_an_index_goes_to_the_users_cache_where_the_folder_is_not_writable(kept: tuple[Path, Counter]) -> None:
    root, reads = kept
    beside, own = cache_paths(root, "train")
    beside.mkdir()  # also a superuser cannot put a file here
    settle(root)
    index_classes(root, "train")
    assert own.is_file() and own.is_relative_to(root.parent / "cache")
    index_classes(root, "train")
    assert reads() == 4
    own.unlink()
    own.mkdir()
    assert len(index_classes(root, "train")) == 3


def test_a_damaged_or_hostile_index_is_not_used(kept: tuple[Path, Counter]) -> None:
    root, reads = kept
    good = listed(index_classes(root, "train"))
    path = cache_paths(root, "train")[0]
    content = path.read_bytes()
    with np.load(path) as archive:
        arrays = dict(archive)
    path.write_bytes(content[: len(content) // 2])
    assert listed(index_classes(root, "train")) == good and reads() == 8
    for name in (b"train/a/../../../1", b"/rain/a/1.jpg"):
        names = arrays["names"].copy()
        names[: len(name)] = np.frombuffer(name, np.uint8)
        np.savez(path, **{**arrays, "names": names})
        before = reads()
        assert listed(index_classes(root, "train")) == good and reads() == before + 4
    np.savez(path, **{**arrays, "classes": np.array([{"an": "object"}])})
    assert listed(index_classes(root, "train")) == good and reads() == before + 8


def test_memory_is_flat_for_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes, each = 20, 1000
    for number in range(classes):
        folder = tmp_path / "train" / f"n{number:08d}"
        folder.mkdir(parents=True)
        for image in range(each):
            os.close(os.open(folder / f"n{number:08d}_{image:05d}.JPEG", os.O_CREAT | os.O_WRONLY))
    settle(tmp_path)
    count, entry = classes * each, len("train/n00000000/n00000000_00000.JPEG") + 8 + 2 + 4  # name, start, length, label

    def measured(read: Callable[[], ImageFiles]) -> tuple[ImageFiles, float]:
        tracemalloc.start()
        files = read()
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # A list of str alone would take 93 bytes an image, of Path over 200.
        assert now / count < entry + 10
        return files, peak / count

    # One class as a list is all beside the arrays: a twentieth of the images here, a thousandth of those of ImageNet.
    files, peak = measured(lambda: scan(tmp_path, "train")[0])
    assert len(files) == count and peak < 2 * entry
    files, peak = measured(lambda: index_classes(tmp_path, "train"))
    assert peak < 3 * entry + 10  # the index file's content as well, while it is written
    monkeypatch.setattr(image_folder, "scan", None)
    files, peak = measured(lambda: index_classes(tmp_path, "train"))
    assert peak < 2 * entry + 10
    assert files.labels.tolist() == sorted([*range(classes)] * each)
    assert files.name(1001) == "train/n00000001/n00000001_00001.JPEG"
