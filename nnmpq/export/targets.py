"""The targets that a run is exported to: each a module with `write(trained, folder)` and `verify(trained, folder)`."""

from __future__ import annotations

from types import ModuleType

from nnmpq.export import nnp_target
from nnmpq.export.c99 import target as c99
from nnmpq.export.integer import target as integer
from nnmpq.export.nnablart import csrc_target, nnb_target
from nnmpq.export.onnx import target as onnx
from nnmpq.export.tflite import target as tflite

TARGETS: dict[str, ModuleType] = {
    "c99": c99,
    "nnp": nnp_target,
    "nnb": nnb_target,
    "csrc": csrc_target,
    "integer": integer,
    "onnx": onnx,
    "tflite": tflite,
}
