"""Quantizers whose bits are given, not learned: EdMIPS' two, DoReFa weights, PACT activations, sign times mean."""

from __future__ import annotations

from typing import ClassVar

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.quantizers import fixed_core, uniform_core
from nnmpq.quantizers.grid import UNIFORM, Grid
from nnmpq.quantizers.parameters import Limits, Parameters, Values, clamp, pinned, whole_bits
from nnmpq.quantizers.scalars import clip, detached, power

# Steps of the uniform quantizer with least squared error for N(0, 1), by bits: Max, "Quantizing for Minimum
# Distortion", 1960, table II (to 32 levels), and its continuation; 1 to 4 rounded as EdMIPS publishes them.
GAUSSIAN_STEPS = (1.596, 0.996, 0.586, 0.336, 0.1881, 0.1041, 0.0569, 0.0308)
# EdMIPS' published steps for max(N(0, 1), 0), 1 to 4 bits; then those of least squared error for |N(0, 1)| with a zero.
HALF_WAVE_STEPS = (0.799, 0.538, 0.3217, 0.185, 0.10549, 0.05726, 0.03087, 0.01653)


@attrs.frozen(kw_only=True)
class _GivenBits:
    """What they share: bits as a parameter that no solver touches, and the same options as the learned ones."""

    at_fixed_bits: ClassVar[str]
    parameter_names: ClassVar[tuple[str, ...]] = ("bits",)

    signed: bool = True
    faithful: bool = False
    channel_axis: int | None = None
    bits_limits: Limits = (1.0, 8.0)
    step_limits: Limits = (2.0**-8, 1.0)
    xmin_limits: Limits = (2.0**-16, 127.0)
    xmax_limits: Limits = (2.0**-8, 255.0)
    learn: bool = True

    def learned(self, name: str) -> bool:
        """Return whether a parameter gets gradients: the bits never do."""
        return name != "bits" and self.learn and not pinned(self.xmax_limits)

    def initial(self, bits: int, step: float | np.ndarray) -> Values:
        """Return raw values for that many bits; the step follows from the data."""
        return {"bits": np.float32(np.clip(bits, *self.bits_limits))}

    def bits(self, parameters: Parameters) -> nn.Variable:
        """Return the bits as a graph variable of shape ()."""
        return F.round(clip(parameters["bits"], self.bits_limits))

    def _bits(self, values: Values) -> int:
        return whole_bits(values["bits"], self.bits_limits)

    def constrain(self, values: Values) -> Values:
        """Return the values as they are."""
        return values

    def clamp_gradients(self, values: Values, gradients: Values) -> Values:
        """Return the gradients as they are."""
        return gradients

    def narrowed(self, values: Values) -> list[Values]:
        """Return the values with one bit less; none at the narrowest."""
        bits = self._bits(values)
        return [] if bits - 1 < self.bits_limits[0] else [{**values, "bits": np.float32(bits - 1)}]


@attrs.frozen(kw_only=True)
class Gaussian(_GivenBits):
    """Mid-rise weights for a normal distribution: step = g_bits * std(W), 2^bits levels, none of them zero.

    Q(w) = step * (floor(w / step) + 1/2), clipped to +-(2^(bits-1) - 1/2) * step. The gradient of w is 1 everywhere;
    none flows through the standard deviation.

    Example:
        >>> w = np.array([-2.0, -0.1, 0.1, 2.0], np.float32)
        >>> Gaussian().grid({"bits": np.float32(2)}, w).levels()
        4

    Source:
        Cai and Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks", CVPR 2020; steps of
        Max, "Quantizing for Minimum Distortion", 1960.
    """

    family: ClassVar[str] = "midrise"
    at_fixed_bits: ClassVar[str] = "gaussian"

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the quantized tensor, shape of x."""
        if fused:
            return fixed_core.fused(x, parameters["bits"], fixed_core.gaussian)
        return fixed_core.composed_gaussian(x, parameters["bits"], GAUSSIAN_STEPS)

    def grid(self, values: Values, x: np.ndarray | None = None) -> Grid:
        """Return the grid of raw values for the weights x."""
        bits = self._bits(values)
        step = fixed_core.gaussian_step(_needed(x), bits)
        half = 2 ** (bits - 1)
        return Grid(UNIFORM, bits, True, step=step, offset=0.5, low=np.int32(-half), high=np.int32(half - 1))


@attrs.frozen(kw_only=True)
class HalfWaveGaussian(_GivenBits):
    """Activations for the positive half of a normal distribution: fixed step s_bits, clipped to [0, s (2^bits - 1)].

    The gradient of x is 1 inside the range and 0 outside; it replaces the ReLU behind a batch normalization.

    Example:
        >>> HalfWaveGaussian(signed=False).grid({"bits": np.float32(2)}).quantize(np.array([-1.0, 0.6, 9.0])).tolist()
        [0.0, 0.5379999876022339, 1.6139999628067017]

    Source:
        Cai et al., "Deep Learning with Low Precision by Half-wave Gaussian Quantization", CVPR 2017.
    """

    family: ClassVar[str] = "uniform"
    at_fixed_bits: ClassVar[str] = "half_wave_gaussian"
    signed: bool = attrs.field(default=False, validator=attrs.validators.in_((False,)))

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the quantized tensor, shape of x."""
        bits = F.round(clip(parameters["bits"], self.bits_limits))
        step = fixed_core.table_entry(HALF_WAVE_STEPS, bits)
        xmax = F.mul2(step, F.add_scalar(power(bits), -1.0))
        core = uniform_core.fused if fused else uniform_core.composed
        return core(x, detached(step), detached(xmax), False, None)

    def grid(self, values: Values, x: np.ndarray | None = None) -> Grid:
        """Return the grid of raw values."""
        bits = self._bits(values)
        step = np.float32(HALF_WAVE_STEPS[bits - 1])
        return Grid(UNIFORM, bits, False, step=step, low=np.int32(0), high=np.int32(2**bits - 1))


