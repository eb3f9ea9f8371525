"""Folders of images with a folder a class: finding them, and an index that is made once."""

from __future__ import annotations

import hashlib
import io
import os
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from nnmpq.data.errors import DataError
from nnmpq.data.image_files import FileParts, ImageFiles, as_parts, concatenate
from nnmpq.files import atomic_write, nearest

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
VALIDATION_FOLDERS = ("val", "validation", "valid")
HOW = "name its folder by data_dir = in the .cfg, --data-dir, or the environment variable NNMPQ_DATA"
# Below this many images an index is quicker made than looked after.
CACHED_FROM = 10_000
CACHE_VERSION = 1
# A folder that changed so shortly before it was read may have changed again within the same tick of its clock.
SETTLED_NS = 2 * 10**9
DEEPEST = 8


def find_folder(title: str, data_dir: str | None, folders: Sequence[str], needed: Sequence[tuple[str, ...]]) -> Path:
    """Return the folder of a data set: the named one, or one of the usual names in it.

    Args:
        title: the data set, for the error.
        data_dir: what the user named; default is what NNMPQ_DATA names.
        folders: usual names below that folder, in order.
        needed: files and folders that make it out; of each tuple, one.

    Raises:
        DataError: it is not there; says what was looked for and where, and the nearest thing found.
    """
    chosen = data_dir or os.environ.get("NNMPQ_DATA")
    if not chosen:
        raise DataError(f"{title}: no data folder is named; {HOW}")
    named = Path(chosen)
    candidates = [named, *(named / folder for folder in folders)]

    def lacking(candidate: Path) -> list[tuple[str, ...]]:
        return [choice for choice in needed if not any((candidate / name).exists() for name in choice)]

    for candidate in candidates:
        if not lacking(candidate):
            return candidate
    words = ", ".join(map(_either, needed))
    looked = f"{title}: looked for {words} in {named}" + (f" and below it in {', '.join(folders)}" if folders else "")
    best = min((c for c in candidates if c.is_dir()), key=lambda c: (len(lacking(c)), c == named), default=None)
    if best is None:
        _fail(f"{looked}; there is no folder {named}", named, set())
    lost = lacking(best)[0]
    # A folder with nothing of the set in it is most likely the parent of one with another name.
    target = best / (folders[0] if best == named and folders and len(lacking(best)) == len(needed) else lost[0])
    _fail(f"{looked}; {best} has no {_either(lost)}", target, {best / name for choice in needed for name in choice})


def _either(choice: tuple[str, ...]) -> str:
    return " or ".join(choice[:2]) + (", ..." if len(choice) > 2 else "")


def _fail(message: str, target: Path, known: set[Path]) -> NoReturn:
    """Name what is most like the target of all that is where it should be, but for what is there rightly."""
    while not target.parent.is_dir():
        target = target.parent
    others = [name for name in sorted(os.listdir(target.parent)) if target.parent / name not in known]
    found = nearest(target.name, others)
    near = f"the nearest thing found is {target.parent / found}" if found else f"nothing else is in {target.parent}"
    raise DataError(f"{message}; {near}; {HOW}")


