"""Images that stay in their files: which ones, and their classes, in a few flat arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nnmpq.data.errors import DataError
from nnmpq.data.extract import safe_path

LARGEST_LIST = 64 * 2**20
# A folder that holds only some of the publisher's images names them here, one a line, file name first.
SUBSET_FILE = "subset.txt"


@attrs.frozen(eq=False)
class ImageFiles:
    """Images in files, and their classes; 45 bytes an image where a path is 31 long, whatever their number.

    Args:
        root: folder that all names are relative to.
        names: uint8, the names one after the other as the file system encodes them, "/" between folders.
        starts: int64, shape (N,): where a name starts in `names`.
        lengths: uint16, shape (N,): its bytes.
        labels: int32, shape (N,), 0 to len(class_names) - 1.
        class_names: names of the classes.
        boxes: int32, shape (N, 4): left, top, right, bottom in pixels from 0, the last two exclusive; None for
            whole images.

    Raises:
        DataError: shapes, types or classes do not fit together.

    Example:
        >>> files = ImageFiles.of(Path("pets"), ["cat/1.jpg", "dog/1.jpg"], [0, 1], ["cat", "dog"])
        >>> len(files), files.path(1).as_posix(), files.take(np.array([1])).labels.tolist()
        (2, 'pets/dog/1.jpg', [1])
    """

    root: Path
    names: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    boxes: np.ndarray | None = None

    def __attrs_post_init__(self) -> None:
        types = {"names": np.uint8, "starts": np.int64, "lengths": np.uint16, "labels": np.int32}
        for name, dtype in types.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1 or (name != "names" and len(array) != len(self.labels)):
                raise DataError(f"{self.root}: {name!r} is no {np.dtype(dtype)} array with one entry an image")
        if self.boxes is not None and (self.boxes.dtype != np.int32 or self.boxes.shape != (len(self), 4)):
            raise DataError(f"{self.root}: 'boxes' is no int32 array of shape ({len(self)}, 4)")
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise DataError(f"{self.root}: classes are not all from 0 to {len(self.class_names) - 1}")
        if len(self) and (self.starts.min() < 0 or (self.starts + self.lengths).max() > len(self.names)):
            raise DataError(f"{self.root}: a name leads out of 'names'")

    @classmethod
    def of(
        cls,
        root: Path,
        names: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        class_names: Iterable[str],
        boxes: Any = None,
    ) -> ImageFiles:
        """Make one from a list of names.

        Args:
            root: folder that the names are relative to.
            names: N names, "/" between folders.
            labels: N classes.
            class_names: names of the classes.
            boxes: N boxes or None.
        """
        encoded = [os.fsencode(name) for name in names]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        if len(encoded) and lengths.max() > np.iinfo(np.uint16).max:
            raise DataError(f"{root}: a name of {lengths.max()} bytes is too long")
        return cls(
            root,
            np.frombuffer(b"".join(encoded), np.uint8),
            np.cumsum(lengths) - lengths,
            lengths.astype(np.uint16),
            np.asarray(labels, np.int32).reshape(len(encoded)),
            tuple(class_names),
            None if boxes is None else np.asarray(boxes, np.int32).reshape(-1, 4),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Return an image's name below the root."""
        start = self.starts[index]
        return os.fsdecode(self.names[start : start + self.lengths[index]].tobytes())

    def names_digest(self) -> np.ndarray:
        """Return the SHA-256 of all names in their order, uint8, shape (32,)."""
        total = hashlib.sha256()
        for start, length in zip(self.starts.tolist(), self.lengths.tolist()):
            total.update(self.names[start : start + length].tobytes() + b"\0")
        return np.frombuffer(total.digest(), np.uint8)

    def path(self, index: int) -> Path:
        """Return an image's file."""
        return self.root / self.name(index)

    def take(self, indices: np.ndarray) -> ImageFiles:
        """Return the images at these indices; their names are shared, not copied."""
        return attrs.evolve(
            self,
            starts=self.starts[indices],
            lengths=self.lengths[indices],
            labels=self.labels[indices],
            boxes=None if self.boxes is None else self.boxes[indices],
        )


