"""Stanford Cars from its images and the .mat files of its devkit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import FileParts, ImageFiles, as_parts, check_files, check_names, read_mat, read_subset
from nnmpq.data.image_folder import find_folder

FOLDERS = ("stanford_cars", "stanford-cars", "cars")
META = ("devkit/cars_meta.mat",)
# The publisher's devkit has the test images without their classes; those came later, in a file beside the folders.
ANNOTATIONS = {
    "train": ("devkit/cars_train_annos.mat",),
    "test": ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat"),
}
BOX_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
TEST_EVERY = 5
IMAGES_LOOKED_AT = 16


def read_stanford_cars(root: Path, part: str, *, boxes: bool = False) -> ImageFiles:
    """Return one part of the publisher's: 8,144 training or 8,041 test images, 196 classes.

    Args:
        root: folder with cars_train/, cars_test/ and devkit/.
        part: "train" or "test".
        boxes: give the box around each car too; not for images that are cropped to it already.

    Raises:
        DataError: one of the files is missing or damaged, or images are missing.
    """
    class_names = [str(name) for name in read_mat(root / META[0], "class_names")]
    source = next((root / name for name in ANNOTATIONS[part] if (root / name).exists()), root / ANNOTATIONS[part][0])
    rows = read_mat(source, "annotations")
    for field in ("class", "fname", *BOX_FIELDS):
        if field not in (rows.dtype.names or ()):
            raise DataError(f"{source}: 'annotations' has no field {field!r}")
    try:
        files = [str(row) for row in rows["fname"]]
        labels = rows["class"].astype(np.int32) - 1
        around = np.stack([rows[field].astype(np.int32) for field in BOX_FIELDS], 1) - [1, 1, 0, 0]
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: a class or box is no number: {error}") from error
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise DataError(f"{source}: 'class' is not from 1 to {len(class_names)}")
    if np.any(around[:, :2] < 0) or np.any(around[:, 2:] <= around[:, :2]):
        raise DataError(f"{source}: a 'bbox' is no box")
    subset = read_subset(root)
    # Names repeat between the parts, so that a subset is one of the training images.
    chosen = np.array([i for i, name in enumerate(files) if subset is None or name in subset], np.int64)
    names = [f"cars_{part}/{files[i]}" for i in chosen]
    check_names(names, source)
    check_files(root, names, source)
    found = ImageFiles.of(root, names, labels[chosen], class_names, around[chosen] if boxes else None)
    if boxes:
        check_not_cropped(found)
    return found


def check_not_cropped(files: ImageFiles) -> None:
    """Check of the first images that their boxes lie in them: copies that are cropped already are going round.

    Raises:
        DataError: a box does not.
    """
    if files.boxes is None:
        return
    for index in range(min(len(files), IMAGES_LOOKED_AT)):
        try:
            with Image.open(files.path(index)) as image:
                width, height = image.size
        except OSError:
            continue  # whether it can be decoded is not asked here
        _, _, right, bottom = files.boxes[index].tolist()
        if right > width or bottom > height:
            raise DataError(
                f"{files.path(index)}: {width}x{height} pixels do not hold its box, which ends at {right}, {bottom}; "
                "these images are cropped to their boxes already: read them without boxes"
            )


def every_fifth(files: ImageFiles) -> tuple[ImageFiles, ImageFiles]:
    """Divide in two: the second gets the fifth, tenth, ... image of each class, always the same ones.

    Example:
        >>> rest, fifth = every_fifth(ImageFiles.of(Path("."), list("abcdef"), [0, 1, 0, 0, 0, 0], ["x", "y"]))
        >>> [rest.name(i) for i in range(len(rest))], fifth.name(0)
        (['a', 'b', 'c', 'd', 'e'], 'f')
    """
    held = np.zeros(len(files), bool)
    for label in np.unique(files.labels):
        held[np.flatnonzero(files.labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return files.take(np.flatnonzero(~held)), files.take(np.flatnonzero(held))


def load_stanford_cars(data_dir: str | None = None, *, boxes: bool = False) -> FileParts:
    """Return 8,144 training and 8,041 test images, the number of classes, offset and scale of the pixels.

    A folder that declares itself a subset (subset.txt) and has no cars_test/ gives every fifth training image of a
    class as the test part; accuracies on that are not comparable with published ones.

    Args:
        data_dir: folder with cars_train/, cars_test/ and devkit/, or its parent; default is what NNMPQ_DATA names.
        boxes: give the box around each car too; not for images that are cropped to it already.

    Raises:
        DataError: it has another layout, is damaged or images are missing.

    Source:
        Krause, Stark, Deng and Fei-Fei, "3D Object Representations for Fine-Grained Categorization", 2013.
    """
    learn = (META, ANNOTATIONS["train"], ("cars_train",))
    root = find_folder("Stanford Cars", data_dir, FOLDERS, learn)
    train = read_stanford_cars(root, "train", boxes=boxes)
    if read_subset(root) is not None and not (root / "cars_test").exists():
        return as_parts(*every_fifth(train))
    find_folder("Stanford Cars", str(root), (), (*learn, ANNOTATIONS["test"], ("cars_test",)))
    return as_parts(train, read_stanford_cars(root, "test", boxes=boxes))
