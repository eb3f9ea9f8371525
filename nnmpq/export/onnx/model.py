"""The parts of an ONNX file as they are collected: nodes, constants, and what each tensor is called."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from nnmpq.export.integer.pack import pack
from nnmpq.export.integer.program import ExportError, Program, Tensor

OPSET = 21
# The first container that holds the numbers is taken: name in ONNX, smallest and largest number.
WEIGHT_TYPES = (("INT4", -8, 7), ("INT8", -128, 127), ("INT16", -(2**15), 2**15 - 1), ("INT32", -(2**31), 2**31 - 1))
ACTIVATION_TYPES = (("UINT8", 0, 255), ("INT8", -128, 127), ("INT16", -(2**15), 2**15 - 1))
BITS = {"INT4": 4, "INT8": 8, "INT16": 16, "INT32": 32}


def onnx_module() -> Any:
    """Return the package onnx.

    Raises:
        ExportError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ExportError("the package onnx is not installed: pip install nnmpq[onnx]") from error
    return onnx


def container(low: int, high: int, types: tuple[tuple[str, int, int], ...]) -> tuple[str, int, int] | None:
    """Return the first of some types that holds every number from low to high, None where none does.

    Example:
        >>> container(-7, 7, WEIGHT_TYPES), container(0, 300, ACTIVATION_TYPES)[0]
        (('INT4', -8, 7), 'INT16')
    """
    return next((kind for kind in types if kind[1] <= low and high <= kind[2]), None)


def is_power_of_two(number: float) -> bool:
    """Whether a positive number is 2^k.

    Example:
        >>> is_power_of_two(0.25), is_power_of_two(0.3)
        (True, False)
    """
    return bool(np.frexp(number)[0] == 0.5)


def scale_of(tensor: Tensor) -> float:
    """Return the tensor's step where it is a power of two, else 1: what is stored then are whole numbers."""
    return float(tensor.step) if is_power_of_two(tensor.step) else 1.0


@attrs.frozen
class Value:
    """A float tensor of the file: a number n of the program stands there as n * scale.

    Args:
        name: in the file.
        scale: a power of two, so that the product is exact.
    """

    name: str
    scale: float


@attrs.define(eq=False)
class Model:
    """An ONNX graph in the making; lives for one call of `nnmpq.export.onnx.write.model_of`."""

    program: Program
    nodes: list[Any] = attrs.field(factory=list)
    constants: dict[str, Any] = attrs.field(factory=dict)
    values: dict[str, Value] = attrs.field(factory=dict)
    stored: dict[str, tuple[str, str]] = attrs.field(factory=dict)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node; return the name of its output."""
        made = onnx_module().helper.make_node(kind, inputs, [output], name=f"{output}:{kind}", **attributes)
        self.nodes.append(made)
        return output

    def constant(self, name: str, numbers: Any, type_: Any = np.float32) -> str:
        """Store a constant; return its name."""
        self.constants[name] = onnx_module().numpy_helper.from_array(np.array(numbers, type_), name)
        return name

    def integers(self, name: str, numbers: np.ndarray, kind: str) -> str:
        """Store whole numbers of a type of `WEIGHT_TYPES`; return the constant's name."""
        onnx = onnx_module()
        # Two numbers a byte, the first in the lower half.
        raw = pack(numbers & 15, 4) if kind == "INT4" else numbers.astype(np.dtype(kind.lower()))
        type_ = getattr(onnx.TensorProto, kind)
        self.constants[name] = onnx.helper.make_tensor(name, type_, numbers.shape, raw.tobytes(), raw=True)
        return name

    def times(self, name: str, factor: Any, output: str) -> str:
        """Multiply by a number, or by one a channel; by 1 nothing is written."""
        numbers = np.asarray(factor, np.float32)
        if np.all(numbers == 1):
            return name
        return self.node("Mul", [name, self.constant(f"{output}/factor", numbers)], output)
