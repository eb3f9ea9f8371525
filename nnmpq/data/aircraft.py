"""FGVC-Aircraft from its images and variant lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import (
    FileParts,
    ImageFiles,
    as_parts,
    check_files,
    check_names,
    concatenate,
    read_lines,
    read_subset,
)
from nnmpq.data.image_folder import find_folder
from nnmpq.files import nearest

FOLDERS = ("fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b", "fgvc-aircraft/data", "data")
PARTS = {"train": "train", "validation": "val", "test": "test"}


def read_boxes(source: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return the box around each aircraft: left, top, right, bottom in pixels from 0, the last two exclusive.

    Args:
        source: images_box.txt, which counts pixels from 1 and includes the last.

    Raises:
        DataError: a line is no image and four numbers.
    """
    boxes = {}
    for line in read_lines(source):
        name, *numbers = line.split()
        if len(numbers) != 4 or not all(number.isdecimal() for number in numbers):
            raise DataError(f"{source}: {line!r}: an image and four numbers are needed")
        left, top, right, bottom = map(int, numbers)
        if not (1 <= left <= right and 1 <= top <= bottom):
            raise DataError(f"{source}: {line!r} is no box")
        boxes[name] = (left - 1, top - 1, right, bottom)
    return boxes


def read_fgvc_aircraft(data_dir: str | None = None, *, boxes: bool = False) -> dict[str, ImageFiles]:
    """Return the publisher's three parts, 3,334 training, 3,333 validation and 3,333 test images, by 100 variants.

    The lowest 20 rows of each image are a banner that names its owner; the boxes leave it out.

    Args:
        data_dir: folder with images/ and the lists, or a parent of it; default is what NNMPQ_DATA names.
        boxes: give the box around each aircraft too.

    Raises:
        DataError: it has another layout, is damaged or images are missing.
    """
    lists = [(f"images_variant_{list_name}.txt",) for list_name in PARTS.values()]
    needed = [("variants.txt",), *lists, ("images",), *([("images_box.txt",)] if boxes else [])]
    root = find_folder("FGVC-Aircraft", data_dir, FOLDERS, needed)
    variants = read_lines(root / "variants.txt")
    numbers = {name: number for number, name in enumerate(variants)}
    around = read_boxes(root / "images_box.txt") if boxes else {}
    subset, parts = read_subset(root), {}
    for part, list_name in PARTS.items():
        source = root / f"images_variant_{list_name}.txt"
        images, labels = [], []
        for line in read_lines(source):
            image, _, variant = line.partition(" ")
            if variant not in numbers:
                raise DataError(f"{source}: {line!r}: no such variant; the nearest is {nearest(variant, variants)!r}")
            if boxes and image not in around:
                raise DataError(f"{root / 'images_box.txt'}: has no box for {image!r} of {source.name}")
            if subset is None or f"{image}.jpg" in subset:
                images.append(image)
                labels.append(numbers[variant])
        names = [f"images/{image}.jpg" for image in images]
        check_names(names, source)
        check_files(root, names, source)
        chosen = np.array([around[image] for image in images], np.int32) if boxes else None
        parts[part] = ImageFiles.of(root, names, labels, variants, chosen)
    return parts


def load_fgvc_aircraft(data_dir: str | None = None, *, boxes: bool = False) -> FileParts:
    """Return the images to learn from, the publisher's training and validation parts together, and those of the test.

    Args:
        data_dir: folder with images/ and the lists, or a parent of it; default is what NNMPQ_DATA names.
        boxes: give the box around each aircraft too.

    Raises:
        DataError: it has another layout, is damaged or images are missing.

    Source:
        Maji, Rahtu, Kannala, Blaschko and Vedaldi, "Fine-Grained Visual Classification of Aircraft", 2013.
    """
    parts = read_fgvc_aircraft(data_dir, boxes=boxes)
    return as_parts(concatenate(parts["train"], parts["validation"]), parts["test"])
