"""The uniform quantizer's core: tensor, step and range in, quantized tensor out, in one function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.function import PythonFunction

from nnmpq.quantizers import uniform_kernels
from nnmpq.quantizers.buffers import float_view, on_cpu
from nnmpq.quantizers.scalars import like_tensor


def inner_size(shape: Sequence[int], channel_axis: int | None) -> int:
    """Number of neighbouring elements that share a channel's parameter."""
    return int(np.prod(shape[channel_axis + 1 :], dtype=np.int64)) if channel_axis is not None else 1


class QuantizerCore(PythonFunction):
    """What the fused cores have in common: their inputs are a tensor and two parameters of shape () or (C,).

    A subclass fills `_kernel_forward`, `_kernel_backward` (CPU, numba) and `_array_forward`, `_array_backward`
    (`NdArray` functions, for a GPU).
    """

    def __init__(self, context: Any, signed: bool, channel_axis: int | None, kernels: bool | None = None) -> None:
        super().__init__(context)
        self.signed = signed
        self.channel_axis = channel_axis
        self.kernels = on_cpu(context) if kernels is None else kernels
        # Context.__repr__ and friends are slow; one fixed context serves every call.
        self.cpu = nn.Context(["cpu:float"], "CpuCachedArray", "0")

    @property
    def args(self) -> dict[str, Any]:
        """What a pass needs to build the function again on other inputs."""
        return {"core": type(self), "signed": self.signed, "channel_axis": self.channel_axis}

    def min_outputs(self) -> int:
        """One output."""
        return 1

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """The residual y - x needs the output."""
        return True

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """Every gradient needs the tensor and the parameters."""
        return True

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Give the output the tensor's shape."""
        outputs[0].reset_shape(inputs[0].shape, True)
        self.inner = inner_size(inputs[0].shape, self.channel_axis if inputs[1].ndim else None)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Quantize."""
        if not self.kernels:
            self._array_forward(inputs, outputs)
            return
        views = [float_view(v.data, self.cpu) for v in inputs]
        self._kernel_forward(*views, float_view(outputs[0].data, self.cpu, write_only=True))

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Put the gradients of tensor and parameters where they are wanted."""
        if not any(propagate_down):
            return
        if not self.kernels:
            gradients = self._array_backward(inputs, outputs)
            for variable, gradient, wanted, add in zip(inputs, gradients, propagate_down, accumulate):
                if wanted:
                    total = F.add2(variable.grad, gradient) if add else gradient
                    variable.grad.copy_from(total)
            return
        views = [float_view(v.data, self.cpu) for v in inputs]
        y = float_view(outputs[0].data, self.cpu)
        g = float_view(outputs[0].grad, self.cpu)
        in_place = propagate_down[0] and not accumulate[0]
        gx = float_view(inputs[0].grad, self.cpu, write_only=True) if in_place else np.empty_like(y)
        first, second = self._kernel_backward(*views, y, g, gx)
        if propagate_down[0] and accumulate[0]:
            float_view(inputs[0].grad, self.cpu)[:] += gx
        for index, gradient in ((1, first), (2, second)):
            if propagate_down[index]:
                target = float_view(inputs[index].grad, self.cpu, write_only=not accumulate[index])
                target[:] = target + gradient if accumulate[index] else gradient

    def _parameter(self, v: nn.Variable, x: nn.Variable) -> Any:
        """A parameter's array, reshaped to broadcast against the tensor."""
        return like_tensor(v.data, x.ndim, self.channel_axis)

    def _to_parameter(self, array: Any, v: nn.Variable) -> Any:
        """Sum a tensor's array down to a parameter's shape."""
        if not v.ndim:
            return F.reshape(F.sum(array), ())
        axes = [axis for axis in range(len(array.shape)) if axis != self.channel_axis]
        return F.sum(array, axis=axes)


class UniformCore(QuantizerCore):
    """y = step * round(clip(x, lo, xmax) / step) with lo = -xmax where signed, else 0.

    Gradients, with c = clip(x): of x, 1 strictly inside the range; of step, sum of (y - c) / step; of xmax, sum of
    1[x >= xmax] - 1[x <= -xmax].
    """

    @property
    def name(self) -> str:
        """Name shown in graphs."""
        return "UniformQuantizerCore"

    def _kernel_forward(self, x: np.ndarray, step: np.ndarray, xmax: np.ndarray, y: np.ndarray) -> None:
        uniform_kernels.forward(x, step, xmax, self.signed, self.inner, y)

    def _kernel_backward(
        self, x: np.ndarray, step: np.ndarray, xmax: np.ndarray, y: np.ndarray, g: np.ndarray, gx: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if step.size == 1:
            sums = np.zeros((-(-x.size // uniform_kernels.BLOCK), 2))
            uniform_kernels.backward(x, y, g, xmax, self.signed, gx, sums)
            residual, range_sum = sums.sum(0)
            return residual / np.float64(step[0]), range_sum
        residual, range_sum = np.zeros(step.size), np.zeros(step.size)
        uniform_kernels.backward_channels(x, y, g, xmax, self.signed, self.inner, gx, residual, range_sum)
        return residual / step, range_sum

    def _array_forward(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        x = inputs[0]
        step, xmax = (self._parameter(v, x) for v in inputs[1:])
        low = F.mul_scalar(xmax, -1.0 if self.signed else 0.0)
        c = F.minimum2(F.maximum2(x.data, low), xmax)
        outputs[0].data.copy_from(F.mul2(F.round(F.mul2(c, F.r_div_scalar(step, 1.0))), step))

    def _array_backward(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> list[Any]:
        x, g, y = inputs[0].data, outputs[0].grad, outputs[0].data
        step, xmax = (self._parameter(v, inputs[0]) for v in inputs[1:])
        low = F.mul_scalar(xmax, -1.0 if self.signed else 0.0)
        up = F.mul2(g, F.greater_equal(x, xmax))
        down = F.mul2(g, F.less_equal(x, low))
        c = F.minimum2(F.maximum2(x, low), xmax)
        residual = F.div2(F.mul2(g, F.sub2(y, c)), step)
        outside = F.sub2(up, down) if self.signed else up
        return [
            F.sub2(F.sub2(g, up), down),
            self._to_parameter(residual, inputs[1]),
            self._to_parameter(outside, inputs[2]),
        ]


def fused(x: nn.Variable, step: nn.Variable, xmax: nn.Variable, signed: bool, channel_axis: int | None) -> nn.Variable:
    """Quantize in one function; for training. Arguments as of `UniformCore`."""
    return UniformCore(nn.get_current_context(), signed, channel_axis)(x, step, xmax)


def composed(
    x: nn.Variable, step: nn.Variable, xmax: nn.Variable, signed: bool, channel_axis: int | None
) -> nn.Variable:
    """The same out of standard nnabla functions: the reference, and for graphs that are saved."""
    step, xmax = (like_tensor(v, x.ndim, channel_axis) for v in (step, xmax))
    low = F.mul_scalar(xmax, -1.0) if signed else F.constant(0, xmax.shape)
    c = F.minimum2(F.maximum2(x, low), xmax)
    inverse = F.r_div_scalar(step, 1.0)
    return F.mul2(F.round(F.mul2(c, inverse)), step)