def concatenate(first: ImageFiles, second: ImageFiles) -> ImageFiles:
    """Return the images of both, those of the first in front.

    Raises:
        DataError: they differ in root or classes, or one alone has boxes.
    """
    if (first.root, first.class_names) != (second.root, second.class_names):
        raise DataError(f"{first.root} and {second.root}: images of different folders or classes are not one part")
    if (first.boxes is None) != (second.boxes is None):
        raise DataError(f"{first.root}: one part has boxes, the other has none")
    return ImageFiles(
        first.root,
        np.concatenate([first.names, second.names]),
        np.concatenate([first.starts, second.starts + len(first.names)]),
        np.concatenate([first.lengths, second.lengths]),
        np.concatenate([first.labels, second.labels]),
        first.class_names,
        None if first.boxes is None or second.boxes is None else np.concatenate([first.boxes, second.boxes]),
    )


FileParts = tuple[ImageFiles, ImageFiles, int, float, float]


def as_parts(train: ImageFiles, test: ImageFiles) -> FileParts:
    """Return what a loader returns: both parts, number of classes, offset and scale of the pixels."""
    return train, test, len(train.class_names), 127.5, 127.5


def read_lines(path: Path) -> list[str]:
    """Return the lines of a publisher's list that are not empty, without white space at their ends.

    Raises:
        DataError: it cannot be read, is no UTF-8 text or is larger than any list.
    """
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise DataError(f"{path}: {path.stat().st_size} bytes are no list of images")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_mat(path: Path, variable: str) -> np.ndarray:
    """Return one variable of a .mat file, axes of length 1 taken off, at least one axis left.

    Args:
        path: a MATLAB 5 file.
        variable: its name.

    Raises:
        DataError: the file is missing, damaged or without the variable.
    """
    from scipy.io import loadmat  # slow to import, and few sets need it

    try:
        if path.stat().st_size > LARGEST_LIST:
            raise DataError(f"{path}: {path.stat().st_size} bytes are no list of images")
        document = loadmat(str(path), squeeze_me=True)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path}: damaged or no .mat file: {error}") from error
    if variable not in document:
        there = ", ".join(name for name in document if not name.startswith("__"))
        raise DataError(f"{path}: holds no {variable!r}, only {there or 'nothing'}")
    return np.atleast_1d(np.asarray(document[variable]))


def read_subset(root: Path) -> frozenset[str] | None:
    """Return the file names that `subset.txt` in a folder narrows the publisher's lists to; None without that file."""
    path = root / SUBSET_FILE
    return frozenset(line.split()[0] for line in read_lines(path)) if path.is_file() else None


def check_names(names: Iterable[str], source: Path) -> None:
    """Refuse names from a list that lead out of the data set's folder.

    Args:
        names: as the list has them.
        source: the list.

    Raises:
        DataError: one is empty, absolute or has ".."; names it and the list.
    """
    for name in names:
        try:
            inside = safe_path(name).parts
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
        if not inside:
            raise DataError(f"{source}: {name!r} is no name of an image")


def check_files(root: Path, names: Sequence[str], source: Path) -> None:
    """Check that every image of a list is there; each folder is read once.

    Args:
        root: folder that the names are relative to.
        names: as `check_names` left them.
        source: the list.

    Raises:
        DataError: images are missing: how many, the first, and what to do.
    """
    present: dict[str, frozenset[str]] = {}
    missing = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in present:
            path = root / folder
            present[folder] = frozenset(os.listdir(path) if path.is_dir() else ())
        if file not in present[folder]:
            missing.append(name)
    if missing:
        raise DataError(
            f"{source}: {len(missing):,} of its {len(names):,} images are not in {root}, the first is {missing[0]}; "
            f"where only some are wanted, name them in {root / SUBSET_FILE}, one a line"
        )
