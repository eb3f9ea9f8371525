"""The export target `nnb`: one binary file for Sony's C runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from nnmpq.export.nnablart import levels, runtime
from nnmpq.export.nnablart.compare import compare
from nnmpq.export.nnablart.convert import nnb, prepared
from nnmpq.export.nnablart.nnb import read_nnb
from nnmpq.export.nnablart.stored import Machine
from nnmpq.export.trained import Trained
from nnmpq.export.verification import Verification
from nnmpq.files import atomic_write
from nnmpq.graph.bake import bake

NAME = "model.nnb"
READ_BACK = "read back; its functions ran in nnabla, one image at a time, in the buffers that the file gives them"


def write(trained: Trained, folder: Path, api: int = levels.DEFAULT) -> list[Path]:
    """Write the file.

    Args:
        trained: what to export.
        folder: where to.
        api: API level that the runtime accepts.

    Raises:
        ExportError: the runtime, or the level, lacks a function.
    """
    atomic_write(folder / NAME, nnb(prepared(bake(trained.quantized)), api))
    return [folder / NAME]


def verify(trained: Trained, folder: Path) -> Verification:
    """Read the file back and run it beside the trained network; in the runtime too, where that is installed."""
    path = folder / NAME
    data = path.read_bytes()
    stored, level = read_nnb(data)
    machine = Machine(stored)
    notes = [f"API level {level}; {stored.buffer_bytes:,} bytes of buffers", READ_BACK]
    with tempfile.TemporaryDirectory() as temporary:
        run = machine.run
        if runtime.installed():
            notes.append(f"ran in {runtime.PROGRAM} too")

            def run(image: np.ndarray) -> np.ndarray:
                return both(machine.run(image), runtime.infer(path, image, Path(temporary)))
        else:
            notes.append(f"NOT run in nnabla-c-runtime: no {runtime.PROGRAM} on the PATH")
        return compare("nnb", trained, run, stored.weight_bytes, {NAME: len(data)}, *notes)


def both(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return logits that two ways of running gave; NaN, which equals nothing, where they differ."""
    flat = first.ravel()
    return np.where(flat == second.ravel(), flat, np.float32(np.nan)) if flat.shape == second.shape else flat * np.nan
