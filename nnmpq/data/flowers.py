"""Oxford Flowers-102 from its images and two .mat files."""

from __future__ import annotations

import numpy as np

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import FileParts, ImageFiles, as_parts, check_files, concatenate, read_mat, read_subset
from nnmpq.data.image_folder import find_folder

FOLDERS = ("flowers-102", "flowers102", "102flowers", "oxford-102-flowers")
CLASSES = 102
PARTS = {"train": "trnid", "validation": "valid", "test": "tstid"}


def read_flowers102(data_dir: str | None = None) -> dict[str, ImageFiles]:
    """Return the publisher's three parts: 1,020 training, 1,020 validation and 6,149 test images.

    Classes have numbers instead of names, "1" to "102", as the publisher gives them.

    Args:
        data_dir: folder with jpg/, imagelabels.mat and setid.mat, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: it has another layout, is damaged or images are missing.
    """
    needed = (("imagelabels.mat",), ("setid.mat",), ("jpg",))
    root = find_folder("Oxford Flowers-102", data_dir, FOLDERS, needed)
    classes = read_mat(root / "imagelabels.mat", "labels")
    if classes.ndim != 1 or classes.dtype.kind not in "iuf" or not np.all((classes >= 1) & (classes <= CLASSES)):
        raise DataError(f"{root / 'imagelabels.mat'}: 'labels' are not all from 1 to {CLASSES}")
    subset, taken, parts = read_subset(root), np.zeros(len(classes), bool), {}
    for part, variable in PARTS.items():
        numbers = read_mat(root / "setid.mat", variable)
        if numbers.dtype.kind not in "iuf" or not np.all((numbers >= 1) & (numbers <= len(classes))):
            raise DataError(f"{root / 'setid.mat'}: {variable!r} are not all from 1 to {len(classes)}")
        indices = np.sort(numbers.astype(np.int64)) - 1
        if taken[indices].any() or len(np.unique(indices)) < len(indices):
            raise DataError(f"{root / 'setid.mat'}: an image of {variable!r} is named twice")
        taken[indices] = True
        files = {f"image_{index + 1:05d}.jpg": index for index in indices}
        chosen = [name for name in files if subset is None or name in subset]
        names = [f"jpg/{name}" for name in chosen]
        check_files(root, names, root / "setid.mat")
        labels = [int(classes[files[name]]) - 1 for name in chosen]
        parts[part] = ImageFiles.of(root, names, labels, [str(number) for number in range(1, CLASSES + 1)])
    return parts


def load_flowers102(data_dir: str | None = None) -> FileParts:
    """Return the images to learn from, the publisher's training and validation parts together, and those of the test.

    Args:
        data_dir: folder with jpg/, imagelabels.mat and setid.mat, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: it has another layout, is damaged or images are missing.

    Source:
        Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", 2008.
    """
    parts = read_flowers102(data_dir)
    return as_parts(concatenate(parts["train"], parts["validation"]), parts["test"])
