"""The export target `integer`: the program as one file that numpy reads, with its reader beside it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import numpy as np

from nnmpq.export.integer import interpret
from nnmpq.export.integer.pack import packed_bytes
from nnmpq.export.integer.program import Convolve, ExportError, Program
from nnmpq.export.integer.saved import save
from nnmpq.export.integer.sheet import sheet
from nnmpq.export.trained import Trained
from nnmpq.export.verification import Verification, allowed_share, differing
from nnmpq.files import atomic_write

PROGRAM = "program.npz"
READER = "interpret.py"
SHEET = "sizes.txt"
# Numbers of all tensors that are held at once, of each of several kinds: large images go through a few at a time.
LARGEST_ELEMENTS = 2**24
Run = Callable[[np.ndarray], "dict[str, np.ndarray]"]


def write(trained: Trained, folder: Path) -> list[Path]:
    """Write the program, the script that reads and runs it, and what it takes layer by layer.

    Args:
        trained: what to export.
        folder: where to.
    """
    program = trained.program()
    save(program, folder / PROGRAM)
    atomic_write(folder / READER, inspect.getsource(interpret))
    atomic_write(folder / SHEET, sheet(program))
    return [folder / PROGRAM, folder / READER, folder / SHEET]


def packed_weight_bytes(program: Program) -> int:
    """Return the bytes of all packed weights."""
    layers = [operation for operation in program.operations if isinstance(operation, Convolve)]
    return sum(packed_bytes(layer.weights.size, layer.bits) for layer in layers)


def compare(target: str, trained: Trained, program: Program, run: Run, files: list[Path], *notes: str) -> Verification:
    """Compare the whole numbers of an artefact with the trained network, level for level, a batch at a time.

    Args:
        target: name of the export.
        trained: the network and its images.
        program: steps of the tensors.
        run: the artefact: pixels uint8 (N, C, H, W) to numbers of every tensor, int64 (N, C, H, W).
        files: what is handed over.
        notes: lines to print.
    """
    output = program.tensors[program.output]
    images = compared = different = same = 0
    apart = 0.0
    for pixels, levels, trained_logits in _parts(trained, sum(t.elements for t in program.tensors.values())):
        values = run(pixels)
        found = {t.name: (values[t.name] * t.step).astype(np.float32) for t in program.sites}
        counts = differing(found, {name: levels[name] for name in found})
        logits = values[output.name].reshape(trained_logits.shape) * output.step
        images, compared, different = images + len(pixels), compared + counts[0], different + counts[1]
        apart = max(apart, float(np.max(np.abs(logits - trained_logits))))
        same += int(np.sum(logits.argmax(1) == trained_logits.argmax(1)))
    return Verification(
        target,
        images,
        compared,
        different,
        allowed_share([t.step for t in program.tensors.values()]),
        apart,
        same / images,
        packed_weight_bytes(program),
        trained.weight_bytes,
        {path.name: path.stat().st_size for path in files},
        notes,
    )


def _parts(trained: Trained, elements: int) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]]:
    """Give what `Trained.batches` gives, as many images at a time as `LARGEST_ELEMENTS` allows."""
    count = max(LARGEST_ELEMENTS // elements, 1)
    for pixels, levels, logits in trained.batches():
        for first in range(0, len(pixels), count):
            part = slice(first, first + count)
            yield pixels[part], {name: numbers[part] for name, numbers in levels.items()}, logits[part]


def verify(trained: Trained, folder: Path) -> Verification:
    """Run the written program on real images beside the trained network; arguments as of `write`."""
    try:
        saved = interpret.load(folder / PROGRAM)
    except ValueError as error:
        raise ExportError(str(error)) from error
    run = functools.partial(interpret.run, saved)
    return compare("integer", trained, trained.program(), run, [folder / PROGRAM])
