"""Batch normalization with the sum, the ReLU or the quantizer that follows it, in one function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import nnabla as nn
import numpy as np

from nnmpq.graph.accelerate import normalise_kernels as kernels
from nnmpq.graph.accelerate import normalise_statistics as statistics
from nnmpq.graph.accelerate.base import CpuFunction, Scratch, put, view

INFINITY = np.float32(np.inf)


@attrs.frozen
class Follow:
    """What follows the normalization.

    Args:
        low: lower end of a clip; 0 for a ReLU.
        high: upper end; 6 for a ReLU6.
        joins: whether another branch is added first.
        quantizes: whether a uniform quantizer follows, whose inputs are step and range; it brings its own clip.
        signed: the quantizer's.
    """

    low: float = -np.inf
    high: float = np.inf
    joins: bool = False
    quantizes: bool = False
    signed: bool = False

    @property
    def clips(self) -> bool:
        """Whether a gradient depends on where a number fell."""
        return self.quantizes or np.isfinite(self.low) or np.isfinite(self.high)


class Normalise(CpuFunction):
    """y = f(gamma * (z - mean) / sqrt(var + eps) + beta [+ s]), f identity, ReLU, ReLU6 or a uniform quantizer.

    Inputs: z with the channels last; beta, gamma, running mean and variance (1, ..., C, ...); s like z where a branch
    joins; step and xmax of shape () where a quantizer follows.
    """

    def __init__(self, scratch: Scratch, follow: Follow, eps: float, decay: float, batch_stat: bool) -> None:
        super().__init__(scratch)
        self.follow, self.eps, self.decay, self.batch_stat = follow, eps, decay, batch_stat

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """What was normalized, and the branch where a quantizer follows; the rest is remembered."""
        return j == 0 or (j == 5 and self.follow.joins and self.follow.quantizes)

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """A sum's output tells what was clipped, so that the branch need not be kept."""
        return self.follow.joins and self.follow.clips and not self.follow.quantizes

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Choose the width of rows and take memory for a channel's numbers."""
        shape = inputs[0].shape
        outputs[0].reset_shape(shape, True)
        channels = shape[-1]
        self.count = inputs[0].size // channels
        self.width = channels * statistics.tiling(self.count, channels)
        rows = inputs[0].size // self.width
        blocks = -(-rows // max(1, kernels.ELEMENTS // self.width))
        self.sums_shape = (blocks, 2, self.width)
        self.ranges = np.empty((blocks, 2), np.float32)
        self.mean, self.scale, self.beta, self.offset, self.slope = np.empty((5, self.width), np.float32)
        self.inverse = np.empty(channels, np.float64)

    def _sums(self) -> np.ndarray:
        """Room for each block's sums, until the next function takes it."""
        return self.scratch.floats(int(np.prod(self.sums_shape))).reshape(self.sums_shape)

    def _limits(self, inputs: Sequence[nn.Variable]) -> tuple[np.float32, np.float32, np.float32]:
        """Low, high and step."""
        if not self.follow.quantizes:
            return np.float32(self.follow.low), np.float32(self.follow.high), np.float32(0)
        step, high = (view(v.data)[0] for v in inputs[-2:])
        return -high if self.follow.signed else np.float32(0), high, step

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Normalize, join, clip, round."""
        z = view(inputs[0].data).reshape(-1, self.width)
        beta, gamma, running_mean, running_variance = (view(v.data) for v in inputs[1:5])
        numbers = (gamma, beta, running_mean, running_variance, self.mean, self.scale, self.beta, self.inverse)
        if self.batch_stat:
            shift = z[0, : gamma.size].copy()
            statistics.spread(shift, self.mean)
            sums = self._sums()
            kernels.moments(z, self.mean, sums)
            statistics.batch_statistics(sums, shift, self.count, self.eps, self.decay, *numbers)
        else:
            statistics.running_statistics(self.eps, *numbers)
        s = view(inputs[5].data).reshape(z.shape) if self.follow.joins else z
        y = view(outputs[0].data, True).reshape(z.shape)
        self.limits = self._limits(inputs)
        given = (z, s, self.follow.joins, self.mean, self.scale, self.beta)
        low, high, step = self.limits
        if self.follow.quantizes:
            kernels.forward_rounding(*given, low, high, step, y)
        else:
            kernels.forward(*given, low, high, y)

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Put the gradients that are wanted where they belong."""
        follow = self.follow
        z = view(inputs[0].data).reshape(-1, self.width)
        s, joins = z, 0
        if follow.joins and follow.quantizes:
            s, joins = view(inputs[5].data).reshape(z.shape), 1
        elif follow.joins and follow.clips:
            s, joins = view(outputs[0].data).reshape(z.shape), 2
        g = view(outputs[0].grad).reshape(z.shape)
        low, high, step = self.limits
        keep, gs = 0, z
        if follow.joins and propagate_down[5]:
            keep = 2 if accumulate[5] else 1
            gs = view(inputs[5].grad, keep == 1).reshape(z.shape)
        affine = (self.mean, self.scale, self.beta)
        sums = self._sums()
        kernels.gradient_sums(z, s, joins, g, *affine, low, high, step, follow.signed, gs, keep, sums, self.ranges)
        total = statistics.channel_gradients(sums, self.count, self.batch_stat, self.inverse, self.offset, self.slope)
        for index in (1, 2):
            if propagate_down[index]:
                put(inputs[index].grad, total[index - 1], accumulate[index])
        if follow.quantizes and (propagate_down[-2] or propagate_down[-1]):
            residual, outside = self.ranges.sum(0, dtype=np.float64)
            for index, value in ((-2, residual / step), (-1, outside)):
                if propagate_down[index]:
                    put(inputs[index].grad, np.asarray(value), accumulate[index])
        if propagate_down[0]:
            gz = view(inputs[0].grad, not accumulate[0]).reshape(z.shape)
            if keep == 1:
                # The clipped gradient lies there already.
                g, joins, low, high = gs, 0, -INFINITY, INFINITY
            kernels.gradient(z, s, joins, g, *affine, low, high, self.offset, self.slope, gz, accumulate[0])


def normalise(
    scratch: Scratch,
    z: nn.Variable,
    statistics_inputs: Sequence[nn.Variable],
    arguments: dict[str, Any],
    follow: Follow,
    rest: Sequence[nn.Variable],
) -> nn.Variable:
    """Build the function from the arguments of nnabla's BatchNormalization.

    Args:
        scratch: shared memory.
        z: with the channels last.
        statistics_inputs: beta, gamma, running mean, running variance.
        arguments: eps, decay_rate, batch_stat.
        follow: what follows.
        rest: the joined branch, then step and range, where there are.
    """
    made = Normalise(scratch, follow, arguments["eps"], arguments["decay_rate"], arguments["batch_stat"])
    return made(z, *statistics_inputs, *rest)
