"""nnabla-c-runtime itself, where it is installed: its program on an NNB, its library under CSRC."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnmpq.export.c99 import host
from nnmpq.export.integer.program import ExportError

PROGRAM = "nnablart"
LIMIT = 600  # seconds


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise ExportError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[:1000]}")


def _output(folder: Path, program: str) -> np.ndarray:
    # The runtime adds a number to the name that it is given.
    path = folder / "logits_0.bin"
    if not path.is_file():
        raise ExportError(f"{program} wrote no logits")
    return np.frombuffer(path.read_bytes(), np.float32)


def infer(nnb: Path, image: np.ndarray, folder: Path) -> np.ndarray:
    """Run an NNB in the runtime's own program.

    Args:
        nnb: the file.
        image: float32, one image.
        folder: for input and output.

    Raises:
        ExportError: it fails.
    """
    (folder / "image.bin").write_bytes(np.ascontiguousarray(image, np.float32).tobytes())
    _run([PROGRAM, "infer", str(nnb.resolve()), "image.bin", "logits"], folder)
    return _output(folder, PROGRAM)


def installed() -> bool:
    """Return whether the runtime's program is on the PATH."""
    return shutil.which(PROGRAM) is not None


def compiled(source: Path, folder: Path) -> Path | None:
    """Compile CSRC against the runtime; None where its headers are not among the compiler's (CPATH, LIBRARY_PATH).

    Args:
        source: folder of the C source.
        folder: for the program.

    Raises:
        ExportError: the compiler complains.
    """
    compiler = host.compiler()
    if compiler is None:
        return None
    probe = folder / "probe.c"
    probe.write_text("#include <nnablart/functions.h>\n")
    found = subprocess.run([compiler, "-fsyntax-only", str(probe)], capture_output=True, timeout=LIMIT)
    if found.returncode:
        return None
    made = folder / "network"
    files = [str(path.resolve()) for path in sorted(source.glob("main_*.c"))]
    _run([compiler, "-O2", *files, "-lnnablart_functions", "-lm", "-o", str(made)], folder)
    return made


def execute(program: Path, image: np.ndarray, folder: Path) -> np.ndarray:
    """Run what `compiled` made; arguments and errors as of `infer`."""
    (folder / "image.bin").write_bytes(np.ascontiguousarray(image, np.float32).tobytes())
    _run([str(program.resolve()), "image.bin", "logits"], folder)
    return _output(folder, program.name)
