"""Fused cores of the weight quantizers whose grid follows from the weights: one pass forward, one backward.

The formulas are numpy's: weights are small, and each formula is a line or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.function import PythonFunction

from nnmpq.quantizers.buffers import float_view
from nnmpq.quantizers.grid import UNIFORM, Grid, round_half_away
from nnmpq.quantizers.scalars import detached, like_tensor, power

# Keeps a tensor of zeros from dividing by zero.
TINY = float(np.finfo(np.float32).tiny)
# A largest |tanh w| below this counts as this: its square must stay a normal float32.
LEAST_TANH = 1e-12
Formula = Callable[[np.ndarray, int], "tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]"]


def gaussian_step(w: np.ndarray, bits: int) -> np.float32:
    """g_bits * std(w), the deviation unbiased."""
    from nnmpq.quantizers.fixed import GAUSSIAN_STEPS

    deviation = np.std(w.astype(np.float64), ddof=1) if w.size > 1 else 0.0
    return np.float32(max(GAUSSIAN_STEPS[bits - 1] * deviation, TINY))


def gaussian(w: np.ndarray, bits: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Mid-rise Gaussian weights, and the gradient: the identity."""
    step, half = gaussian_step(w, bits), np.float32(2 ** (bits - 1))
    codes = np.clip(np.floor(w * (np.float32(1) / step)), -half, half - 1)
    return (codes + np.float32(0.5)) * step, lambda g: g


def sign_grid(w: np.ndarray) -> Grid:
    """The two levels +-mean|w|."""
    mean = np.float32(max(float(np.mean(np.abs(w), dtype=np.float64)), TINY))
    return Grid(UNIFORM, 1, True, step=np.float32(2) * mean, offset=0.5, low=np.int32(-1), high=np.int32(0))


