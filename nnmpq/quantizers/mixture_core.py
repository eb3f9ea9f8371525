"""A mixture's core: a tensor, the candidates' shares and steps in, the mixed tensor out, in one function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.quantizers import mixture_kernels
from nnmpq.quantizers.fixed_core import TINY, straight_through
from nnmpq.quantizers.scalars import detached
from nnmpq.quantizers.uniform_core import QuantizerCore


@attrs.frozen
class CandidateGrids:
    """The levels of each candidate: step_k * (n + offset), n from low_k to high_k.

    Args:
        low: lowest whole number of each candidate.
        high: highest of each.
        midrise: offset 1/2, levels on both sides of zero and none on it; the gradient of the tensor is 1 everywhere.
        by_deviation: the steps given are in units of the tensor's standard deviation.
        straight: the gradient of the tensor is 1 beyond the range too.
        residual_gradient: steps learn from the rounding residual too, else from what is clipped alone.

    Example:
        >>> CandidateGrids.of((2, 4), signed=False).high
        (3, 15)
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    midrise: bool = False
    by_deviation: bool = False
    residual_gradient: bool = True
    straight: bool = False

    @classmethod
    def of(cls, bits: Sequence[int], signed: bool, **options: Any) -> CandidateGrids:
        """Return grids of these widths: around zero where signed, from zero where not; mid-rise ones use all levels."""
        if options.get("midrise"):
            return cls(tuple(-(2 ** (b - 1)) for b in bits), tuple(2 ** (b - 1) - 1 for b in bits), **options)
        high = tuple(2 ** (b - signed) - 1 for b in bits)
        return cls(tuple(-n for n in high) if signed else (0,) * len(high), high, **options)


