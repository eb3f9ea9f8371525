"""The saved form of an integer program: one `.npz` that numpy alone reads."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nnmpq.export.integer import interpret
from nnmpq.export.integer.pack import pack
from nnmpq.export.integer.program import Convolve, MaxPool, Operation, Program, Requantiser, Select, kind_of
from nnmpq.export.integer.requantise import Levels
from nnmpq.files import atomic_write


def requantiser_entry(made: Requantiser) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a requantiser as `interpret.requantise` takes it: plain numbers and arrays."""
    numbers = {"levels": made.levels, "low": made.low}
    arrays = {"multiplier": made.multiplier, "bias": made.bias, "shift": made.shift}
    if made.edges is not None and made.values is not None:
        arrays.update(edges=made.edges, values=made.values)
    if len(made.exception_sum):
        for name in ("exception_channel", "exception_sum", "exception_correction"):
            arrays[name] = getattr(made, name)
    return numbers, arrays


def levels_of(made: Requantiser) -> Levels:
    """Return a requantiser as a function: sums, int64 (K, C), to levels, from 0 on.

    Example:
        >>> halves = Requantiser(np.array([2], np.int32), np.array([3]), np.array([2], np.uint8), 8, -4)
        >>> levels_of(halves)(np.array([[0], [1], [5]])).ravel().tolist()  # (2 s + 3) >> 2
        [0, 1, 3]
    """
    numbers, arrays = requantiser_entry(made)
    if made.values is not None:
        arrays = {**arrays, "values": np.arange(made.levels)}

    def level_of(sums: np.ndarray) -> np.ndarray:
        found = interpret.requantise(sums[:, :, None, None], arrays, {**numbers, "low": 0})[:, :, 0, 0]
        return np.asarray(found)

    return level_of


def _entry(operation: Operation, program: Program) -> dict[str, Any]:
    """One operation as the interpreter takes it: plain numbers, and arrays under "arrays"."""
    entry: dict[str, Any] = {"kind": kind_of(operation), "arrays": {}}
    for field in attrs.fields(type(operation)):
        value = getattr(operation, field.name)
        if isinstance(value, Requantiser):
            numbers, arrays = requantiser_entry(value)
            entry.update(numbers)
            entry["arrays"].update(arrays)
        elif not isinstance(value, np.ndarray):
            entry[field.name] = list(value) if isinstance(value, tuple) else value
    if isinstance(operation, Convolve):
        entry["shape"] = list(operation.weights.shape)
        entry["arrays"].update(weights=pack(operation.weights, operation.bits), numbers=operation.levels)
    if isinstance(operation, MaxPool):
        entry["size"] = list(program.tensors[operation.output].shape[1:])
    if isinstance(operation, Select):
        entry["channels"] = program.tensors[operation.output].shape[0]
    return entry


def as_saved(program: Program) -> dict[str, Any]:
    """Return a program as `interpret.load` returns it."""
    tensors = [
        {**attrs.asdict(tensor), "shape": list(tensor.shape), "step": float(tensor.step)}
        for tensor in program.tensors.values()
    ]
    return {
        "format": interpret.FORMAT,
        "name": program.name,
        "tensors": tensors,
        "operations": [_entry(operation, program) for operation in program.operations],
        "output": program.output,
    }


def save(program: Program, path: str | Path) -> None:
    """Write a program; the file holds no pickle and is renamed into place when it is complete.

    Args:
        program: what to write.
        path: file, ending in ".npz".
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"{path}: the name of a saved program ends in .npz")
    whole = as_saved(program)
    members: dict[str, np.ndarray] = {}
    for place, entry in enumerate(whole["operations"]):
        for name, array in entry.pop("arrays").items():
            members[f"{place}/{name}"] = array
    manifest = np.frombuffer(json.dumps(whole, indent=1).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, manifest=manifest, **members)
    atomic_write(path, stream.getvalue())


def run(program: Program, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Run a program in numpy; see `nnmpq.export.integer.interpret.run`."""
    return interpret.run(as_saved(program), pixels)