@attrs.frozen(kw_only=True)
class Dorefa(_GivenBits):
    """DoReFa weights: 2 round((2^k - 1) u) / (2^k - 1) - 1 with u = tanh(w) / (2 max|tanh w|) + 1/2.

    Straight through the rounding; the true gradient through tanh and the maximum. At 1 bit sign times mean.

    Example:
        >>> Dorefa().grid({"bits": np.float32(2)}, np.array([-1.0, 0.2, 1.0])).levels()
        4

    Source:
        Zhou et al., "DoReFa-Net", 2016, equation 9.
    """

    family: ClassVar[str] = "dorefa"
    at_fixed_bits: ClassVar[str] = "dorefa"

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the quantized tensor, shape of x."""
        if fused:
            return fixed_core.fused(x, parameters["bits"], fixed_core.dorefa)
        return fixed_core.composed_dorefa(x, parameters["bits"])

    def grid(self, values: Values, x: np.ndarray | None = None) -> Grid:
        """Return the grid of raw values for the weights x."""
        return fixed_core.dorefa_grid(_needed(x), self._bits(values))


@attrs.frozen(kw_only=True)
class Pact(_GivenBits):
    """PACT activations: round(clip(x, 0, a) (2^k - 1) / a) * a / (2^k - 1), with a learned.

    Args:
        residual_gradient: False gives a the paper's gradient, 1 where x >= a; True adds the rounding residual
            (Q - x) / a inside, as ProQHA's automatic differentiation does.
        xmax_limits: smallest and largest a; the other arguments as of the learned quantizers.

    Example:
        >>> values = {"bits": np.float32(2), "xmax": np.float32(6)}
        >>> Pact(signed=False).grid(values).quantize(np.array([-1.0, 2.9, 3.1])).tolist()
        [0.0, 2.0, 4.0]

    Source:
        Choi et al., "PACT: Parameterized Clipping Activation", 2018, equations 1 to 3.
    """

    family: ClassVar[str] = "uniform"
    at_fixed_bits: ClassVar[str] = "pact"
    parameter_names: ClassVar[tuple[str, ...]] = ("bits", "xmax")
    signed: bool = attrs.field(default=False, validator=attrs.validators.in_((False,)))
    residual_gradient: bool = False

    def initial(self, bits: int, step: float | np.ndarray) -> Values:
        """Return raw values for that many bits and that step."""
        bits = int(np.clip(bits, *self.bits_limits))
        xmax = np.asarray(step, np.float32) * np.float32(2**bits - 1)
        return {"bits": np.float32(bits), "xmax": clamp(xmax, self.xmax_limits)}

    def _scalars(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        levels = F.add_scalar(power(F.round(clip(p["bits"], self.bits_limits))), -1.0)
        xmax = clip(p["xmax"], self.xmax_limits)
        step = F.div2(xmax, detached(levels))
        return (step if self.residual_gradient else detached(step)), xmax

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the quantized tensor, shape of x."""
        core = uniform_core.fused if fused else uniform_core.composed
        return core(x, *self._scalars(parameters), False, None)

    def grid(self, values: Values, x: np.ndarray | None = None) -> Grid:
        """Return the grid of raw values."""
        high = 2 ** self._bits(values) - 1
        step = np.clip(values["xmax"], *np.asarray(self.xmax_limits, np.float32)) / np.float32(high)
        return Grid(UNIFORM, self._bits(values), False, step=np.float32(step), low=np.int32(0), high=np.int32(high))

    def constrain(self, values: Values) -> Values:
        """Return the range put back inside its limits."""
        return {**values, "xmax": clamp(values["xmax"], self.xmax_limits)}


@attrs.frozen(kw_only=True)
class SignMean(_GivenBits):
    """One bit: Q(w) = sign(w) * mean|w|, sign(0) = 1; the gradient of w is 1, none flows through the mean.

    Example:
        >>> SignMean().grid({"bits": np.float32(1)}, np.array([-1.0, 3.0])).quantize(np.array([0.0, -9.0])).tolist()
        [2.0, -2.0]

    Source:
        Rastegari et al., "XNOR-Net", ECCV 2016, equation 6, with one scale a tensor.
    """

    family: ClassVar[str] = "sign"
    at_fixed_bits: ClassVar[str] = "sign_mean"
    bits_limits: Limits = (1.0, 1.0)

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the quantized tensor, shape of x."""
        if fused:
            return fixed_core.fused(x, parameters["bits"], fixed_core.sign_mean)
        return fixed_core.composed_sign_mean(x)

    def grid(self, values: Values, x: np.ndarray | None = None) -> Grid:
        """Return the grid for the weights x."""
        return fixed_core.sign_grid(_needed(x))


def _needed(x: np.ndarray | None) -> np.ndarray:
    if x is None:
        raise ValueError("this quantizer's grid follows from the weights: pass them as x")
    return np.asarray(x, np.float32)
