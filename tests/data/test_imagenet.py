from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from nnmpq.data import DataError
from nnmpq.data.imagenet import load_imagenet, load_imagenette
from tests.data.made_up import imagenet, imagenette, listed, pictures, real_folder, write_lines

WNIDS = ("n01440764", "n01443537", "n01484850")
# Of the flat folder's four images, by their numbers 1 to 4.
CLASSES = (WNIDS[2], WNIDS[0], WNIDS[1], WNIDS[0])
IMAGES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3, 4)]


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """ImageNet with a val/ without class folders, its label file still missing."""
    imagenet(tmp_path)
    root = tmp_path / "imagenet"
    shutil.rmtree(root / "val")
    pictures(root, [f"val/{image}" for image in IMAGES])
    return root


def devkit(root: Path) -> None:
    # The publisher's numbers are not in the order of the WordNet numbers.
    rows = np.zeros((4, 1), [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for row, (number, wnid) in zip(rows[:, 0], enumerate((WNIDS[1], WNIDS[2], WNIDS[0], "n00001740"), 1)):
        row["ILSVRC2012_ID"], row["WNID"], row["words"] = number, wnid, "a thing"
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    write_lines(folder / "ILSVRC2012_validation_ground_truth.txt", ["2", "3", "1", "3"])
    savemat(folder / "meta.mat", {"synsets": rows})


def by_number(root: Path) -> None:
    write_lines(root / "imagenet_2012_validation_synset_labels.txt", list(CLASSES))


def numbered_pairs(root: Path) -> None:
    pairs = [f"{image} {WNIDS.index(wnid)}" for image, wnid in zip(IMAGES, CLASSES)]
    write_lines(root / "val.txt", pairs[::-1])


def solution(root: Path) -> None:
    rows = [f"{Path(image).stem},{wnid} 1 2 3 4 {wnid} 5 6 7 8" for image, wnid in zip(IMAGES, CLASSES)]
    write_lines(root / "LOC_val_solution.csv", ["ImageId,PredictionString", *rows[::-1]])


@pytest.mark.parametrize("label", [devkit, by_number, numbered_pairs, solution])
def test_a_flat_val_takes_its_classes_from_any_usual_list(label, flat: Path) -> None:
    label(flat)
    _, test, classes, _, _ = load_imagenet(str(flat))
    assert classes == 3
    assert listed(test) == {f"val/{image}": wnid for image, wnid in zip(IMAGES, CLASSES)}


def test_the_challenge_archives_own_tree(flat: Path) -> None:
    inner = flat.parent / "ILSVRC" / "Data" / "CLS-LOC"
    inner.mkdir(parents=True)
    for part in ("train", "val"):
        (flat / part).rename(inner / part)
    solution(flat.parent)
    assert len(load_imagenet(str(flat.parent))[1]) == 4


def test_a_flat_val_without_a_list_says_what_was_looked_for(flat: Path) -> None:
    (flat / "validation_truth.txt").touch()
    with pytest.raises(
        DataError, match=r"4 images without class folders; .*ground_truth\.txt.* found is .*validation_t"
    ):
        load_imagenet(str(flat))


@pytest.mark.parametrize(
    "file,lines,message",
    [
        ("val.txt", [f"{IMAGES[0]} 3"], "an image and a class from 0 to 2 are needed"),
        ("val.txt", [f"{IMAGES[0]} 0"], f"does not list '{IMAGES[1]}'"),
        ("imagenet_2012_validation_synset_labels.txt", list(CLASSES[:3]), f"has 3 lines, none for '{IMAGES[3]}'"),
        (
            "imagenet_2012_validation_synset_labels.txt",
            ["n01440765", *CLASSES[1:]],
            "is of class 'n01440765', which .*train has not; the nearest is 'n01440764'",
        ),
    ],
)
def test_lists_that_do_not_fit_are_named(file: str, lines: list[str], message: str, flat: Path) -> None:
    write_lines(flat / file, lines)
    with pytest.raises(DataError, match=message) as caught:
        load_imagenet(str(flat))
    assert file in str(caught.value)


def test_a_devkit_that_does_not_fit_is_named(flat: Path) -> None:
    devkit(flat)
    source = flat / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    source.write_text("5\n1\n1\n1\n")
    with pytest.raises(DataError, match="class '5' is not in .*meta.mat"):
        load_imagenet(str(flat))
    savemat(source.parent / "meta.mat", {"synsets": np.zeros((1, 2), [("WNID", object)])})
    with pytest.raises(DataError, match="meta.mat: 'synsets' has no fields"):
        load_imagenet(str(flat))


def test_folders_must_be_wordnet_numbers(tmp_path: Path) -> None:
    imagenet(tmp_path)
    (tmp_path / "imagenet" / "train" / "n01440764").rename(tmp_path / "imagenet" / "train" / "tench")
    with pytest.raises(DataError, match="train/tench: no WordNet number .*image_folder"):
        load_imagenet(str(tmp_path))


def test_imagenette_is_known_by_its_ten_classes(tmp_path: Path) -> None:
    imagenette(tmp_path)
    shutil.rmtree(tmp_path / "imagenette2" / "train" / "n03028079")
    with pytest.raises(DataError, match="looked for the ten folders of Imagenette; n03028079 is missing or too many"):
        load_imagenette(str(tmp_path))
    (tmp_path / "imagenette2-160").mkdir()
    with pytest.raises(DataError, match="holds imagenette2 and imagenette2-160"):
        load_imagenette(str(tmp_path))


def test_real_imagenette() -> None:
    root = real_folder("imagenette2", "imagenette2-112", "imagenette2-160", "imagenette2-320")
    train, test, classes, _, _ = load_imagenette(str(root))
    assert (len(train), len(test), classes) == (9469, 3925, 10)
    # The publisher's counts by class, tench to parachute.
    assert np.bincount(train.labels).tolist() == [963, 955, 993, 858, 941, 956, 961, 931, 951, 960]
    assert np.bincount(test.labels).tolist() == [387, 395, 357, 386, 409, 394, 389, 419, 399, 390]


def test_real_imagenet() -> None:
    root = real_folder("imagenet", "ILSVRC2012")
    train, test, classes, _, _ = load_imagenet(str(root))
    assert (len(train), len(test), classes) == (1_281_167, 50_000, 1000)
