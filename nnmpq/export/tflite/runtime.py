"""A TensorFlow Lite file in TFLM's interpreter, with what stands in every tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nnmpq.export.integer.program import ExportError
from nnmpq.export.tflite.file import IDENTIFIER, schema
from nnmpq.export.tflite.graph import Quantized

# Beside the tensors: what the interpreter keeps of each, and INT4 weights while they are unpacked.
SPARE = 2**20


@attrs.frozen(eq=False)
class Content:
    """What a file holds.

    Args:
        tensors: the INT8 tensors without data, by name, (channels, rows, columns).
        places: their places.
        weight_bytes: bytes of the data of each tensor of weights, by name.
        arena: bytes that all tensors take at once.
    """

    tensors: dict[str, Quantized]
    places: dict[str, int]
    weight_bytes: dict[str, int]
    arena: int


def other_network(path: Path, name: str) -> ExportError:
    """Return the error of a file that lacks a tensor, or has it on another grid."""
    return ExportError(f"{path}: the file has another tensor {name!r}, or none: it is another network's; export again")


def read(data: bytes, path: Path) -> Content:
    """Read a file's tensors.

    Args:
        data: its bytes.
        path: its name, for messages.

    Raises:
        ExportError: it is no TensorFlow Lite file, or tflite-micro is not installed.
    """
    kinds = schema()
    try:
        if data[4:8] != IDENTIFIER:
            raise ValueError(f"it begins with {data[:8]!r}")
        model = kinds.ModelT.InitFromObj(kinds.Model.GetRootAs(data, 0))
        graph = model.subgraphs[0]
        tensors, places, weights, arena = {}, {}, {}, 0
        for place, tensor in enumerate(graph.tensors):
            name, shape = tensor.name.decode(), [int(size) for size in tensor.shape]
            stored = model.buffers[tensor.buffer].data
            arena += 2 * int(np.prod(shape))
            if stored is not None and len(stored):
                weights[name] = len(stored)
            else:
                quantization = tensor.quantization
                scale, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
                tensors[name] = Quantized(name, (shape[3], shape[1], shape[2]), scale, zero)
                places[name] = place
    except Exception as error:  # struct.error, IndexError and others: the schema's classes check nothing
        raise ExportError(f"{path}: no TensorFlow Lite file can be read: {str(error)[:200]}") from error
    return Content(tensors, places, weights, arena)


@attrs.define(eq=False)
class Runtime:
    """A file in TFLM's interpreter; one image at a time.

    Args:
        data: the file.
        content: what `read` found in it.
    """

    data: bytes
    content: Content
    _interpreter: Any = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        from tflite_micro import runtime

        keep = runtime.InterpreterConfig.kPreserveAllTensors
        arena = self.content.arena + SPARE
        try:
            self._interpreter = runtime.Interpreter.from_bytes(self.data, None, arena, keep)
        except RuntimeError as error:
            raise ExportError(f"TFLM does not take the file: {error}") from error

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return what stands in every tensor, as `nnmpq.export.tflite.simulate.run`."""
        first = next(iter(self.content.tensors.values()))
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.content.tensors}
        for image in pixels:
            stored = (image.astype(np.int16) + first.zero).astype(np.int8).transpose(1, 2, 0)
            self._interpreter.set_input(np.ascontiguousarray(stored[None]), 0)
            self._interpreter.invoke()
            for name, place in self.content.places.items():
                found[name].append(np.array(self._interpreter.GetTensor(place, 0)["tensor_data"]))
        shapes = {name: tensor.shape for name, tensor in self.content.tensors.items()}
        return {
            name: np.stack(parts)
            .reshape(len(parts), *shapes[name][1:], shapes[name][0])
            .transpose(0, 3, 1, 2)
            .astype(np.int64)
            for name, parts in found.items()
        }
