"""From the functions that compute on a quantizer's few parameters to instructions."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import attrs
import nnabla as nn
import numpy as np

from nnmpq.graph.accelerate import scalar_kernels as op
from nnmpq.graph.functions import parameter_names

# Larger tensors gain nothing from being run as one.
LARGEST_TENSOR = 4096
# By type name: the opcode, and the argument that is its constant.
UNARY: dict[str, tuple[int, str]] = {
    "Identity": (op.COPY, ""),
    "Reshape": (op.COPY, ""),
    "MaximumScalar": (op.MAXIMUM, "val"),
    "MinimumScalar": (op.MINIMUM, "val"),
    "AddScalar": (op.SHIFT, "val"),
    "MulScalar": (op.SCALE, "val"),
    "PowScalar": (op.POWER, "val"),
    "RPowScalar": (op.EXPONENTIAL, "val"),
    "RDivScalar": (op.RECIPROCAL, "val"),
    "Log": (op.LOGARITHM, ""),
    "Round": (op.ROUND, ""),
    "Ceil": (op.CEILING, ""),
    "ReLU": (op.RECTIFY, ""),
}
BINARY = {"Add2": op.ADD, "Sub2": op.SUBTRACT, "Mul2": op.MULTIPLY, "Div2": op.DIVIDE}
REDUCTIONS = {"Sum": op.SUM, "Max": op.LARGEST}


def _supported(function: Any) -> bool:
    name, inputs, outputs = function.info.type_name, function.inputs, function.outputs
    if len(outputs) != 1 or any(v.size > LARGEST_TENSOR for v in (*inputs, *outputs)):
        return False
    if name in BINARY:
        return all(v.size in (1, outputs[0].size) for v in inputs)
    if name in REDUCTIONS:
        return outputs[0].size == 1
    return name in UNARY or name == "Stack" or name == "Constant"


@attrs.frozen(eq=False)
class Program:
    """Instructions with what they read and hand over.

    Args:
        code: shape (instructions, 7), int64.
        constants: shape (instructions,), float32.
        registers: how many numbers there are.
        inputs: leaves of the graph, with the register of their first number.
        outputs: variables that others read, likewise.
        functions: what is replaced.
    """

    code: np.ndarray
    constants: np.ndarray
    registers: int
    inputs: tuple[tuple[nn.Variable, int], ...]
    outputs: tuple[tuple[nn.Variable, int], ...]
    functions: tuple[Any, ...]


@attrs.define(eq=False)
class _Compiler:
    places: dict[nn.Variable, int] = attrs.field(factory=dict)
    rows: list[tuple[int, ...]] = attrs.field(factory=list)
    constants: list[float] = attrs.field(factory=list)
    registers: int = 0

    def place(self, v: nn.Variable) -> int:
        if v not in self.places:
            self.places[v] = self.registers
            self.registers += v.size
        return self.places[v]

    def emit(
        self,
        opcode: int,
        out: int,
        count: int,
        a: int,
        a_step: int = 1,
        b: int = 0,
        b_step: int = 0,
        constant: float = 0.0,
    ) -> None:
        self.rows.append((opcode, out, count, a, a_step, b, b_step))
        self.constants.append(constant)

    def add(self, function: Any) -> None:
        name, given, out = function.info.type_name, function.info.args, function.outputs[0]
        operands = [self.place(v) for v in function.inputs]
        target, count = self.place(out), out.size
        stopped = not out.need_grad and any(v.need_grad for v in function.inputs)
        if stopped:
            # Its gradient goes to registers that nobody reads.
            target = self.registers
            self.registers += count
        if name == "Constant":
            self.emit(op.CONSTANT, target, count, target, constant=given["val"])
        elif name == "Stack":
            for index, (operand, v) in enumerate(zip(operands, function.inputs)):
                self.emit(op.COPY, target + index * v.size, v.size, operand)
        elif name in REDUCTIONS:
            self.emit(REDUCTIONS[name], target, function.inputs[0].size, operands[0])
        elif name in BINARY:
            steps = [int(v.size > 1) for v in function.inputs]
            self.emit(BINARY[name], target, count, operands[0], steps[0], operands[1], steps[1])
        else:
            opcode, key = UNARY[name]
            self.emit(opcode, target, count, operands[0], constant=given[key] if key else 0.0)
        if stopped:
            self.emit(op.STOP, self.places[out], count, target)


def compile_scalars(functions: Sequence[Any], keep: Set[nn.Variable]) -> Program | None:
    """Compile what depends on parameters alone and is small.

    Args:
        functions: of a graph, in execution order.
        keep: variables that are read from outside.

    Returns:
        The program; None where there are fewer than two such functions.
    """
    parameters = parameter_names()
    computed: set[nn.Variable] = set()
    chosen = []

    def known(v: nn.Variable) -> bool:
        # A leaf that is no parameter and wants no gradient is a constant, or an input: those have an axis of images.
        return v in computed or (v.parent is None and (v.data in parameters or v.ndim <= 1))

    for function in functions:
        if _supported(function) and all(known(v) for v in function.inputs):
            chosen.append(function)
            computed.add(function.outputs[0])
    if len(chosen) < 2:
        return None
    inside = set(chosen)
    compiler = _Compiler()
    leaves = dict.fromkeys(v for f in chosen for v in f.inputs if v not in computed)
    for leaf in leaves:
        compiler.place(leaf)
    for function in chosen:
        compiler.add(function)
    read = {v for f in functions if f not in inside for v in f.inputs}
    outputs = [v for v in computed if v in read or v in keep or v.persistent]
    outputs.sort(key=lambda v: compiler.places[v])
    return Program(
        np.array(compiler.rows, np.int64),
        np.array(compiler.constants, np.float32),
        compiler.registers,
        tuple((v, compiler.places[v]) for v in leaves),
        tuple((v, compiler.places[v]) for v in outputs),
        tuple(chosen),
    )
