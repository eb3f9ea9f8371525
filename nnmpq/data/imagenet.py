"""ImageNet (ILSVRC 2012) and Imagenette: class folders named by WordNet numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Callable

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import FileParts, ImageFiles, as_parts, read_lines, read_mat
from nnmpq.data.image_folder import HOW, find_folder, index_classes, list_folder, with_classes
from nnmpq.files import nearest

FOLDERS = ("imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "imagenet/ILSVRC/Data/CLS-LOC")
WNID = re.compile(r"n\d{8}")
NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\.")
IMAGENETTE = (
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
)


def _class_at(words: list[str], image: str, source: Path) -> str:
    """The word of a list with a line an image, found by the number in the image's name."""
    match = NUMBERED.match(image)
    if not match or not 1 <= int(match.group(1)) <= len(words):
        raise DataError(f"{source}: has {len(words)} lines, none for {image!r} (ILSVRC2012_val_<number>.JPEG)")
    return words[int(match.group(1)) - 1]


def _by_number(source: Path, images: list[str], wnids: tuple[str, ...]) -> list[str]:
    """A line an image, in the order of the images' numbers."""
    lines = read_lines(source)
    return [_class_at(lines, image, source) for image in images]


def _devkit(source: Path, images: list[str], wnids: tuple[str, ...]) -> list[str]:
    """The publisher's: a line an image, numbers of classes that meta.mat explains."""
    rows = read_mat(source.parent / "meta.mat", "synsets")
    if not {"ILSVRC2012_ID", "WNID"} <= set(rows.dtype.names or ()):
        raise DataError(f"{source.parent / 'meta.mat'}: 'synsets' has no fields 'ILSVRC2012_ID' and 'WNID'")
    by_number = {str(int(number)): str(wnid) for number, wnid in zip(rows["ILSVRC2012_ID"], rows["WNID"])}
    numbers = _by_number(source, images, wnids)
    unknown = next((number for number in numbers if number not in by_number), None)
    if unknown is not None:
        raise DataError(f"{source}: class {unknown!r} is not in {source.parent / 'meta.mat'}")
    return [by_number[number] for number in numbers]


def _listed(source: Path, images: list[str], found: dict[str, str]) -> list[str]:
    missing = next((image for image in images if image not in found), None)
    if missing is not None:
        raise DataError(f"{source}: does not list {missing!r}; the nearest is {nearest(missing, list(found)[:1000])!r}")
    return [found[image] for image in images]


def _numbered_pairs(source: Path, images: list[str], wnids: tuple[str, ...]) -> list[str]:
    """Lines of an image and a class, from 0 in the order of the WordNet numbers."""
    found = {}
    for line in read_lines(source):
        image, number = (*line.split(), "")[:2]
        if not number.isdecimal() or int(number) >= len(wnids):
            raise DataError(f"{source}: {line!r}: an image and a class from 0 to {len(wnids) - 1} are needed")
        found[image] = wnids[int(number)]
    return _listed(source, images, found)


def _solution(source: Path, images: list[str], wnids: tuple[str, ...]) -> list[str]:
    """Lines of an image without its ending and, behind a comma, a WordNet number and a box."""
    found = {}
    for line in read_lines(source)[1:]:
        image, _, rest = line.partition(",")
        found[f"{image}.JPEG"] = (rest.split() or [""])[0]
    return _listed(source, images, found)


LabelReader = Callable[[Path, "list[str]", "tuple[str, ...]"], "list[str]"]
# Where the classes of a flat val/ may be, beside train/ and val/ or, for the last, where its archive has it.
LABEL_FILES: dict[str, LabelReader] = {
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": _devkit,
    "data/ILSVRC2012_validation_ground_truth.txt": _devkit,
    "ILSVRC2012_validation_ground_truth.txt": _devkit,
    "imagenet_2012_validation_synset_labels.txt": _by_number,
    "val.txt": _numbered_pairs,
    "LOC_val_solution.csv": _solution,
    "../../../LOC_val_solution.csv": _solution,
}


