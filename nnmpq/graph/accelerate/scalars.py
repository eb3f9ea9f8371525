"""All arithmetic on quantizer parameters and costs in one function: one each would cost more than it does."""

from __future__ import annotations

from collections.abc import Sequence

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.graph.accelerate import scalar_kernels
from nnmpq.graph.accelerate.base import CpuFunction, Scratch, view
from nnmpq.graph.accelerate.scalar_compiler import Program


class ScalarArithmetic(CpuFunction):
    """Runs a `Program`: one vector of raw parameters in, one vector of steps, ranges and costs out.

    nnabla asks a function written in Python about every pair of an input and an output at each step; one of each keeps
    that short, and its own functions put the vectors together and take them apart.
    """

    def __init__(self, scratch: Scratch, program: Program) -> None:
        super().__init__(scratch)
        self.program = program
        self.reads = _registers(program.inputs)
        self.writes = _registers(program.outputs)
        self.values = np.zeros(program.registers, np.float32)
        self.gradients = np.zeros(program.registers, np.float64)

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """All numbers are remembered."""
        return False

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """One number for each that is handed over."""
        outputs[0].reset_shape((len(self.writes),), True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Run the instructions."""
        self.values[self.reads] = view(inputs[0].data)
        scalar_kernels.forward(self.program.code, self.program.constants, self.values)
        view(outputs[0].data, True)[:] = self.values[self.writes]

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Run their gradients."""
        if not propagate_down[0]:
            return
        self.gradients[:] = 0
        self.gradients[self.writes] = view(outputs[0].grad)
        scalar_kernels.backward(self.program.code, self.program.constants, self.values, self.gradients)
        target = view(inputs[0].grad, not accumulate[0])
        found = self.gradients[self.reads]
        target[:] = target + found if accumulate[0] else found


def _registers(places: Sequence[tuple[nn.Variable, int]]) -> np.ndarray:
    return np.array([place + i for v, place in places for i in range(v.size)], np.int64)


def _joined(variables: Sequence[nn.Variable]) -> nn.Variable:
    """Small tensors as one vector."""
    if len(variables) == 1:
        return F.reshape(variables[0], (variables[0].size,), inplace=False)
    if all(v.ndim == 0 for v in variables):
        return F.stack(*variables)
    return F.concatenate(*(v if v.ndim == 1 else F.reshape(v, (v.size,), inplace=False) for v in variables), axis=0)


def _parts(vector: nn.Variable, shapes: Sequence[tuple[int, ...]]) -> list[nn.Variable]:
    """A vector's parts in these shapes."""
    if not any(shapes):
        return list(F.split(vector, axis=0)) if len(shapes) > 1 else [F.reshape(vector, ())]
    parts, first = [], 0
    for shape in shapes:
        last = first + int(np.prod(shape, dtype=np.int64))
        parts.append(F.reshape(F.slice(vector, (first,), (last,)), shape))
        first = last
    return parts


def run_scalars(scratch: Scratch, program: Program) -> dict[nn.Variable, nn.Variable]:
    """Return what stands for each variable that a program hands over."""
    made = ScalarArithmetic(scratch, program)(_joined([v for v, _ in program.inputs]))
    found = {}
    for (old, _), new in zip(program.outputs, _parts(made, [v.shape for v, _ in program.outputs])):
        if not old.need_grad:
            new.need_grad = False
        found[old] = new
    return found
