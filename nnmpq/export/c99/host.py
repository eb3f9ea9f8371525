"""The C network on this machine: compile it, run it on images, get every tensor back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnmpq.export.c99.example import TRACER, channels_last
from nnmpq.export.c99.forms import forms
from nnmpq.export.integer.pack import unpack
from nnmpq.export.integer.program import ExportError, Program

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COMPILERS = ("cc", "gcc", "clang")
LIMIT = 600  # seconds


def compiler() -> str | None:
    """Return the C compiler of this machine: the environment variable CC, else the first of `COMPILERS` there is."""
    wanted = os.environ.get("CC")
    return shutil.which(wanted) if wanted else next((p for p in map(shutil.which, COMPILERS) if p), None)


def build(folder: str | Path, flags: Sequence[str] = ("-O2",), output: str | Path | None = None) -> Path:
    """Compile a written network with a main that writes out every tensor.

    Args:
        folder: with network.c and network.h.
        flags: for the compiler; its warnings are errors.
        output: the program; beside the sources if None.

    Raises:
        ExportError: there is no compiler, or it complains.
    """
    found = compiler()
    if found is None:
        raise ExportError(f"no C compiler: none of CC, {', '.join(COMPILERS)} is installed")
    folder = Path(folder)
    made = Path(output) if output is not None else folder / "tracer"
    made.parent.mkdir(parents=True, exist_ok=True)
    tracer = made.with_suffix(".c")
    tracer.write_text(TRACER)
    command = [found, *WARNINGS, *flags, "-DNETWORK_TRACE", f"-I{folder}", str(tracer), str(folder / "network.c")]
    done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise ExportError(f"{' '.join(command)}: {done.stderr.strip()[:2000]}")
    return made


def run(
    executable: str | Path, program: Program, images: np.ndarray, pack_activations: bool = False
) -> dict[str, np.ndarray]:
    """Run a built network on images.

    Args:
        executable: from `build`.
        program: what the network was written from: names, types and shapes of its tensors.
        images: uint8, shape (N, C, H, W).
        pack_activations: as of `nnmpq.export.c99.source.source`.

    Returns:
        What every operation wrote, by tensor, int64, shape (N, C, H, W).

    Raises:
        ExportError: it fails, or writes less than it should.
    """
    pixels = channels_last(images).tobytes()
    done = subprocess.run([str(executable)], input=pixels, capture_output=True, timeout=LIMIT)
    if done.returncode:
        raise ExportError(f"{executable} ended with {done.returncode}: {done.stderr.decode(errors='replace')[:2000]}")
    return numbers_of(done.stdout, program, len(images), str(executable), pack_activations)


def numbers_of(
    output: bytes, program: Program, images: int, where: str, pack_activations: bool = False
) -> dict[str, np.ndarray]:
    """Return what a traced network wrote, by tensor, int64, shape (N, C, H, W).

    Args:
        output: the bytes.
        program: names, types and shapes of the tensors.
        images: how many were run.
        where: name for messages.
        pack_activations: as of `nnmpq.export.c99.source.source`.

    Raises:
        ExportError: it is less or more than it should be.
    """
    written = [program.tensors[operation.output] for operation in program.operations]
    made = forms(program, pack_activations)
    fields = [(str(i), np.dtype(np.uint8), made[t.name].bytes(t.elements)) for i, t in enumerate(written)]
    record = np.dtype(fields)
    if len(output) != record.itemsize * images:
        raise ExportError(f"{where} wrote {len(output)} bytes, not {record.itemsize * images}")
    found = np.frombuffer(output, record)
    numbers = {}
    for place, tensor in enumerate(written):
        lines = np.ascontiguousarray(found[str(place)].reshape(images, -1))
        form = made[tensor.name]
        if form.bits:
            flat = np.stack([unpack(line, form.bits, tensor.elements) for line in lines]).astype(np.int64) + form.low
        else:
            flat = lines.view(np.dtype(tensor.type)).astype(np.int64)
        channels, rows, columns = tensor.shape
        numbers[tensor.name] = flat.reshape(images, rows, columns, channels).transpose(0, 3, 1, 2)
    return numbers