def read_flat_validation(root: Path, class_names: tuple[str, ...]) -> ImageFiles:
    """Return the images of a val/ without class folders, with the classes of the label file found first.

    Args:
        root: folder with val/ and a label file, one of `LABEL_FILES`.
        class_names: WordNet numbers as the training part numbers them.

    Raises:
        DataError: no label file is there, or it does not fit the images.
    """
    _, _, images = list_folder(root / "val")
    if not images:
        raise DataError(f"{root / 'val'}: looked for images or a folder a class, found neither")
    name = next((name for name in LABEL_FILES if (root / name).is_file()), None)
    if name is None:
        near = nearest("ILSVRC2012_validation_ground_truth.txt", sorted(os.listdir(root)))
        raise DataError(
            f"{root / 'val'}: {len(images):,} images without class folders; looked for their classes in "
            f"{', '.join(LABEL_FILES)} below {root}; the nearest thing found is {root / near}"
        )
    numbers = {wnid: number for number, wnid in enumerate(class_names)}
    labels = []
    for image, wnid in zip(images, LABEL_FILES[name](root / name, images, class_names)):
        if wnid not in numbers:
            raise DataError(
                f"{root / name}: {image} is of class {wnid!r}, which {root / 'train'} has not; "
                f"the nearest is {nearest(wnid, class_names)!r}"
            )
        labels.append(numbers[wnid])
    return ImageFiles.of(root, [f"val/{image}" for image in images], labels, class_names)


def _train(root: Path) -> ImageFiles:
    train = index_classes(root, "train")
    odd = next((name for name in train.class_names if not WNID.fullmatch(name)), None)
    if odd is not None:
        raise DataError(f"{root / 'train' / odd}: no WordNet number (n and 8 digits); for other classes: image_folder")
    return train


def load_imagenet(data_dir: str | None = None) -> FileParts:
    """Return 1,281,167 training images and the 50,000 of val/, number of classes, offset and scale of the pixels.

    The publisher's test part has no classes, so val/ is the test part here, as in the literature; what validates is
    held out from training. Classes are numbered in the order of their WordNet numbers; fewer than 1,000 are a subset.

    Args:
        data_dir: folder with train/<wnid>/ and val/<wnid>/ or a flat val/ and one of `LABEL_FILES`, or a parent of it;
            default is what NNMPQ_DATA names.

    Raises:
        DataError: it has another layout or is damaged; says what was looked for and the nearest thing found.

    Source:
        Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015.
    """
    root = find_folder("ImageNet", data_dir, FOLDERS, (("train",), ("val",)))
    train = _train(root)
    _, folders, _ = list_folder(root / "val")
    if folders:
        return as_parts(train, with_classes(index_classes(root, "val"), train.class_names, root / "val"))
    return as_parts(train, read_flat_validation(root, train.class_names))


def load_imagenette(data_dir: str | None = None) -> FileParts:
    """Return 9,469 training and 3,925 test images of ten classes, their number, offset and scale of the pixels.

    Args:
        data_dir: folder with train/<wnid>/ and val/<wnid>/, or the parent of one such folder imagenette2*; default is
            what NNMPQ_DATA names.

    Raises:
        DataError: it has another layout, or several sizes of it are there.

    Source:
        Howard, Imagenette, https://github.com/fastai/imagenette, version 2.
    """
    named = data_dir or os.environ.get("NNMPQ_DATA")
    sizes = sorted(path.name for path in Path(named).glob("imagenette*") if path.is_dir()) if named else []
    if len(sizes) > 1:
        raise DataError(f"Imagenette: {named} holds {' and '.join(sizes)}; {HOW}: one of these")
    root = find_folder("Imagenette", data_dir, sizes or ("imagenette2",), (("train",), ("val",)))
    train = _train(root)
    if train.class_names != IMAGENETTE:
        odd = sorted(set(train.class_names) ^ set(IMAGENETTE))
        raise DataError(f"{root / 'train'}: looked for the ten folders of Imagenette; {odd[0]} is missing or too many")
    return as_parts(train, with_classes(index_classes(root, "val"), IMAGENETTE, root / "val"))