def sign_mean(w: np.ndarray, bits: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Sign times mean, and the gradient: the identity."""
    half = sign_grid(w).step * np.float32(0.5)
    return np.where(w < 0, -half, half), lambda g: g


def dorefa_grid(w: np.ndarray, bits: int) -> Grid:
    """2^k levels from -1 to 1; at one bit sign times mean."""
    if bits == 1:
        return sign_grid(w)
    high = 2**bits - 1
    step = np.float32(2) / np.float32(high)
    return Grid(UNIFORM, bits, True, step=step, offset=-high / 2, low=np.int32(0), high=np.int32(high))


def dorefa(w: np.ndarray, bits: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """DoReFa weights, and the gradient through tanh and the maximum."""
    if bits == 1:
        return sign_mean(w, 1)
    t = np.tanh(w.astype(np.float64))
    top = int(np.argmax(np.abs(t)))
    m = max(float(np.abs(t).flat[top]), LEAST_TANH)
    high = 2**bits - 1
    codes = round_half_away(high * (t / (2 * m) + 0.5))
    y = ((codes.astype(np.float32) - np.float32(high / 2)) * (np.float32(2) / np.float32(high))).astype(np.float32)

    def gradient(g: np.ndarray) -> np.ndarray:
        gt = g / m
        gt.flat[top] -= np.sign(t.flat[top]) * np.sum(g * t, dtype=np.float64) / m**2
        return gt * (1 - t * t)

    return y, gradient


class WeightCore(PythonFunction):
    """A weight quantizer by its formula: inputs are the weights and their bits, shape ()."""

    def __init__(self, context: object, formula: Formula) -> None:
        super().__init__(context)
        self.formula = formula
        self.cpu = nn.Context(["cpu:float"], "CpuCachedArray", "0")

    @property
    def name(self) -> str:
        """Name shown in graphs."""
        return "WeightQuantizerCore"

    @property
    def args(self) -> dict[str, Any]:
        """What a pass needs to build the function again on other inputs."""
        return {"core": type(self), "formula": self.formula}

    def min_outputs(self) -> int:
        """One output."""
        return 1

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """The gradient is computed from the weights."""
        return False

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The gradient is computed from the weights."""
        return True

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Give the output the weights' shape."""
        outputs[0].reset_shape(inputs[0].shape, True)

    def _evaluate(self, inputs: Sequence[nn.Variable]) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        w, bits = (float_view(v.data, self.cpu) for v in inputs)
        return self.formula(w, int(np.floor(bits[0] + 0.5)))

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Quantize."""
        float_view(outputs[0].data, self.cpu, write_only=True)[:] = self._evaluate(inputs)[0]

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Put the gradient of the weights where it is wanted; the bits have none."""
        if propagate_down[0]:
            g = float_view(outputs[0].grad, self.cpu)
            gradient = self._evaluate(inputs)[1](g)
            target = float_view(inputs[0].grad, self.cpu, write_only=not accumulate[0])
            target[:] = target + gradient if accumulate[0] else gradient
        if len(propagate_down) > 1 and propagate_down[1] and not accumulate[1]:
            float_view(inputs[1].grad, self.cpu, write_only=True)[:] = 0


def fused(w: nn.Variable, bits: nn.Variable, formula: Formula) -> nn.Variable:
    """Quantize weights in one function; for training."""
    return WeightCore(nn.get_current_context(), formula)(w, bits)


def table_entry(table: Sequence[float], bits: nn.Variable) -> nn.Variable:
    """The entry of a table for 1, 2, ... bits, as a graph variable of shape ()."""
    numbers = nn.Variable.from_numpy_array(np.asarray(table, np.float32))
    index = F.reshape(F.add_scalar(detached(bits), -1.0), (1,), inplace=False)
    return F.reshape(F.gather(numbers, index, axis=0), (), inplace=False)


def straight_through(w: nn.Variable, value: nn.Variable) -> nn.Variable:
    """The value forward, the weights' gradient backward."""
    return F.add2(F.sub2(w, detached(w)), detached(value))


def composed_gaussian(w: nn.Variable, bits: nn.Variable, table: Sequence[float]) -> nn.Variable:
    """Mid-rise Gaussian weights out of standard functions."""
    still = detached(w)
    centred = F.sub2(still, F.broadcast(F.mean(still, keepdims=True), w.shape))
    variance = F.mul_scalar(F.sum(F.mul2(centred, centred)), 1.0 / max(int(np.prod(w.shape)) - 1, 1))
    step = F.maximum_scalar(F.mul2(F.pow_scalar(variance, 0.5), table_entry(table, bits)), TINY)
    step = like_tensor(step, w.ndim, None)
    half = like_tensor(power(F.add_scalar(F.round(bits), -1.0)), w.ndim, None)
    codes = F.floor(F.mul2(still, F.r_div_scalar(step, 1.0)))
    codes = F.maximum2(F.minimum2(codes, F.add_scalar(half, -1.0)), F.mul_scalar(half, -1.0))
    return straight_through(w, F.mul2(F.add_scalar(codes, 0.5), step))


def composed_sign_mean(w: nn.Variable) -> nn.Variable:
    """Sign times mean out of standard functions."""
    still = detached(w)
    mean = like_tensor(F.maximum_scalar(F.mean(F.abs(still)), TINY), w.ndim, None)
    return straight_through(w, F.mul2(F.sign(still, 1.0), mean))


def composed_dorefa(w: nn.Variable, bits: nn.Variable) -> nn.Variable:
    """DoReFa weights out of standard functions."""
    t = F.tanh(w)
    m = like_tensor(F.maximum_scalar(F.max(F.abs(t)), LEAST_TANH), w.ndim, None)
    high = like_tensor(F.add_scalar(power(F.round(bits)), -1.0), w.ndim, None)
    u = F.add_scalar(F.mul_scalar(F.div2(t, m), 0.5), 0.5)
    codes = F.round(F.mul2(u, high))
    several = F.mul2(F.sub2(codes, F.mul_scalar(high, 0.5)), F.r_div_scalar(high, 2.0))
    one = F.less_scalar(detached(high), 1.5)
    return F.where(F.broadcast(one, w.shape), composed_sign_mean(w), several)
