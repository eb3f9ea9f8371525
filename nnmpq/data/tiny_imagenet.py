"""Tiny ImageNet: class folders to learn from, one folder and a list to test on."""

from __future__ import annotations

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import FileParts, ImageFiles, as_parts, check_files, check_names, read_lines
from nnmpq.data.image_folder import find_folder, index_classes
from nnmpq.files import nearest

FOLDERS = ("tiny-imagenet-200", "tiny-imagenet")


def load_tiny_imagenet(data_dir: str | None = None) -> FileParts:
    """Return 100,000 training images and the 10,000 of val/, number of classes, offset and scale of the pixels.

    The publisher's test/ has no classes, so val/ is the test part; what validates is held out from training. Classes
    are numbered in the order of their WordNet numbers.

    Args:
        data_dir: folder with train/<wnid>/images/ and val/, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: it has another layout, is damaged or images are missing.

    Source:
        Stanford CS231n, Tiny ImageNet Visual Recognition Challenge, 2015.
    """
    needed = (("val/val_annotations.txt",), ("val/images",), ("wnids.txt",), ("train",))
    root = find_folder("Tiny ImageNet", data_dir, FOLDERS, needed)
    train = index_classes(root, "train")
    listed = sorted(read_lines(root / "wnids.txt"))
    if listed != list(train.class_names):
        odd = sorted(set(listed) ^ set(train.class_names)) or ["a class named twice"]
        raise DataError(f"{root / 'wnids.txt'}: does not list the folders of {root / 'train'}: {odd[0]}")
    source = root / "val" / "val_annotations.txt"
    numbers = {name: number for number, name in enumerate(listed)}
    names, labels = [], []
    for line in read_lines(source):
        name, wnid = (*line.split("\t"), "")[:2]
        if wnid not in numbers:
            raise DataError(f"{source}: {line!r}: no class {wnid!r}; the nearest is {nearest(wnid, listed)!r}")
        names.append(f"val/images/{name}")
        labels.append(numbers[wnid])
    check_names(names, source)
    check_files(root, names, source)
    return as_parts(train, ImageFiles.of(root, names, labels, listed))
