"""A list of small image files, and what tests of the pipeline ask of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image

from nnmpq.data.image_settings import ImageSettings
from nnmpq.data.pipeline import file_training_batches
from nnmpq.data.transforms import CentreCrop

COUNT = 23


@attrs.frozen(eq=False)
class Listed:
    """A list of image files in its simplest form."""

    paths: list[Path]
    labels: np.ndarray
    boxes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> Path:
        return self.paths[index]


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (12 + index % 5, 14 + index % 3, 3)).astype(np.uint8)


def write_files(folder: Path) -> Listed:
    """Write `COUNT` images."""
    paths = [folder / f"image{index}.png" for index in range(COUNT)]
    for index, path in enumerate(paths):
        Image.fromarray(pixels(index)).save(path)
    return Listed(paths, np.arange(COUNT, dtype=np.int32))


def settings(**options: Any) -> ImageSettings:
    chosen = {"evaluation": CentreCrop(9), "output": "uint8", "prefetch": 2, "fill": 7, **options}
    return ImageSettings(height=8, width=9, **chosen)


def spoil(files: Listed, *indices: int) -> None:
    for index in indices:
        files.paths[index].write_bytes(files.paths[index].read_bytes()[:40])


def epoch(
    files: Listed, chosen: ImageSettings, number: int = 0, size: int = 5, seed: int = 3, **options: Any
) -> list[Any]:
    return list(file_training_batches(files, chosen, size, seed=seed, epoch=number, **options))


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)


def children() -> set[int]:
    """This process' children, without the one that Python keeps for as long as it lives to watch shared memory."""
    tasks = Path("/proc/self/task").iterdir()
    found = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    return {pid for pid in found if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def happens(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
