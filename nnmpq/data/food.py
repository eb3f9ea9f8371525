"""Food-101 from its images and lists."""

from __future__ import annotations

from pathlib import Path

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import FileParts, ImageFiles, as_parts, check_files, check_names, read_lines, read_subset
from nnmpq.data.image_folder import find_folder
from nnmpq.files import nearest


def _read(root: Path, part: str, class_names: list[str]) -> ImageFiles:
    source = root / "meta" / f"{part}.txt"
    numbers = {name: number for number, name in enumerate(class_names)}
    subset, lines, labels = read_subset(root), [], []
    for line in read_lines(source):
        if subset is not None and f"{line}.jpg" not in subset:
            continue
        name = line.rpartition("/")[0]
        if name not in numbers:
            raise DataError(f"{source}: {line!r} is of no class; the nearest is {nearest(name, class_names)!r}")
        lines.append(f"images/{line}.jpg")
        labels.append(numbers[name])
    check_names(lines, source)
    check_files(root, lines, source)
    return ImageFiles.of(root, lines, labels, class_names)


def load_food101(data_dir: str | None = None) -> FileParts:
    """Return 75,750 training and 25,250 test images, the number of classes, offset and scale of the pixels.

    Args:
        data_dir: folder with images/<class>/ and meta/, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: it has another layout, is damaged or images are missing.

    Source:
        Bossard, Guillaumin and Van Gool, "Food-101: Mining Discriminative Components with Random Forests", 2014.
    """
    needed = (("meta/classes.txt",), ("meta/train.txt",), ("meta/test.txt",), ("images",))
    root = find_folder("Food-101", data_dir, ("food-101", "food101"), needed)
    class_names = read_lines(root / "meta" / "classes.txt")
    return as_parts(_read(root, "train", class_names), _read(root, "test", class_names))
