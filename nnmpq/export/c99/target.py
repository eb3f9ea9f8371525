"""The export target `c99`: a folder that compiles anywhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

import attrs
import numpy as np

from nnmpq.export.c99 import arm, host, speed
from nnmpq.export.c99.example import MAIN, MAKEFILE, vectors
from nnmpq.export.c99.forms import forms, sizes
from nnmpq.export.c99.source import source
from nnmpq.export.integer import target as integer
from nnmpq.export.integer.program import ExportError
from nnmpq.export.integer.sheet import sheet
from nnmpq.export.trained import Trained
from nnmpq.export.verification import Verification
from nnmpq.files import atomic_write

VECTORS = 4


def write(trained: Trained, folder: Path, pack_activations: bool = False) -> list[Path]:
    """Write network.c, network.h, an example main, test vectors, a Makefile and a sheet of sizes and times.

    Args:
        trained: what to export.
        folder: where to.
        pack_activations: whether maps of at most 4 bits are packed in memory.
    """
    program = trained.program()
    made = source(program, pack_activations)
    texts = {
        "network.h": made.header,
        "network.c": made.code,
        "vectors.h": vectors(program, trained.images[:VECTORS]),
        "main.c": MAIN,
        "Makefile": MAKEFILE,
        integer.SHEET: sheet(program, sizes(program, forms(program, pack_activations)))
        + speed.sheet(program, pack_activations),
    }
    for name, text in texts.items():
        atomic_write(folder / name, text)
    return [folder / name for name in texts]


def verify(trained: Trained, folder: Path, core: str | None = None) -> Verification:
    """Compile what was written, and run it on real images beside the trained network.

    Args:
        trained: the network and its images.
        folder: what was written.
        core: of `arm.BOARDS`, to run it on in QEMU; None for this machine.

    Raises:
        ExportError: there is no C compiler, it complains, or network.c is not what would be written now.
    """
    program = trained.program()
    text = (folder / "network.c").read_text()
    packed = next((pack for pack in (False, True) if source(program, pack).code == text), None)
    if packed is None:
        raise ExportError(f"{folder / 'network.c'}: it was written from another model; export again")
    made = source(program, packed)
    notes = [
        f"flash: {made.weight_bytes:,} bytes of weights, {made.table_bytes:,} of tables, and the code",
        f"memory: {made.ram_bytes:,} bytes, static" + (", maps of at most 4 bits packed" if packed else ""),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "tracer"
        if core is None:
            executable = host.build(folder, ("-O2",), output)
        else:
            executable = arm.build(folder, core, output)
            notes.append(f"run on a {core} in QEMU, {arm.BOARDS[core]}")

        def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
            if core is None:
                return host.run(executable, program, pixels, packed)
            return arm.run(executable, core, program, pixels, packed)

        found = integer.compare("c99", trained, program, run, [folder / "network.c"], *notes)
    return attrs.evolve(found, weight_bytes=made.weight_bytes)
