"""Affine layers as products of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import nnabla as nn
import numpy as np

from nnmpq.graph.accelerate.base import CpuFunction, Scratch, pointer, put, view
from nnmpq.onednn.matrix import product


class Affine(CpuFunction):
    """y = x W + b.

    Inputs: x, of which the axes from `base_axis` on are the features; W (features, outputs...); maybe b (outputs...).
    """

    def __init__(self, scratch: Scratch, base_axis: int) -> None:
        super().__init__(scratch)
        self.base_axis = base_axis

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient of the data needs the weight, and the other way round; the bias' needs neither."""
        return i + j == 1

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Find the three lengths of the product."""
        base = self.base_axis % inputs[0].ndim
        self.inner = inputs[1].shape[0]
        self.rows, self.columns = inputs[0].size // self.inner, inputs[1].size // self.inner
        outputs[0].reset_shape((*inputs[0].shape[:base], *inputs[1].shape[1:]), True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Multiply; the bias lies there before."""
        y = pointer(outputs[0].data, True)
        if len(inputs) > 2:
            view(outputs[0].data).reshape(self.rows, self.columns)[:] = view(inputs[2].data)
        product(
            pointer(inputs[0].data),
            pointer(inputs[1].data),
            y,
            self.rows,
            self.columns,
            self.inner,
            accumulate=len(inputs) > 2,
        )

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Put the gradients that are wanted where they belong."""
        g = pointer(outputs[0].grad)
        if propagate_down[0]:
            gx = pointer(inputs[0].grad, not accumulate[0])
            weight = pointer(inputs[1].data)
            product(g, weight, gx, self.rows, self.inner, self.columns, turn_b=True, accumulate=accumulate[0])
        if propagate_down[1]:
            gw = pointer(inputs[1].grad, not accumulate[1])
            x = pointer(inputs[0].data)
            product(x, g, gw, self.inner, self.columns, self.rows, turn_a=True, accumulate=accumulate[1])
        if len(inputs) > 2 and propagate_down[2]:
            total = view(outputs[0].grad).reshape(self.rows, self.columns).sum(0, dtype=np.float64)
            put(inputs[2].grad, total, accumulate[2])
