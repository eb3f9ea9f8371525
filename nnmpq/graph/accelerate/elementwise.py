"""ReLU, ReLU6, sums and concatenation: bound by memory, on all threads."""

from __future__ import annotations

from collections.abc import Sequence

import nnabla as nn
import numpy as np

from nnmpq.graph.accelerate import elementwise_kernels as kernels
from nnmpq.graph.accelerate.base import CpuFunction, Scratch, view


class Clip(CpuFunction):
    """y = min(max(x, low), high); its gradient is told from the output."""

    def __init__(self, scratch: Scratch, low: float, high: float) -> None:
        super().__init__(scratch)
        self.low, self.high = np.float32(low), np.float32(high)

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The output tells where the gradient goes."""
        return False

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """The output tells where the gradient goes."""
        return True

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Clip."""
        kernels.clip(view(inputs[0].data), self.low, self.high, view(outputs[0].data, True))

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Let the gradient through inside."""
        if propagate_down[0]:
            y, g = view(outputs[0].data), view(outputs[0].grad)
            gx = view(inputs[0].grad, not accumulate[0])
            kernels.clip_gradient(y, g, self.low, self.high, gx, accumulate[0])


class FixedPoint(CpuFunction):
    """y = step * round(clip(x, low, high) / step); the gradient is 1, or 1 inside the range where `masked`."""

    def __init__(self, scratch: Scratch, step: float, low: float, high: float, masked: bool) -> None:
        super().__init__(scratch)
        self.step, self.low, self.high = np.float32(step), np.float32(low), np.float32(high)
        self.masked = masked

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The input tells where the gradient goes."""
        return self.masked

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Quantize."""
        kernels.fixed_point(view(inputs[0].data), self.step, self.low, self.high, view(outputs[0].data, True))

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Let the gradient through."""
        if not propagate_down[0]:
            return
        g, gx = view(outputs[0].grad), view(inputs[0].grad, not accumulate[0])
        if self.masked:
            kernels.gradient_inside(view(inputs[0].data), g, self.low, self.high, gx, accumulate[0])
        else:
            (kernels.accumulate if accumulate[0] else kernels.copy)(g, gx)


class Addition(CpuFunction):
    """y = the sum of inputs of one shape."""

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """A sum's gradients are the output's."""
        return False

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Add up."""
        y = view(outputs[0].data, True)
        kernels.add(view(inputs[0].data), view(inputs[1].data), y)
        for other in inputs[2:]:
            kernels.accumulate(view(other.data), y)

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Hand the gradient to each."""
        g = view(outputs[0].grad)
        for variable, wanted, adds in zip(inputs, propagate_down, accumulate):
            if wanted:
                move = kernels.accumulate if adds else kernels.copy
                move(g, view(variable.grad, not adds))


class ConcatenateLast(CpuFunction):
    """Inputs side by side along the last axis."""

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """Gradients are cut out of the output's."""
        return False

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Add up the last axes."""
        self.widths = [v.shape[-1] for v in inputs]
        outputs[0].reset_shape((*inputs[0].shape[:-1], sum(self.widths)), True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Copy each to its columns."""
        y = view(outputs[0].data, True).reshape(-1, sum(self.widths))
        first = 0
        for variable, width in zip(inputs, self.widths):
            kernels.put_columns(view(variable.data).reshape(-1, width), y, first)
            first += width

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Take each one's columns."""
        g = view(outputs[0].grad).reshape(-1, sum(self.widths))
        first = 0
        for variable, width, wanted, adds in zip(inputs, self.widths, propagate_down, accumulate):
            if wanted:
                kernels.take_columns(g, first, view(variable.grad, not adds).reshape(-1, width), adds)
            first += width


class ConcatenateRows(CpuFunction):
    """Inputs one after the other along the first axis."""

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """Gradients are cut out of the output's."""
        return False

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Add up the first axes."""
        outputs[0].reset_shape((sum(v.shape[0] for v in inputs), *inputs[0].shape[1:]), True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Copy each to its place."""
        y, first = view(outputs[0].data, True), 0
        for variable in inputs:
            kernels.copy(view(variable.data), y[first : first + variable.size])
            first += variable.size

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Take each one's part."""
        g, first = view(outputs[0].grad), 0
        for variable, wanted, adds in zip(inputs, propagate_down, accumulate):
            if wanted:
                move = kernels.accumulate if adds else kernels.copy
                move(g[first : first + variable.size], view(variable.grad, not adds))
            first += variable.size


class PadLast(CpuFunction):
    """Zeros before and after along the last axis, as a residual shortcut needs that widens."""

    def __init__(self, scratch: Scratch, before: int, after: int) -> None:
        super().__init__(scratch)
        self.before, self.after = before, after

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient is cut out of the output's."""
        return False

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Widen the last axis."""
        *rest, width = inputs[0].shape
        self.widths = (width, self.before + width + self.after)
        outputs[0].reset_shape((*rest, self.widths[1]), True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Copy between zeros."""
        y = view(outputs[0].data, True)
        y[:] = 0
        x = view(inputs[0].data).reshape(-1, self.widths[0])
        kernels.put_columns(x, y.reshape(-1, self.widths[1]), self.before)

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Cut out of the gradient."""
        if propagate_down[0]:
            g = view(outputs[0].grad).reshape(-1, self.widths[1])
            gx = view(inputs[0].grad, not accumulate[0]).reshape(-1, self.widths[0])
            kernels.take_columns(g, self.before, gx, accumulate[0])
