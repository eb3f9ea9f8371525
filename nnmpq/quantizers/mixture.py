"""A quantizer that has not chosen its width yet: candidates mixed by shares that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.files import nearest
from nnmpq.quantizers import make, mixture_core, quantizer_class
from nnmpq.quantizers.fixed import GAUSSIAN_STEPS, HALF_WAVE_STEPS
from nnmpq.quantizers.mixture_core import CandidateGrids
from nnmpq.quantizers.parameters import Limits, Parameters, Values, clamp
from nnmpq.quantizers.scalars import clip, detached, power_of_two

# Shares start almost equal; the published code's number, which only matters to a weight decay.
FIRST_ALPHA = 0.01


@attrs.frozen
class Kind:
    """How the candidates of a quantizer become grids.

    Args:
        table: fixed steps by bits from 1 on; None where each candidate learns a range of its own.
        options: of `CandidateGrids`.
        power_of_two_step: the step is the power of two nearest to range / levels.
        frozen: the ranges are the tensor's largest magnitude at the start, and nothing is learned of them.
    """

    table: tuple[float, ...] | None = None
    options: dict[str, Any] = attrs.field(factory=dict)
    power_of_two_step: bool = False
    frozen: bool = False


# By the registered name of the quantizer that each candidate is.
KINDS: dict[str, Kind] = {
    "gaussian": Kind(GAUSSIAN_STEPS, {"midrise": True, "by_deviation": True}),
    "half_wave_gaussian": Kind(HALF_WAVE_STEPS),
    "uniform_b_xmax": Kind(power_of_two_step=True),
    "pact": Kind(options={"residual_gradient": False}),
    "haq": Kind(options={"straight": True, "residual_gradient": False}, frozen=True),
}


def _kind(quantizer: str) -> Kind:
    if quantizer not in KINDS:
        raise ValueError(f"no mixture of {quantizer!r}; the nearest is {nearest(quantizer, KINDS)!r}")
    return KINDS[quantizer]


def _constant(numbers: Sequence[float]) -> nn.Variable:
    return nn.Variable.from_numpy_array(np.array(numbers, np.float32))


def softmax(alpha: nn.Variable) -> nn.Variable:
    """Return e^alpha_k / sum e^alpha, shape (K,), out of the functions that run as one with the other small ones.

    Example:
        >>> p = softmax(nn.Variable.from_numpy_array(np.float32([0.0, np.log(3.0)])))
        >>> p.forward()
        >>> p.d.round(4).tolist()
        [0.25, 0.75]
    """
    # The largest is taken off first: shares stay numbers however far an alpha has run.
    largest = detached(F.max(alpha, axis=0, keepdims=True))
    powers = F.r_pow_scalar(F.sub2(alpha, largest), float(np.e))
    return F.div2(powers, F.sum(powers, axis=0, keepdims=True))


@attrs.frozen(kw_only=True)
class CandidateMixture:
    """y = sum_k softmax(alpha)_k Q_k(x): every candidate width at once, in one tensor.

    A layer linear in its weight and its input computes with the mixtures what the mixture of all its quantized forms
    would be, in one convolution. The bits are the expected ones, sum_k softmax(alpha)_k b_k.

    Args:
        quantizer: a key of `KINDS`: the fixed "gaussian" (weights) and "half_wave_gaussian" (activations), or
            "uniform_b_xmax" and "pact" with a range learned for each candidate; "haq" (weights) with one that stays.
        candidates: widths in bits, ascending.
        signed: grids around zero, else from zero.
        xmax_limits: smallest and largest range, where it is learned.

    Example:
        >>> mixture = CandidateMixture(quantizer="half_wave_gaussian", candidates=(2, 3, 4), signed=False)
        >>> alpha = nn.Variable.from_numpy_array(np.float32([0.0, 0.0, 0.0]))
        >>> bits = mixture.bits({"alpha": alpha})
        >>> bits.forward()
        >>> round(float(bits.d), 4)
        3.0

    Source:
        Cai and Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks", CVPR 2020,
        equations 8 to 11.
    """

    quantizer: str
    candidates: tuple[int, ...]
    signed: bool
    xmax_limits: Limits = (2.0**-8, 255.0)

    def __attrs_post_init__(self) -> None:
        """Refuse widths that the grids cannot have."""
        midrise = _kind(self.quantizer).options.get("midrise", False)
        # A signed grid of one bit around zero is zero alone.
        least = 2 if self.signed and not midrise else 1
        widths = self.candidates
        if not widths or list(widths) != sorted(set(widths)) or widths[0] < least or widths[-1] > 8:
            raise ValueError(f"candidates = {widths}: ascending widths from {least} to 8 bits are needed")

    @property
    def family(self) -> str:
        """The candidates' family."""
        return str(quantizer_class(self.quantizer).family)  # type: ignore[attr-defined]

    @property
    def grids(self) -> CandidateGrids:
        """The candidates' levels."""
        return CandidateGrids.of(self.candidates, self.signed, **KINDS[self.quantizer].options)

    @property
    def frozen(self) -> bool:
        """Whether the ranges are the largest magnitude at the start, and stay."""
        return KINDS[self.quantizer].frozen

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Shares, and ranges where they are learned."""
        return ("alpha",) if KINDS[self.quantizer].table is not None else ("alpha", "xmax")

    def learned(self, name: str) -> bool:
        """Return whether a parameter gets gradients: each does, but for ranges that stay."""
        return name != "xmax" or not self.frozen

    def initial(self, bits: int | None = None, step: float | np.ndarray = 0.1, xmax: float = 6.0) -> Values:
        """Return raw values: equal shares, and the same range for all candidates."""
        count = len(self.candidates)
        values: Values = {"alpha": np.full(count, FIRST_ALPHA, np.float32)}
        if "xmax" in self.parameter_names:
            values["xmax"] = clamp(np.full(count, xmax, np.float32), self.xmax_limits)
        return values

    def _steps(self, parameters: Parameters) -> nn.Variable:
        kind = KINDS[self.quantizer]
        if kind.table is not None:
            return _constant([kind.table[b - 1] for b in self.candidates])
        step = F.div2(clip(parameters["xmax"], self.xmax_limits), _constant(self.grids.high))
        return power_of_two(step) if kind.power_of_two_step else step

    def probabilities(self, parameters: Parameters) -> nn.Variable:
        """Return the shares, shape (K,), adding up to 1."""
        return softmax(parameters["alpha"])

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the mixed tensor, shape of x."""
        core: Callable[..., nn.Variable] = mixture_core.fused if fused else mixture_core.composed
        return core(x, self.probabilities(parameters), self._steps(parameters), self.grids)

    def bits(self, parameters: Parameters) -> nn.Variable:
        """Return the expected bits, shape ()."""
        return F.sum(F.mul2(self.probabilities(parameters), _constant(self.candidates)))

    def chosen(self, values: Values) -> int:
        """Return the width of the largest share; the narrower of equal ones."""
        return self.candidates[int(np.argmax(values["alpha"]))]

    def discrete(self, values: Values) -> tuple[Any, Values]:
        """Return the quantizer of the largest share, with its raw values."""
        bits = self.chosen(values)
        made = make(self.quantizer, signed=self.signed, bits_limits=(float(bits), float(bits)))
        found: Values = {"bits": np.float32(bits)}
        if "xmax" in values:
            found["xmax"] = np.float32(values["xmax"][self.candidates.index(bits)])
        return made, found

    def grid(self, values: Values, x: np.ndarray | None = None) -> Any:
        """Return the grid of the largest share."""
        quantizer, found = self.discrete(values)
        return quantizer.grid(found, x)

    def constrain(self, values: Values) -> Values:
        """Return values with the ranges put back inside their limits."""
        return {**values, **({"xmax": clamp(values["xmax"], self.xmax_limits)} if "xmax" in values else {})}

    def clamp_gradients(self, values: Values, gradients: Values) -> Values:
        """Return the gradients as they are."""
        return gradients

    def narrowed(self, values: Values) -> list[Values]:
        """Return none: what a mixture spends is steered by its shares."""
        return []
