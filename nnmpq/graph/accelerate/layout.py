"""The borders between nnabla's order, channels first, and the accelerated functions', channels last."""

from __future__ import annotations

from collections.abc import Sequence

import nnabla as nn
import nnabla.functions as F

from nnmpq.graph.accelerate import elementwise_kernels
from nnmpq.graph.accelerate.base import CpuFunction, Scratch, pointer, view
from nnmpq.onednn import layout
from nnmpq.threads import threads


class _Border(CpuFunction):
    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient is moved back as it is."""
        return False

    def plan(self) -> None:
        raise NotImplementedError

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Move."""
        self.there(pointer(inputs[0].data), pointer(outputs[0].data, True))

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Move the gradient back."""
        if not propagate_down[0]:
            return
        gradient = pointer(outputs[0].grad)
        if accumulate[0]:
            part = self.scratch.floats(inputs[0].size)
            self.back(gradient, part.ctypes.data)
            elementwise_kernels.accumulate(part, view(inputs[0].grad))
        else:
            self.back(gradient, pointer(inputs[0].grad, True))


class ChannelsLast(_Border):
    """(N, C, H, W) to (N, H, W, C)."""

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Plan the move both ways."""
        batch, channels, *size = shape = inputs[0].shape
        self.there, self.back = layout.to_last(shape, threads()), layout.to_first(shape, threads())
        outputs[0].reset_shape((batch, *size, channels), True)


class ChannelsFirst(_Border):
    """(N, H, W, C) to (N, C, H, W)."""

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Plan the move both ways."""
        batch, *size, channels = inputs[0].shape
        shape = (batch, channels, *size)
        self.there, self.back = layout.to_first(shape, threads()), layout.to_last(shape, threads())
        outputs[0].reset_shape(shape, True)


def _one_pixel(size: Sequence[int]) -> bool:
    """Whether both orders are the same one and nothing need be moved on all threads.

    Not a reshape: nnabla's has a fixed batch size, and a graph follows an input that is given another.
    """
    return all(length == 1 for length in size)


def to_last(scratch: Scratch, v: nn.Variable) -> nn.Variable:
    """Return a channels-first variable with its channels last."""
    return F.transpose(v, (0, 2, 3, 1)) if _one_pixel(v.shape[2:]) else ChannelsLast(scratch)(v)


def to_first(scratch: Scratch, v: nn.Variable) -> nn.Variable:
    """Return a channels-last variable with its channels first."""
    return F.transpose(v, (0, 3, 1, 2)) if _one_pixel(v.shape[1:3]) else ChannelsFirst(scratch)(v)
