"""Maximum, average and global average pooling on oneDNN, channel-last."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import nnabla as nn

from nnmpq.graph.accelerate import elementwise_kernels
from nnmpq.graph.accelerate.base import CpuFunction, Scratch, pointer, view
from nnmpq.onednn.pooling import MAXIMUM, PoolingSpec, pooling_plan
from nnmpq.threads import threads


def pooled_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ignore_border: bool
) -> tuple[int, ...]:
    """Return height and width after a pooling, nnabla's way.

    `ignore_border` leaves out a last window that does not fit; without it every stride below the end has a window.

    Example:
        >>> pooled_size((7, 7), (2, 2), (2, 2), (0, 0), True), pooled_size((7, 7), (2, 2), (2, 2), (0, 0), False)
        ((3, 3), (4, 4))
    """
    found = []
    for length, k, s, p in zip(size, kernel, stride, pad):
        found.append((length + 2 * p - k) // s + 1 if ignore_border else -(-(length + p) // s))
    return tuple(found)


class Pooling(CpuFunction):
    """Maximum or average over windows; `kernel` None pools the whole map."""

    def __init__(
        self,
        scratch: Scratch,
        algorithm: int,
        kernel: Sequence[int] | None = None,
        stride: Sequence[int] = (1, 1),
        pad: Sequence[int] = (0, 0),
        ignore_border: bool = True,
    ) -> None:
        super().__init__(scratch)
        self.algorithm, self.kernel = algorithm, kernel
        self.stride, self.pad, self.ignore_border = tuple(stride), tuple(pad), ignore_border

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """Where the maximum was is remembered."""
        return False

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Find the plan of these shapes."""
        batch, *size, channels = inputs[0].shape
        kernel = tuple(self.kernel or size)
        size_out = pooled_size(size, kernel, self.stride, self.pad, self.ignore_border)
        spec = PoolingSpec(self.algorithm, batch, channels, tuple(size), size_out, kernel, self.stride, self.pad)
        self.plan = pooling_plan(spec, threads())
        outputs[0].reset_shape((batch, *size_out, channels), True)
        self.workspace = []
        if self.algorithm == MAXIMUM:
            assert self.plan.workspace is not None
            self.places = ctypes.create_string_buffer(self.plan.workspace.size())
            self.workspace = [ctypes.addressof(self.places)]

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Pool."""
        self.plan.forward(pointer(inputs[0].data), pointer(outputs[0].data, True), *self.workspace)

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Spread the gradient over the windows, or give it to the maximum."""
        if not propagate_down[0]:
            return
        gradient = pointer(outputs[0].grad)
        if accumulate[0]:
            part = self.scratch.floats(inputs[0].size)
            self.plan.backward(gradient, part.ctypes.data, *self.workspace)
            elementwise_kernels.accumulate(part, view(inputs[0].grad))
        else:
            self.plan.backward(gradient, pointer(inputs[0].grad, True), *self.workspace)