class MixtureCore(QuantizerCore):
    """y = sum_k p_k Q_k(x), where Q_k rounds to the levels of candidate k.

    Gradients: of x, sum_k p_k inside range k (everywhere where mid-rise or straight); of p_k, sum of g Q_k(x); of
    step_k, p_k times the sum of g (n_k - x / step_k) inside and g n_k outside.
    """

    def __init__(self, context: Any, grids: CandidateGrids, kernels: bool | None = None) -> None:
        super().__init__(context, min(grids.low) < 0, None, kernels)
        self.grids = grids
        self.low, self.high = np.array(grids.low, np.float32), np.array(grids.high, np.float32)

    @property
    def name(self) -> str:
        """Name shown in graphs."""
        return "MixtureCore"

    @property
    def args(self) -> dict[str, Any]:
        """What a pass needs to build the function again on other inputs."""
        return {"core": type(self), "grids": self.grids}

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """Everything is computed from the inputs."""
        return False

    def _steps(self, x: np.ndarray, steps: np.ndarray) -> np.ndarray:
        if not self.grids.by_deviation:
            return steps
        deviation = np.std(x, ddof=1, dtype=np.float64) if x.size > 1 else 0.0
        return np.maximum(steps * deviation, TINY).astype(np.float32)

    def _kernel_forward(self, x: np.ndarray, p: np.ndarray, steps: np.ndarray, y: np.ndarray) -> None:
        mixture_kernels.forward(x, p, self._steps(x, steps), self.low, self.high, self.grids.midrise, y)

    def _kernel_backward(
        self, x: np.ndarray, p: np.ndarray, steps: np.ndarray, y: np.ndarray, g: np.ndarray, gx: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        sums = np.zeros((3, -(-x.size // mixture_kernels.BLOCK), p.size))
        steps = self._steps(x, steps)
        grids = self.grids
        mixture_kernels.backward(x, g, p, steps, self.low, self.high, grids.midrise, grids.straight, gx, *sums)
        mixing, residual, outside = sums.sum(1)
        return mixing, p * (outside + residual if self.grids.residual_gradient else outside)

    def _array_candidates(self, inputs: Sequence[nn.Variable]) -> list[tuple[Any, Any, Any, Any]]:
        """For each candidate its share, its step, x in steps clipped to the range, and the level, as `NdArray`s."""
        x = inputs[0].data
        one = (1,) * inputs[0].ndim
        steps = inputs[2].data
        if self.grids.by_deviation:
            centred = F.sub2(x, F.reshape(F.mean(x), one))
            variance = F.mul_scalar(F.mean(F.mul2(centred, centred)), x.size / max(x.size - 1, 1))
            steps = F.maximum_scalar(F.mul2(steps, F.reshape(F.pow_scalar(variance, 0.5), (1,))), TINY)
        found = []
        for k, (low, high) in enumerate(zip(self.grids.low, self.grids.high)):
            share, step = (F.reshape(F.slice(v, (k,), (k + 1,)), one) for v in (inputs[1].data, steps))
            scaled = F.mul2(x, F.r_div_scalar(step, 1.0))
            c = F.minimum_scalar(F.maximum_scalar(scaled, low), high)
            if self.grids.midrise:
                # The largest whole number not above: ceil is the only one that there is.
                whole = F.mul_scalar(F.ceil(F.mul_scalar(scaled, -1.0)), -1.0)
                level = F.add_scalar(F.minimum_scalar(F.maximum_scalar(whole, low), high), 0.5)
            else:
                level = F.round(c)
            found.append((share, step, c, level))
        return found

    def _array_forward(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        terms = [F.mul2(F.mul2(level, step), share) for share, step, _, level in self._array_candidates(inputs)]
        outputs[0].data.copy_from(F.add_n(*terms))

    def _array_backward(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> list[Any]:
        x, g = inputs[0].data, outputs[0].grad
        into_x, into_p, into_steps = [], [], []
        for k, (share, step, c, level) in enumerate(self._array_candidates(inputs)):
            inside = g
            if not (self.grids.midrise or self.grids.straight):
                low, high = (F.mul_scalar(step, float(n[k])) for n in (self.grids.low, self.grids.high))
                inside = F.mul2(g, F.mul2(F.greater(x, low), F.less(x, high)))
            into_x.append(F.mul2(inside, share))
            into_p.append(F.sum(F.mul2(F.mul2(g, level), step)))
            learned = F.mul2(F.sub2(g, inside), level)
            if self.grids.residual_gradient:
                learned = F.add2(learned, F.mul2(g, F.sub2(level, c)))
            into_steps.append(F.sum(F.mul2(learned, share)))
        return [F.add_n(*into_x), F.stack(*into_p), F.stack(*into_steps)]


def _unit(x: nn.Variable) -> nn.Variable:
    """The standard deviation of a tensor, shape (1,), without a gradient."""
    centred = F.sub2(x, F.broadcast(F.reshape(F.mean(x), (1,) * x.ndim, inplace=False), x.shape))
    variance = F.mul_scalar(F.mean(F.mul2(centred, centred)), x.size / max(x.size - 1, 1))
    return F.reshape(F.maximum_scalar(detached(F.pow_scalar(variance, 0.5)), TINY), (1, 1), inplace=False)


def _fixed(row: nn.Variable, step: float, bits: int, midrise: bool) -> nn.Variable:
    """A candidate with a step that is a number, as one function of nnabla's."""
    half = (2 ** (bits - 1) - 0.5) * step if midrise else 0.0
    shifted = F.add_scalar(row, half) if midrise else row
    y = F.fixed_point_quantize(shifted, sign=False, n=bits, delta=step, ste_fine_grained=not midrise)
    return F.add_scalar(y, -half) if midrise else y


def _learned(row: nn.Variable, step: nn.Variable, low: int, high: int, residual_gradient: bool) -> nn.Variable:
    """A candidate whose step is a variable, shape (1, 1); a product of matrices is the fast way to scale by one."""
    inside = step if residual_gradient else detached(step)
    scaled = F.affine(F.r_div_scalar(inside, 1.0), row)
    level = F.round(F.minimum_scalar(F.maximum_scalar(scaled, low), high))
    value = F.affine(inside, level)
    if residual_gradient:
        return value
    beyond = F.logical_or(F.greater_equal_scalar(scaled, high), F.less_equal_scalar(scaled, low))
    return F.add2(value, F.affine(F.sub2(step, detached(step)), detached(F.mul2(level, beyond))))


def composed(x: nn.Variable, p: nn.Variable, steps: nn.Variable, grids: CandidateGrids) -> nn.Variable:
    """The same out of standard nnabla functions: the flattened candidates mixed by one product of matrices.

    Args:
        x: tensor.
        p: shares, shape (K,).
        steps: shape (K,); numbers of good where they are no graph variable's and want no gradient.
        grids: the candidates' levels.
    """
    row = F.reshape(x, (1, x.size), inplace=False)
    unit = _unit(x) if grids.by_deviation else None
    if unit is not None:
        row = F.affine(F.r_div_scalar(unit, 1.0), row)
    candidates = []
    for k, (low, high) in enumerate(zip(grids.low, grids.high)):
        if grids.midrise or (steps.parent is None and not steps.need_grad and low == 0):
            bits = (high - low + 1).bit_length() - 1
            candidates.append(_fixed(row, float(steps.d[k]), bits, grids.midrise))
        else:
            step = F.reshape(F.slice(steps, (k,), (k + 1,)), (1, 1), inplace=False)
            value = _learned(row, step, low, high, grids.residual_gradient)
            candidates.append(straight_through(row, value) if grids.straight else value)
    mixed = F.affine(F.reshape(p, (1, p.size), inplace=False), F.concatenate(*candidates, axis=0))
    return F.reshape(mixed if unit is None else F.affine(unit, mixed), x.shape)


def fused(x: nn.Variable, p: nn.Variable, steps: nn.Variable, grids: CandidateGrids) -> nn.Variable:
    """Mix in one function; for training. Shapes: p and steps (K,)."""
    return MixtureCore(nn.get_current_context(), grids)(x, p, steps)
