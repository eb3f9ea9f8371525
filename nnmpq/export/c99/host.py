"""The C network on this machine: compile it, run it on images, get every tensor back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnmpq.export.c99.example import TRACER, channels_last
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


def run(executable: str | Path, program: Program, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run a built network on images.

    Args:
        executable: from `build`.
        program: what the network was written from: names, types and shapes of its tensors.
        images: uint8, shape (N, C, H, W).

    Returns:
        What every operation wrote, by tensor, int64, shape (N, C, H, W).

    Raises:
        ExportError: it fails, or writes less than it should.
    """
    pixels = channels_last(images).tobytes()
    done = subprocess.run([str(executable)], input=pixels, capture_output=True, timeout=LIMIT)
    if done.returncode:
        raise ExportError(f"{executable} ended with {done.returncode}: {done.stderr.decode(errors='replace')[:2000]}")
    return numbers_of(done.stdout, program, len(images), str(executable))


def numbers_of(output: bytes, program: Program, images: int, where: str) -> dict[str, np.ndarray]:
    """Return what a traced network wrote, by tensor, int64, shape (N, C, H, W).

    Args:
        output: the bytes.
        program: names, types and shapes of the tensors.
        images: how many were run.
        where: name for messages.

    Raises:
        ExportError: it is less or more than it should be.
    """
    written = [program.tensors[operation.output] for operation in program.operations]
    fields = [(str(i), np.dtype(t.type), (*t.shape[1:], t.shape[0])) for i, t in enumerate(written)]
    record = np.dtype(fields)
    if len(output) != record.itemsize * images:
        raise ExportError(f"{where} wrote {len(output)} bytes, not {record.itemsize * images}")
    found = np.frombuffer(output, record)
    return {t.name: found[str(i)].transpose(0, 3, 1, 2).astype(np.int64) for i, t in enumerate(written)}
