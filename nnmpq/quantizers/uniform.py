"""Uniform quantizers with learned step, range or bits: the parametrizations U1, U2 and U3 of Sony's paper."""

from __future__ import annotations

from typing import ClassVar

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.quantizers import uniform_core
from nnmpq.quantizers.grid import UNIFORM, Grid, round_half_away
from nnmpq.quantizers.parameters import (
    Limits,
    Parameters,
    Values,
    as_variables,
    bounded,
    clamp,
    evaluate,
    in_order,
    pinned,
    whole_bits,
)
from nnmpq.quantizers.scalars import alike, clip, detached, log2_ceil, power, power_of_two, widest


@attrs.frozen(kw_only=True)
class _Uniform:
    """What the three parametrizations share; each says how parameters become step and range."""

    family: ClassVar[str] = "uniform"
    at_fixed_bits: ClassVar[str] = "uniform_b_xmax"

    signed: bool
    faithful: bool = False
    channel_axis: int | None = None
    bits_limits: Limits = (2.0, 8.0)
    step_limits: Limits = (2.0**-8, 1.0)
    xmax_limits: Limits = (2.0**-8, 127.0)
    learn: bool = True

    def __attrs_post_init__(self) -> None:
        """Refuse a width that a signed grid around zero cannot have."""
        if self.signed and self.bits_limits[0] < 2:
            raise ValueError(
                f"bits_limits {self.bits_limits}: a signed uniform grid around zero needs 2 bits or more; "
                "1 bit is sign_mean's or a power-of-two quantizer's"
            )

    def scalars(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        """Return step and xmax as graph variables, shape () or (C,)."""
        raise NotImplementedError

    def _limits(self, name: str) -> Limits:
        return {"bits": self.bits_limits, "step": self.step_limits, "xmax": self.xmax_limits}[name]

    def _positive_levels(self, bits: nn.Variable) -> nn.Variable:
        """2^(bits - s) - 1, straight through the rounding of the bits."""
        whole = F.round(clip(bits, self.bits_limits))
        return F.add_scalar(power(F.add_scalar(whole, -float(self.signed))), -1.0)

    def learned(self, name: str) -> bool:
        """Return whether a parameter gets gradients: not when its limits pin it."""
        return self.learn and not pinned(self._limits(name))

    def initial(self, bits: int, step: float | np.ndarray) -> Values:
        """Return raw values of the grid of that many bits and that step, put inside the limits.

        Args:
            bits: width, within `bits_limits`.
            step: distance of neighbours, > 0, shape () or (C,).
        """
        step = np.asarray(step, np.float32)
        start = {"bits": np.float32(bits), "step": step, "xmax": step * (2.0 ** (bits - self.signed) - 1)}
        names: tuple[str, ...] = self.parameter_names  # type: ignore[attr-defined]
        return {name: clamp(start[name], self._limits(name)) for name in names}

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the quantized tensor, shape of x."""
        step, xmax = self.scalars(parameters)
        core = uniform_core.fused if fused else uniform_core.composed
        return core(x, step, xmax, self.signed, self.channel_axis)

    def bits(self, parameters: Parameters) -> nn.Variable:
        """Return the bits as a graph variable of shape (), straight through the rounding."""
        return widest(F.round(clip(parameters["bits"], self.bits_limits)))

    def grid(self, values: Values, x: np.ndarray | None = None) -> Grid:
        """Return the grid of raw values."""
        step, xmax = evaluate(*self.scalars(as_variables(values)))
        step, xmax = (a.reshape(-1)[0] if a.size == 1 else a for a in (step, xmax))
        high = round_half_away(xmax / step).astype(np.int32)
        return Grid(
            UNIFORM,
            self._whole_bits(values, high),
            self.signed,
            step=step,
            low=-high if self.signed else np.zeros_like(high),
            high=high,
            channel_axis=self.channel_axis if np.ndim(step) else None,
        )

    def _whole_bits(self, values: Values, high: np.ndarray) -> int:
        return whole_bits(values["bits"], self.bits_limits)

    def constrain(self, values: Values) -> Values:
        """Return values put back inside the limits after an update."""
        return {name: clamp(value, self._limits(name)) for name, value in values.items()}

    def clamp_gradients(self, values: Values, gradients: Values) -> Values:
        """Return the gradients as they are: this parametrization has no rule for them."""
        return gradients

    def narrowed(self, values: Values) -> list[Values]:
        """Return the ways to spend exactly one bit less; none at the narrowest."""
        bits = whole_bits(values["bits"], self.bits_limits)
        if bits - 1 < self.bits_limits[0]:
            return []
        fewer = {**values, "bits": np.full_like(np.asarray(values["bits"], np.float32), bits - 1)}
        ratio = (2.0 ** (bits - self.signed) - 1) / (2.0 ** (bits - 1 - self.signed) - 1)
        ways = [fewer]
        # Fewer bits cost range where the step is a parameter, and resolution where the range is one: offer both.
        if "xmax" in values:
            ways.append({**fewer, "xmax": clamp(np.asarray(values["xmax"]) / ratio, self.xmax_limits)})
        else:
            ways.append({**fewer, "step": clamp(np.asarray(values["step"]) * 2, self.step_limits)})
        return ways


@attrs.frozen(kw_only=True)
class UniformBXmax(_Uniform):
    """Uniform, bits and range learned (U2): step = 2^round(log2(xmax / N)), N = 2^(round(bits) - s) - 1.

    The range is the multiple N of the step. `faithful` clips at xmax itself, as the published code does, which spends
    up to twice the levels that it counts.

    Args:
        signed: grid from -xmax (weights), else from 0 (activations after a ReLU, which it replaces).
        faithful: the published code to float precision.
        channel_axis: one range a channel, along this axis.
        bits_limits: smallest and largest bits; equal ones pin them.
        step_limits: unused here.
        xmax_limits: smallest and largest range.
        learn: False keeps every parameter from the solver.

    Example:
        >>> quantizer = UniformBXmax(signed=True)
        >>> quantizer.grid(quantizer.initial(3, 0.5)).levels()
        7

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, case U2.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("bits", "xmax")

    def scalars(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        """Return step and xmax as graph variables."""
        levels, xmax = alike(self._positive_levels(p["bits"]), clip(p["xmax"], self.xmax_limits))
        step = power_of_two(F.div2(xmax, levels))
        return step, xmax if self.faithful else F.mul2(step, levels)


@attrs.frozen(kw_only=True)
class UniformDeltaB(_Uniform):
    """Uniform, step and bits learned (U1): xmax = step * (2^(round(bits) - s) - 1), step rounded to a power of two.

    Args: as of `UniformBXmax`, with `step_limits` instead of `xmax_limits`.

    Example:
        >>> quantizer = UniformDeltaB(signed=False)
        >>> quantizer.grid(quantizer.initial(4, 0.125)).levels()
        16

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, case U1.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("step", "bits")

    def scalars(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        """Return step and xmax as graph variables."""
        levels, step = alike(self._positive_levels(p["bits"]), power_of_two(clip(p["step"], self.step_limits)))
        return step, F.mul2(step, levels)


@attrs.frozen(kw_only=True)
class UniformDeltaXmax(_Uniform):
    """Uniform, step and range learned (U3); the bits follow: ceil(log2(xmax / step + 1) + s).

    The range is the nearest multiple of the step, with the paper's gradients: of step (Q - x) / step inside and 0
    outside, of xmax 0 inside and sign(x) outside. `faithful` clips at xmax itself, as the published code does; then
    the step's gradient has a further term where x saturates.

    Args: as of `UniformBXmax`, with `step_limits` too; of `bits_limits` only the lower one acts.

    Example:
        >>> quantizer = UniformDeltaXmax(signed=True)
        >>> values = {"step": np.float32(0.25), "xmax": np.float32(1.8)}
        >>> grid = quantizer.grid(values)
        >>> grid.bits, grid.levels(), grid.quantize(np.array([0.3, -9.0])).tolist()
        (4, 15, [0.25, -1.75])

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, case U3 and equation 4.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("step", "xmax")

    def scalars(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        """Return step and xmax as graph variables."""
        step = power_of_two(clip(p["step"], self.step_limits))
        xmax = clip(p["xmax"], self.xmax_limits)
        if self.faithful:
            return step, xmax
        fixed = detached(step)
        # At least one level: half a step rounds away from zero, and keeps its gradient.
        levels = F.round(F.maximum_scalar(F.div2(xmax, fixed), 0.5))
        return step, F.mul2(fixed, levels)

    def bits(self, parameters: Parameters) -> nn.Variable:
        """Return max(ceil(log2(round(xmax / step) + 1) + s), lowest bits), shape ()."""
        step = power_of_two(clip(parameters["step"], self.step_limits))
        levels = F.round(F.div2(clip(parameters["xmax"], self.xmax_limits), step))
        bits = F.add_scalar(log2_ceil(F.add_scalar(levels, 1.0)), float(self.signed))
        return widest(F.maximum_scalar(bits, float(self.bits_limits[0])))

    def _whole_bits(self, values: Values, high: np.ndarray) -> int:
        return max(int(np.max(high)).bit_length() + int(self.signed), int(self.bits_limits[0]))

    def constrain(self, values: Values) -> Values:
        """Return values in order, step below xmax, and inside the limits."""
        return in_order(values, "step", "xmax", self.step_limits, self.xmax_limits)

    def clamp_gradients(self, values: Values, gradients: Values) -> Values:
        """Return gradients no larger than the step, so that one update moves by the learning rate at most."""
        return bounded(gradients, values["step"])

    def narrowed(self, values: Values) -> list[Values]:
        """Return the step doubled with the range kept, and the range cut with the step kept."""
        grid = self.grid(values)
        if grid.bits - 1 < self.bits_limits[0]:
            return []
        step = np.broadcast_to(grid.step, np.shape(values["step"])).astype(np.float32)
        high = 2 ** (grid.bits - 1 - int(self.signed)) - 1
        ways = []
        coarser = np.float32(2) * step
        for new_step in (step, coarser):
            xmax = np.minimum(values["xmax"], new_step * high).astype(np.float32)
            ways.append({"step": clamp(new_step, self.step_limits), "xmax": clamp(xmax, self.xmax_limits)})
        return [way for way in ways if self.grid(way).bits == grid.bits - 1]
