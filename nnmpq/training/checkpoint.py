"""Checkpoints: a folder each, complete or not there at all, refused when damaged.

``checkpoint/epoch-0007/`` holds ``parameters.npz`` and ``solvers.npz`` (exact float32), ``state.json``
(experiment, progress) and ``manifest.json`` with the SHA-256 of the three. It is written under a temporary
name, flushed to disk and renamed; only then is the one before removed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nnmpq.training.errors import CheckpointError

FORMAT = 1
FOLDER = "checkpoint"
PARAMETERS, SOLVERS, STATE, MANIFEST = "parameters.npz", "solvers.npz", "state.json", "manifest.json"
_NAME = re.compile(r"epoch-(\d{4,})")
_TEMPORARY = ".partial"


@attrs.frozen(eq=False)
class Checkpoint:
    """Everything that a run needs to go on as if nothing had happened.

    Args:
        parameters: all parameters by name.
        solvers: what `SolverGroups.states` returned.
        state: JSON-able: experiment, data, progress.
    """

    parameters: Mapping[str, np.ndarray]
    solvers: Mapping[str, np.ndarray]
    state: Mapping[str, Any]


def save(run_folder: Path, number: int, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then remove the ones before.

    Args:
        run_folder: the run's folder.
        number: grows with every checkpoint of a run.
        checkpoint: what to keep.

    Returns:
        The checkpoint's folder.
    """
    parent = run_folder / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"epoch-{number:04d}"
    temporary = parent / f"{final.name}{_TEMPORARY}"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    contents = {
        PARAMETERS: _pack(checkpoint.parameters),
        SOLVERS: _pack(checkpoint.solvers),
        STATE: json.dumps(checkpoint.state, indent=1).encode(),
    }
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[MANIFEST] = json.dumps({"format": FORMAT, "sha256": sums}, indent=1).encode()
    for name, content in contents.items():
        with open(temporary / name, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    _flush_folder(temporary)
    os.rename(temporary, final)
    _flush_folder(parent)
    for path in _folders(parent):
        if path != final:
            shutil.rmtree(path)
    return final


def latest(run_folder: Path) -> Path | None:
    """Return the last complete checkpoint of a run, None without one; half-written ones are removed."""
    parent = run_folder / FOLDER
    if not parent.is_dir():
        return None
    for path in parent.glob(f"*{_TEMPORARY}"):
        shutil.rmtree(path)
    found = _folders(parent)
    return found[-1] if found else None


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint, whole or not at all.

    Raises:
        CheckpointError: a file is missing, damaged, or of another version; names it and says what to do.
    """
    manifest = _json(folder, MANIFEST, _content(folder, MANIFEST))
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), dict):
        raise _damaged(folder / MANIFEST, "it is no list of checksums")
    if manifest.get("format") != FORMAT:
        raise _damaged(folder / MANIFEST, f"format {manifest.get('format')}, this version reads {FORMAT}")
    contents = {}
    for name in (PARAMETERS, SOLVERS, STATE):
        contents[name] = _content(folder, name)
        if hashlib.sha256(contents[name]).hexdigest() != manifest["sha256"].get(name):
            raise _damaged(folder / name, "it is not what was written (checksum)")
    state = _json(folder, STATE, contents[STATE])
    return Checkpoint(_unpack(contents[PARAMETERS]), _unpack(contents[SOLVERS]), state)


def _folders(parent: Path) -> list[Path]:
    numbered = [(int(match[1]), path) for path in parent.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    # The slash keeps any name from meeting savez's own arguments.
    np.savez(stream, **{f"/{name}": array for name, array in arrays.items()})
    return stream.getvalue()


def _unpack(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name[1:]: archive[name] for name in archive.files}


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise _damaged(folder / name, error.strerror or str(error)) from error


def _json(folder: Path, name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise _damaged(folder / name, f"no JSON: {error}") from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: the checkpoint cannot be used: {reason}; remove {path.parent} and resume, "
        "or run without --resume: both start anew"
    )
