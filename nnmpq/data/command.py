"""`nnmpq data`: check a data folder, or fetch what is to be in it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from nnmpq.data import DATASETS, DataError, load
from nnmpq.data.download import fetch
from nnmpq.data.extract import LIMITS, Limits, staging, unpack
from nnmpq.data.published import Counts, remark
from nnmpq.data.sources import SOURCES, Source
from nnmpq.files import nearest

# Below the folder of all data sets, by data set: archives of two sets may have one name.
DOWNLOADS = "downloads"


def _counts(part: str, labels: np.ndarray, classes: int) -> str:
    images = np.bincount(labels, minlength=classes)
    present = images[images > 0]
    each = f"{present.min():,}" if present.min() == present.max() else f"{present.min():,} to {present.max():,}"
    return f"  {part:<12}{len(labels):>9,} images of {len(present)} classes, {each} a class"


def describe(name: str, folder: str | None) -> list[str]:
    r"""Load a data set and return what is in it: classes, a line of counts a part, and whether that is not all.

    Args:
        name: a key of `DATASETS`.
        folder: folder that it is in; None for one that comes with the package, or that NNMPQ_DATA names.

    Raises:
        DataError: it is unknown, missing, damaged or in another layout.

    Example:
        >>> print("\n".join(describe("digits", None)))
        digits: 10 classes
          train           1,437 images of 10 classes, 139 to 146 a class
          test              360 images of 10 classes, 35 to 37 a class
    """
    data = load(name, data_dir=folder)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    said = remark(name, Counts(data.classes, len(data.train), len(data.test)))
    return [
        f"{name}: {data.classes} classes",
        *(_counts(part, split.labels, data.classes) for part, split in parts.items() if len(split)),
        *([f"  {said}"] if said else []),
    ]


def install(source: Source, folder: Path, *, limits: Limits = LIMITS, quiet: bool = False) -> Path:
    """Fetch the files of a data set and unpack them; its folder is there only when it is complete.

    The archives stay below `folder`/downloads. Those that are there already, from wherever, are checked and used.

    Args:
        source: what to fetch.
        folder: the folder of all data sets.
        limits: the most that one archive may unpack to.
        quiet: no progress bar.

    Returns:
        The data set's folder.

    Raises:
        DataError: it cannot be fetched or unpacked, or its folder is there already.
    """
    target, downloads = folder / source.folder, folder / DOWNLOADS / source.folder
    if not source.files:
        raise DataError(source.note)
    if _occupied(target):
        raise DataError(f"{target}: is there already and is not overwritten; move it away to fetch it anew")
    for file in source.files:
        try:
            fetch(file.urls, downloads / file.name, size=file.size, checksum=file.checksum, quiet=quiet)
        except DataError as error:
            by_hand = f"; {source.note}, put them into {downloads} and run this again" if source.note else ""
            raise DataError(f"{error}{by_hand}") from error
    with staging(target) as temporary:
        for file in source.files:
            written = unpack(downloads / file.name, temporary / file.into, limits)
            print(f"{file.name}: {written:,} files unpacked", file=sys.stderr)
        made = temporary / source.folder
        if not made.is_dir():
            raise DataError(f"{', '.join(f.name for f in source.files)}: no folder {source.folder} came out")
        if hasattr(os, "sync"):
            os.sync()  # all files on disk before the name says that they are
        os.rename(made, target)
    print(f"{target}: complete; {downloads} is no longer needed", file=sys.stderr)
    return target


def _occupied(path: Path) -> bool:
    return path.exists() and not (path.is_dir() and next(path.iterdir(), None) is None)


def _leftovers(target: Path) -> None:
    for left in sorted(target.parent.glob(f".{target.name}.unpacking-*")):
        print(f"note: {left} is left from a killed run; delete it if no other run is using it", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """Check the folder, after fetching the data set where that is asked for and it is not there yet.

    Args:
        arguments: name, dir, download and quiet.

    Returns:
        The exit status.

    Raises:
        DataError: something is unknown, missing, damaged or cannot be fetched.
    """
    name: str = arguments.name
    folder: str | None = arguments.dir or os.environ.get("NNMPQ_DATA")
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; the nearest is {nearest(name, DATASETS)!r} of {', '.join(DATASETS)}")
    fetched = SOURCES.get(name) if arguments.download else None
    if fetched and not folder:
        raise DataError(f"{name}: where to? Name a folder by --dir or the environment variable NNMPQ_DATA")
    try:
        lines = describe(name, folder)
    except DataError as error:
        if not fetched or not folder:
            raise
        target = Path(folder) / fetched.folder
        if _occupied(target):
            raise DataError(f"{error}; move {target} away to fetch it anew") from error
        _leftovers(target)
        install(fetched, Path(folder), quiet=arguments.quiet)
        lines = describe(name, folder)
    print("\n".join(lines))
    return 0


def data(parser: argparse.ArgumentParser) -> None:
    """Check a data folder and print its counts, or fetch the data set into it."""
    parser.add_argument("name", metavar="NAME", help=f"data set: {', '.join(DATASETS)}")
    parser.add_argument("--dir", metavar="DIR", help="folder of the data sets (default: what NNMPQ_DATA names)")
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch the publisher's archives into DIR/downloads, going on with what is there, and unpack them",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)
