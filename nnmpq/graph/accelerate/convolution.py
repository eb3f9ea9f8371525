"""Convolution, depthwise convolution and deconvolution on oneDNN, activations channel-last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnabla as nn
import numpy as np

from nnmpq.graph.accelerate import elementwise_kernels
from nnmpq.graph.accelerate.base import CpuFunction, Scratch, pointer, put, view
from nnmpq.graph.accelerate.weights import BlockedWeight, WeightClock
from nnmpq.onednn.convolution import ConvolutionSpec, convolution_plan
from nnmpq.quantizers.buffers import floats_at
from nnmpq.threads import threads


def convolved_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Return height and width after a convolution.

    Example:
        >>> convolved_size((32, 32), (3, 3), (2, 2), (1, 1), (1, 1))
        (16, 16)
    """
    return tuple(
        (length + 2 * p - d * (k - 1) - 1) // s + 1 for length, k, s, p, d in zip(size, kernel, stride, pad, dilation)
    )


class Convolution(CpuFunction):
    """y = x * w + b.

    Inputs: x (N, H, W, C); weight (O, C/group, h, w), or (O, h, w) of a depthwise convolution; maybe a bias (O,).
    """

    def __init__(self, scratch: Scratch, clock: WeightClock, arguments: dict[str, Any]) -> None:
        super().__init__(scratch)
        self.arguments = arguments
        self.forward_weight, self.backward_weight = BlockedWeight(clock), BlockedWeight(clock)

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient of the data needs the weight, and the other way round; the bias' needs neither."""
        return i + j == 1

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Find the plan of these shapes."""
        batch, *size, channels = inputs[0].shape
        given = self.arguments
        kernel = inputs[1].shape[-2:]
        geometry = (tuple(given["stride"]), tuple(given["pad"]), tuple(given["dilation"]))
        out = inputs[1].shape[0]
        size_out = convolved_size(size, kernel, *geometry)
        group = given.get("group", channels)
        spec = ConvolutionSpec(batch, channels, tuple(size), out, size_out, kernel, *geometry, group, len(inputs) > 2)
        self.plan = convolution_plan(spec, threads())
        outputs[0].reset_shape((batch, *size_out, out), True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Convolve."""
        plan = self.plan
        rest = [pointer(v.data) for v in inputs[2:]]
        weight = self.forward_weight.pointer(plan.forward_weight, inputs[1])
        plan.forward(pointer(inputs[0].data), weight, *rest, pointer(outputs[0].data, True))

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Put the gradients that are wanted where they belong."""
        plan, scratch = self.plan, self.scratch
        gradient = pointer(outputs[0].grad)
        if any(propagate_down[1:]):
            self._weights(inputs, gradient, propagate_down, accumulate)
        if propagate_down[0]:
            weight = self.backward_weight.pointer(plan.backward_weight, inputs[1])
            if accumulate[0]:
                part = scratch.floats(inputs[0].size)
                plan.backward_data(gradient, weight, part.ctypes.data)
                elementwise_kernels.accumulate(part, view(inputs[0].grad))
            else:
                plan.backward_data(gradient, weight, pointer(inputs[0].grad, True))

    def _weights(
        self, inputs: Sequence[nn.Variable], gradient: int, wanted: Sequence[bool], accumulate: Sequence[bool]
    ) -> None:
        layout = self.plan.weight_gradient
        made = self.scratch.pointer(layout.wanted.size() + 4 * inputs[1].size + 64)
        plain = made + (layout.wanted.size() + 63) // 64 * 64
        bias = np.empty(inputs[2].shape, np.float32) if len(inputs) > 2 else None
        rest = [] if bias is None else [bias.ctypes.data]
        source = pointer(inputs[0].data)
        direct = wanted[1] and not accumulate[1]
        target = pointer(inputs[1].grad, True) if direct else plain
        self.plan.backward_weights(source, gradient, target if layout.same else made, *rest)
        if wanted[1]:
            if layout.move is not None:
                layout.move(made, target)
            if accumulate[1]:
                elementwise_kernels.accumulate(floats_at(plain, inputs[1].size), view(inputs[1].grad))
        if bias is not None and wanted[2]:
            put(inputs[2].grad, bias, accumulate[2])


class Deconvolution(CpuFunction):
    """The transposed convolution: forward is the data gradient of the convolution from the output to the input.

    Inputs: x (N, H, W, C); weight (C, O/group, h, w); maybe a bias (O,).
    """

    def __init__(self, scratch: Scratch, clock: WeightClock, arguments: dict[str, Any]) -> None:
        super().__init__(scratch)
        self.arguments = arguments
        self.forward_weight, self.backward_weight = BlockedWeight(clock), BlockedWeight(clock)

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient of the data needs the weight, and the other way round; the bias' needs neither."""
        return i + j == 1

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Find the plan of the convolution that this transposes."""
        batch, *size, channels = inputs[0].shape
        given = self.arguments
        kernel = inputs[1].shape[2:]
        geometry = (tuple(given["stride"]), tuple(given["pad"]), tuple(given["dilation"]))
        extra = given.get("output_padding") or (0,) * len(kernel)
        size_out = tuple(
            (length - 1) * s - 2 * p + d * (k - 1) + 1 + e
            for length, k, s, p, d, e in zip(size, kernel, *geometry, extra)
        )
        out = inputs[1].shape[1] * given["group"]
        spec = ConvolutionSpec(batch, out, size_out, channels, tuple(size), kernel, *geometry, given["group"])
        self.plan = convolution_plan(spec, threads())
        outputs[0].reset_shape((batch, *size_out, out), True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Convolve transposed, then add the bias."""
        weight = self.forward_weight.pointer(self.plan.backward_weight, inputs[1])
        self.plan.backward_data(pointer(inputs[0].data), weight, pointer(outputs[0].data, True))
        if len(inputs) > 2:
            y = view(outputs[0].data).reshape(-1, inputs[2].size)
            y += view(inputs[2].data)

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Put the gradients that are wanted where they belong."""
        plan = self.plan
        gradient = pointer(outputs[0].grad)
        if propagate_down[0]:
            weight = self.backward_weight.pointer(plan.forward_weight, inputs[1])
            if accumulate[0]:
                part = self.scratch.floats(inputs[0].size)
                plan.forward(gradient, weight, part.ctypes.data)
                elementwise_kernels.accumulate(part, view(inputs[0].grad))
            else:
                plan.forward(gradient, weight, pointer(inputs[0].grad, True))
        if propagate_down[1]:
            layout = plan.weight_gradient
            made = self.scratch.pointer(layout.wanted.size() + 4 * inputs[1].size + 64)
            plain = made + (layout.wanted.size() + 63) // 64 * 64
            target = plain if accumulate[1] else pointer(inputs[1].grad, True)
            plan.backward_weights(gradient, pointer(inputs[0].data), target if layout.same else made)
            if layout.move is not None:
                layout.move(made, target)
            if accumulate[1]:
                elementwise_kernels.accumulate(floats_at(plain, inputs[1].size), view(inputs[1].grad))
        if len(inputs) > 2 and propagate_down[2]:
            g = view(outputs[0].grad).reshape(-1, inputs[2].size)
            put(inputs[2].grad, g.sum(0, dtype=np.float64), accumulate[2])
