"""The scheme of a differentiable search: every site a mixture of candidate widths."""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.functions as F

from nnmpq.graph.network import ACTIVATION, ACTIVATION_KINDS, BIAS, WEIGHT, Network, Site, as_tuple
from nnmpq.graph.quantized import Quantized, place
from nnmpq.graph.schemes import Fixed
from nnmpq.graph.settings import FLOAT_BITS, Patterns
from nnmpq.quantizers.mixture import CandidateMixture


def _patterns(values: Patterns | tuple[str, ...]) -> Patterns:
    return values if isinstance(values, Patterns) else Patterns(values)


@attrs.frozen
class Mixture:
    """Mixtures of candidate widths at weights and activations; biases stay float.

    Args:
        weight_bits: candidate widths of weights, ascending.
        activation_bits: candidate widths of activations, ascending.
        weight: quantizer that the candidates of weights are, a key of `nnmpq.quantizers.mixture.KINDS`.
        activation: the same for activations.
        kinds: kinds of activations that are mixed.
        keep: sites that stay float ("fc/*") or get so many bits for good ("conv1/*:8").
        fused: use the fused core, else standard functions.

    Example:
        >>> import nnabla.parametric_functions as PF
        >>> from nnmpq.graph.quantize import quantize
        >>> x = nn.Variable((4, 3, 8, 8))
        >>> y = PF.affine(F.relu(PF.convolution(x, 6, (3, 3), name="first")), 2, name="last")
        >>> network = quantize(y, Mixture(keep=("last/*",)))
        >>> bits = network.bits()["first/conv/relu"]
        >>> bits.forward()
        >>> round(float(bits.d), 4), network.bit_numbers()["first/conv/relu"]
        (3.0, 2)

    Source:
        Cai and Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks", CVPR 2020,
        section 4; its candidates and quantizers are the defaults.
    """

    weight_bits: tuple[int, ...] = (1, 2, 3, 4)
    activation_bits: tuple[int, ...] = (2, 3, 4)
    weight_quantizer: str = attrs.field(default="gaussian", alias="weight")
    activation_quantizer: str = attrs.field(default="half_wave_gaussian", alias="activation")
    kinds: tuple[str, ...] = attrs.field(
        default=("relu",),
        converter=as_tuple,
        validator=attrs.validators.deep_iterable(attrs.validators.in_(ACTIVATION_KINDS)),
    )
    keep: Patterns = attrs.field(factory=Patterns, converter=_patterns)
    fused: bool = True

    def __attrs_post_init__(self) -> None:
        """Refuse candidates that cannot be, before any graph is looked at."""
        self._mixture(WEIGHT, True)
        self._mixture(ACTIVATION, False)

    def _mixture(self, role: str, signed: bool) -> CandidateMixture:
        if role == ACTIVATION:
            return CandidateMixture(quantizer=self.activation_quantizer, candidates=self.activation_bits, signed=signed)
        return CandidateMixture(quantizer=self.weight_quantizer, candidates=self.weight_bits, signed=signed)

    def check(self, network: Network) -> None:
        """Raise ValueError where a pattern takes no site."""
        self.keep.check(network)

    def covers(self, site: Site) -> bool:
        """Return whether a site counts: parameters, activations of its kinds, what `keep` gives bits."""
        return site.role != ACTIVATION or site.kind in self.kinds or self.keep.bits(site) not in (None, FLOAT_BITS)

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Mix a weight's candidates; a bias stays as it is unless `keep` gives it bits."""
        kept = FLOAT_BITS if site.role == BIAS and self.keep.bits(site) is None else self.keep.bits(site)
        if kept == FLOAT_BITS:
            return Quantized(w, source=w)
        if kept is not None:
            return Fixed(kept, None).weight(site, w)
        mixture = self._mixture(WEIGHT, True)
        return place(site, mixture, w, mixture.initial(), self.fused)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Mix an activation's candidates; those of a ReLU take its place."""
        kept = self.keep.bits(site)
        if kept == FLOAT_BITS:
            return Quantized(F.relu(x) if site.kind == "relu" else x, source=x)
        if kept is not None:
            return Fixed(None, kept, kinds=(site.kind,)).activation(site, x)
        mixture = self._mixture(ACTIVATION, site.signed)
        return place(site, mixture, x, mixture.initial(), self.fused)
