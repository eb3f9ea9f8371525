"""The export target `csrc`: C source that calls the functions of Sony's C runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from nnmpq.export.integer.program import ExportError
from nnmpq.export.nnablart import runtime
from nnmpq.export.nnablart.compare import compare
from nnmpq.export.nnablart.convert import csrc, prepared
from nnmpq.export.nnablart.csrc import INFERENCE, PARAMETERS, read_csrc
from nnmpq.export.nnablart.nnb_target import READ_BACK, both
from nnmpq.export.nnablart.stored import Machine
from nnmpq.export.trained import Trained
from nnmpq.export.verification import Verification
from nnmpq.files import atomic_write
from nnmpq.graph.bake import bake


def write(trained: Trained, folder: Path) -> list[Path]:
    """Write the files of nnabla's converter; arguments and errors as of the target `nnb`."""
    texts = csrc(prepared(bake(trained.quantized)))
    for name, text in texts.items():
        atomic_write(folder / name, text)
    return [folder / name for name in texts]


def verify(trained: Trained, folder: Path) -> Verification:
    """Read the source back and run it beside the trained network; compiled too, where the runtime is installed."""
    paths = [folder / name for name in (INFERENCE, PARAMETERS)]
    if not all(path.is_file() for path in paths):
        raise ExportError(f"{folder}: {INFERENCE} or {PARAMETERS} is missing: export again")
    stored = read_csrc({path.name: path.read_text() for path in paths})
    machine = Machine(stored)
    notes = [f"{stored.constant_bytes:,} bytes of constants, {stored.buffer_bytes:,} of buffers", READ_BACK]
    with tempfile.TemporaryDirectory() as temporary:
        program = runtime.compiled(folder, Path(temporary))
        run = machine.run
        if program is not None:
            notes.append("compiled, linked to nnabla-c-runtime and run too")
            made = program

            def run(image: np.ndarray) -> np.ndarray:
                return both(machine.run(image), runtime.execute(made, image, Path(temporary)))
        else:
            notes.append("NOT compiled: the compiler finds no nnablart/functions.h (CPATH, LIBRARY_PATH)")
        sizes = {path.name: path.stat().st_size for path in paths}
        return compare("csrc", trained, run, stored.weight_bytes, sizes, *notes)
