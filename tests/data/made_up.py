"""Small folders in the layouts of the publishers, with a handful of images each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from nnmpq.data.image_files import ImageFiles
from nnmpq.data.imagenet import IMAGENETTE

# Of each part, image name -> name of its class.
Parts = tuple[dict[str, str], dict[str, str]]


def picture(path: Path, size: tuple[int, int] = (20, 16)) -> None:
    """Write an image of width and height `size`, of one colour that follows from its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.random.default_rng(list(os.fsencode(path.name))).integers(0, 256, 3)
    Image.new("RGB", size, tuple(colour.tolist())).save(path)


def pictures(root: Path, names: list[str]) -> None:
    for name in names:
        picture(root / name)


def listed(files: ImageFiles) -> dict[str, str]:
    return {files.name(i): files.class_names[files.labels[i]] for i in range(len(files))}


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def class_folders(root: Path, classes: tuple[str, ...], below: str = "") -> Parts:
    parts: list[dict[str, str]] = []
    for part, count in (("train", 4), ("val", 2)):
        names = {f"{part}/{name}/{below}{name}_{i}.JPEG": name for name in classes for i in range(count)}
        pictures(root, list(names))
        parts.append(names)
    return parts[0], parts[1]


def imagenet(root: Path) -> Parts:
    return class_folders(root / "imagenet", ("n01440764", "n01443537", "n01484850"))


def imagenette(root: Path) -> Parts:
    return class_folders(root / "imagenette2", IMAGENETTE)


def image_folder(root: Path) -> Parts:
    return class_folders(root, ("cat", "dog"))


def tiny_imagenet(root: Path) -> Parts:
    root = root / "tiny-imagenet-200"
    # Unlike the folders, the publisher's list of classes is in no order.
    write_lines(root / "wnids.txt", ["n02124075", "n01443537"])
    train = {f"train/{w}/images/{w}_{i}.JPEG": w for w in ("n01443537", "n02124075") for i in range(3)}
    test = {"val/images/val_0.JPEG": "n02124075", "val/images/val_1.JPEG": "n01443537"}
    pictures(root, [*train, *test])
    lines = [f"{Path(name).name}\t{wnid}\t0\t32\t44\t62" for name, wnid in test.items()]
    write_lines(root / "val" / "val_annotations.txt", lines)
    return train, test


def flowers102(root: Path) -> Parts:
    root = root / "flowers-102"
    classes = np.array([[1, 5, 102, 5, 1, 102]])
    numbers = {"trnid": np.array([[4, 1]]), "valid": np.array([[3]]), "tstid": np.array([[2, 5, 6]])}
    pictures(root, [f"jpg/image_{i:05d}.jpg" for i in range(1, 7)])
    savemat(root / "imagelabels.mat", {"labels": classes})
    savemat(root / "setid.mat", numbers)
    # The validation part is training data too: what validates is held out from both.
    train = {"jpg/image_00001.jpg": "1", "jpg/image_00004.jpg": "5", "jpg/image_00003.jpg": "102"}
    return train, {"jpg/image_00002.jpg": "5", "jpg/image_00005.jpg": "1", "jpg/image_00006.jpg": "102"}


def oxford_iiit_pet(root: Path) -> Parts:
    root = root / "oxford-iiit-pet"
    breeds = {"Abyssinian": "1 1 1", "Birman": "7 1 3", "yorkshire_terrier": "37 2 25"}
    parts: list[dict[str, str]] = []
    for part, numbers in (("trainval", (100, 7)), ("test", (3,))):
        names = {f"{breed}_{number}": breed for breed in breeds for number in numbers}
        head = ["#Image CLASS-ID SPECIES BREED ID", "#ID: 1:37 Class ids"]
        write_lines(
            root / "annotations" / f"{part}.txt", head + [f"{name} {breeds[breed]}" for name, breed in names.items()]
        )
        parts.append({f"images/{name}.jpg": breed for name, breed in names.items()})
        pictures(root, list(parts[-1]))
    return parts[0], parts[1]


CARS = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")


def stanford_cars(root: Path) -> Parts:
    root = root / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([CARS], object)})
    parts: list[dict[str, str]] = []
    for part, numbers, file in (
        ("train", [2, 1, 2], "devkit/cars_train_annos.mat"),
        ("test", [1, 2], "cars_test_annos_withlabels.mat"),
    ):
        names = {f"cars_{part}/{i + 1:05d}.jpg": CARS[number - 1] for i, number in enumerate(numbers)}
        fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
        rows = np.zeros((1, len(numbers)), [(field, object) for field in fields])
        for i, (name, number) in enumerate(zip(names, numbers)):
            rows[0, i] = (3, 5, 18, 14, number, Path(name).name)
        savemat(root / file, {"annotations": rows})
        pictures(root, list(names))
        parts.append(names)
    return parts[0], parts[1]


VARIANTS = ("707-320", "A300B4", "F/A-18")


def fgvc_aircraft(root: Path) -> Parts:
    root = root / "fgvc-aircraft-2013b" / "data"
    write_lines(root / "variants.txt", list(VARIANTS))
    write_lines(root / "images_box.txt", [f"{number:07d} 3 5 18 14" for number in range(10)])
    contents = {"train": {0: 2, 1: 0, 2: 1}, "val": {3: 1, 4: 2}, "test": {5: 0, 6: 2, 7: 1}}
    names: dict[str, dict[str, str]] = {}
    for part, images in contents.items():
        lines = [f"{number:07d} {VARIANTS[variant]}" for number, variant in images.items()]
        write_lines(root / f"images_variant_{part}.txt", lines)
        names[part] = {f"images/{number:07d}.jpg": VARIANTS[variant] for number, variant in images.items()}
        pictures(root, list(names[part]))
    return {**names["train"], **names["val"]}, names["test"]


def food101(root: Path) -> Parts:
    root = root / "food-101"
    write_lines(root / "meta" / "classes.txt", ["apple_pie", "waffles"])
    lines = {"train": ["apple_pie/1", "waffles/2", "waffles/3"], "test": ["waffles/9", "apple_pie/8"]}
    parts = []
    for part, images in lines.items():
        write_lines(root / "meta" / f"{part}.txt", images)
        parts.append({f"images/{image}.jpg": image.split("/")[0] for image in images})
        pictures(root, list(parts[-1]))
    return parts[0], parts[1]


MADE_UP: dict[str, Callable[[Path], Parts]] = {
    "imagenet": imagenet,
    "imagenette": imagenette,
    "tiny_imagenet": tiny_imagenet,
    "flowers102": flowers102,
    "oxford_iiit_pet": oxford_iiit_pet,
    "stanford_cars": stanford_cars,
    "fgvc_aircraft": fgvc_aircraft,
    "food101": food101,
    "image_folder": image_folder,
}


def real_folder(*names: str) -> Path:
    """Return the folder that NNMPQ_DATA names where one of these is in it; skip the test otherwise."""
    root = os.environ.get("NNMPQ_DATA")
    if not root or not any((Path(root) / name).is_dir() for name in names):
        pytest.skip(f"NNMPQ_DATA names no folder with {' or '.join(names)}")
    return Path(root)
