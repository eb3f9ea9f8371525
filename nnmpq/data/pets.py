"""Oxford-IIIT Pet from its images and lists."""

from __future__ import annotations

from pathlib import Path

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import FileParts, ImageFiles, as_parts, check_files, check_names, read_lines, read_subset
from nnmpq.data.image_folder import find_folder

# In the order of the publisher's class numbers, 1 to 37; image names begin with them.
BREEDS = (
    *("Abyssinian", "american_bulldog", "american_pit_bull_terrier", "basset_hound", "beagle", "Bengal", "Birman"),
    *("Bombay", "boxer", "British_Shorthair", "chihuahua", "Egyptian_Mau", "english_cocker_spaniel"),
    *("english_setter", "german_shorthaired", "great_pyrenees", "havanese", "japanese_chin", "keeshond", "leonberger"),
    *("Maine_Coon", "miniature_pinscher", "newfoundland", "Persian", "pomeranian", "pug", "Ragdoll", "Russian_Blue"),
    *("saint_bernard", "samoyed", "scottish_terrier", "shiba_inu", "Siamese", "Sphynx", "staffordshire_bull_terrier"),
    *("wheaten_terrier", "yorkshire_terrier"),
)


def _read(root: Path, part: str) -> ImageFiles:
    source = root / "annotations" / f"{part}.txt"
    subset, names, labels = read_subset(root), [], []
    for line in read_lines(source):
        if line.startswith("#"):
            continue
        name, number = (*line.split(), "")[:2]
        if not number.isdecimal() or not 1 <= int(number) <= len(BREEDS):
            raise DataError(f"{source}: {line!r}: a name and a class from 1 to {len(BREEDS)} are needed")
        breed = BREEDS[int(number) - 1]
        if name.rpartition("_")[0] != breed:
            raise DataError(f"{source}: {name!r} cannot be of class {number}, which is {breed!r}")
        if subset is None or f"{name}.jpg" in subset:
            names.append(f"images/{name}.jpg")
            labels.append(int(number) - 1)
    check_names(names, source)
    check_files(root, names, source)
    return ImageFiles.of(root, names, labels, BREEDS)


def load_oxford_iiit_pet(data_dir: str | None = None) -> FileParts:
    """Return 3,680 training and 3,669 test images, the number of breeds, offset and scale of the pixels.

    Args:
        data_dir: folder with images/ and annotations/, or its parent; default is what NNMPQ_DATA names.

    Raises:
        DataError: it has another layout, is damaged or images are missing.

    Source:
        Parkhi, Vedaldi, Zisserman and Jawahar, "Cats and Dogs", 2012.
    """
    needed = (("annotations/trainval.txt",), ("annotations/test.txt",), ("images",))
    root = find_folder("Oxford-IIIT Pet", data_dir, ("oxford-iiit-pet", "oxford_iiit_pet", "pets"), needed)
    return as_parts(_read(root, "trainval"), _read(root, "test"))