def list_folder(path: Path) -> tuple[int, list[str], list[str]]:
    """Return when a folder changed last (ns), its folders and its images, sorted; hidden ones are left out.

    Raises:
        DataError: it cannot be read.
    """
    folders, images = [], []
    try:
        changed = path.stat().st_mtime_ns
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.name.lower().endswith(ENDINGS):
                    images.append(entry.name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return changed, sorted(folders), sorted(images)


def _descend(root: Path, below: str, changed: dict[str, int], depth: int = 0) -> list[str]:
    """Names of all images below a folder; notes when each folder changed."""
    if depth > DEEPEST:
        raise DataError(f"{root / below}: more than {DEEPEST} folders deep; does a link lead back?")
    changed[below], folders, images = list_folder(root / below)
    names = [f"{below}/{name}" for name in images]
    for folder in folders:
        names += _descend(root, f"{below}/{folder}", changed, depth + 1)
    return names


def scan(root: Path, part: str) -> tuple[ImageFiles, dict[str, int]]:
    """Read the names of all images in class folders; never more than one class as a list.

    Args:
        root: folder that names are relative to.
        part: folder below it that holds a folder a class.

    Returns:
        The images, classes sorted by name, and when each folder changed last (ns).

    Raises:
        DataError: there is no class folder, or one without images.
    """
    changed: dict[str, int] = {}
    changed[part], classes, loose = list_folder(root / part)
    if not classes:
        found = f"{len(loose)} images, the first {loose[0]}" if loose else "nothing"
        raise DataError(f"{root / part}: looked for a folder a class, found {found}")
    names, lengths, counts = bytearray(), array("H"), []
    for folder in classes:
        images = _descend(root, f"{part}/{folder}", changed)
        if not images:
            raise DataError(f"{root / part / folder}: no image ({', '.join(ENDINGS)}) is in this class's folder")
        encoded = [os.fsencode(name) for name in images]
        names += b"".join(encoded)
        lengths.extend(map(len, encoded))
        counts.append(len(images))
    sizes = np.frombuffer(lengths, np.uint16)
    starts = np.zeros(len(sizes), np.int64)
    np.cumsum(sizes[:-1], out=starts[1:])
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return ImageFiles(root, np.frombuffer(names, np.uint8), starts, sizes, labels, tuple(classes)), changed


def cache_paths(root: Path, part: str) -> tuple[Path, Path]:
    """Return where an index is kept: beside the part's folder or, where that cannot be written, in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(os.fsencode((root / part).resolve())).hexdigest()
    return root / f".nnmpq-{part.replace('/', '-')}-index.npz", home / "nnmpq" / f"index-{digest[:32]}.npz"


def _pack(words: Sequence[str]) -> np.ndarray:
    return np.frombuffer(b"\0".join(map(os.fsencode, words)), np.uint8)


def _unpack(packed: np.ndarray) -> list[str]:
    return [os.fsdecode(word) for word in packed.tobytes().split(b"\0")]


def _write_cache(files: ImageFiles, part: str, changed: dict[str, int], read_at: int) -> None:
    content = io.BytesIO()
    np.savez(
        content,
        version=np.array([CACHE_VERSION, read_at]),
        folders=_pack(list(changed)),
        changed=np.array(list(changed.values()), np.int64),
        classes=_pack(files.class_names),
        names=files.names,
        starts=files.starts,
        lengths=files.lengths,
        labels=files.labels,
    )
    for path in cache_paths(files.root, part):
        try:
            atomic_write(path, content.getvalue())
        except OSError:
            continue  # read-only; without either the folder is read anew the next time
        return


def _stays_inside(files: ImageFiles, part: str) -> bool:
    """Whether every name begins with the part's folder and none goes up: a cache may have come with the data."""
    begins = all(np.all(files.names[files.starts + i] == byte) for i, byte in enumerate(os.fsencode(f"{part}/")))
    return begins and b"/../" not in files.names.tobytes()


def _read_cache(root: Path, part: str) -> ImageFiles | None:
    """The index, where it is whole and no folder has changed since."""
    for path in cache_paths(root, part):
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                version, read_at = archive["version"].tolist()
                if version != CACHE_VERSION:
                    continue
                folders, changed = _unpack(archive["folders"]), archive["changed"].tolist()
                if len(folders) != len(changed) or folders[0] != part or max(changed) > read_at - SETTLED_NS:
                    continue
                if any((root / f).stat().st_mtime_ns != then for f, then in zip(folders, changed)):
                    continue
                arrays = {name: archive[name] for name in ("names", "starts", "lengths", "labels")}
                files = ImageFiles(root=root, class_names=tuple(_unpack(archive["classes"])), **arrays)
            if _stays_inside(files, part):
                return files
        except Exception:  # a missing or damaged cache, which can raise anything, is only slower
            continue
    return None


def index_classes(root: Path, part: str) -> ImageFiles:
    """Return the images in class folders; a large index is kept in a file until one of its folders changes.

    Args:
        root: the data set's folder.
        part: folder below it that holds a folder a class.

    Raises:
        DataError: there is no class folder, or one without images.
    """
    kept = _read_cache(root, part)
    if kept is not None:
        return kept
    read_at = time.time_ns()
    files, changed = scan(root, part)
    if len(files) >= CACHED_FROM:
        _write_cache(files, part, changed, read_at)
    return files


def with_classes(files: ImageFiles, class_names: tuple[str, ...], part: Path) -> ImageFiles:
    """Return the images with their classes numbered as in another part.

    Args:
        files: the images.
        class_names: all classes, as the training part numbers them.
        part: folder of the images, for the error.

    Raises:
        DataError: a class is not among them; names it and the nearest.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    for name in files.class_names:
        if name not in numbers:
            raise DataError(f"{part / name}: no such class in training; the nearest is {nearest(name, class_names)!r}")
    table = np.array([numbers[name] for name in files.class_names], np.int32)
    return ImageFiles(files.root, files.names, files.starts, files.lengths, table[files.labels], class_names)


def load_image_folder(data_dir: str | None = None) -> FileParts:
    """Return training and test images of a folder with train/CLASS/ and test/CLASS/ or val/CLASS/.

    Where there are three parts, val is training data too: what validates is held out from that.

    Args:
        data_dir: the folder; default is what NNMPQ_DATA names.

    Raises:
        DataError: it has another layout; says what was looked for and the nearest thing found.
    """
    root = find_folder("image folder", data_dir, (), (("train",), ("test", *VALIDATION_FOLDERS)))
    train = index_classes(root, "train")
    others = [
        with_classes(index_classes(root, part), train.class_names, root / part)
        for part in (*VALIDATION_FOLDERS, "test")
        if (root / part).is_dir()
    ]
    for more in others[:-1]:
        train = concatenate(train, more)
    return as_parts(train, others[-1])
