"""Schemes: which quantizer each site gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.graph.network import ACTIVATION, ACTIVATION_KINDS, BIAS, Network, Site, as_tuple
from nnmpq.graph.quantized import Quantized, Scheme, exists, place
from nnmpq.graph.settings import FLOAT_BITS, Patterns, SiteSettings, first_step, pinned
from nnmpq.quantizers import quantizer_class

if TYPE_CHECKING:
    from nnmpq.policy import Policy

__all__ = [
    "FLOAT_BITS",
    "Fixed",
    "Float",
    "FromPolicy",
    "Parametric",
    "Quantized",
    "Scheme",
    "SiteSettings",
    "exists",
    "first_step",
    "place",
]


def _patterns(values: Patterns | tuple[str, ...]) -> Patterns:
    return values if isinstance(values, Patterns) else Patterns(values)


def _number_source(site: Site, v: nn.Variable) -> np.ndarray | None:
    """Numbers that the first step of a weight or bias is taken from: the layer's weight, for both."""
    source = nn.get_parameters(grad_only=False).get(f"{site.layer}/W") if site.role == BIAS else v
    if source is None:
        return None
    if source.parent is not None:
        source.forward()
    return np.array(source.d)


def _start_step(site: Site, v: nn.Variable, settings: SiteSettings, channels: int | None) -> Any:
    """The first step of a weight or bias, shape () or (C,)."""
    step = np.full(() if channels is None else (channels,), settings.step)
    if not settings.step_from_data or exists(site):
        return step
    numbers = _number_source(site, v)
    if numbers is None:
        return step
    found = first_step(numbers, settings.bits, None if channels is None else site.channel_axis)
    return np.where(found > 0, found, step)


@attrs.frozen
class Parametric:
    """Quantizers with learned parameters at weights, activations or both.

    Args:
        weight: settings of weights and biases; None leaves them float.
        activation: settings of activations; None leaves them float.
        kinds: kinds of activations that are this scheme's; the published code knows "relu" alone.
        keep: sites that stay float ("fc/*") or get so many bits for good ("conv1/*:8"), of whatever kind.
        fused: use the fused cores, else standard functions.

    Example:
        >>> scheme = Parametric(weight=SiteSettings("uniform_delta_xmax"), keep=("fc/*:8",))
        >>> scheme.covers(Site("fc/W", "weight", "affine", (2, 3), True, layer="fc"))
        True
    """

    weight_settings: SiteSettings | None = attrs.field(default=None, alias="weight")
    activation_settings: SiteSettings | None = attrs.field(default=None, alias="activation")
    kinds: tuple[str, ...] = attrs.field(
        default=("relu",),
        converter=as_tuple,
        validator=attrs.validators.deep_iterable(attrs.validators.in_(ACTIVATION_KINDS)),
    )
    keep: Patterns = attrs.field(factory=Patterns, converter=_patterns)
    fused: bool = True

    def check(self, network: Network) -> None:
        """Raise ValueError where a pattern takes no site."""
        self.keep.check(network)

    def covers(self, site: Site) -> bool:
        """Return whether a site counts: parameters, activations of its kinds, what `keep` gives bits."""
        return site.role != ACTIVATION or site.kind in self.kinds or self.keep.bits(site) not in (None, FLOAT_BITS)

    def settings(self, site: Site) -> SiteSettings | None:
        """Return what stands at a site; None for float."""
        kept = self.keep.bits(site)
        if kept is not None:
            return None if kept == FLOAT_BITS else pinned(kept)
        chosen = self.activation_settings if site.role == ACTIVATION else self.weight_settings
        return None if chosen is None else chosen.for_site(site)

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight or bias; a bias starts from its layer's weight's first step."""
        settings = self.settings(site)
        if settings is None:
            return Quantized(w, source=w)
        quantizer = settings.build(site)
        axis = quantizer.channel_axis
        step = _start_step(site, w, settings, None if axis is None else site.shape[axis])
        return place(site, quantizer, w, quantizer.initial(settings.bits, step), self.fused)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""
        settings = self.settings(site)
        if settings is None:
            return Quantized(F.relu(x) if site.kind == "relu" else x, source=x)
        quantizer = settings.build(site)
        bits = max(settings.bits, int(quantizer.bits_limits[0]))
        return place(site, quantizer, x, quantizer.initial(bits, settings.step), self.fused)


def Float(kinds: tuple[str, ...] = ("relu",)) -> Parametric:
    """Return the scheme that leaves every site float, and counts it at 32 bits.

    Args:
        kinds: kinds of activations that count.
    """
    return Parametric(kinds=kinds)


def Fixed(
    weight_bits: int | None,
    activation_bits: int | None,
    *,
    quantizer: str = "uniform_b_xmax",
    kinds: tuple[str, ...] = ("relu",),
    keep: tuple[str, ...] = (),
) -> Parametric:
    """Return the scheme with given bits at every weight, and at every activation; the range is learned.

    Args:
        weight_bits: width of weights and biases; None leaves them float.
        activation_bits: width of activations; None leaves them float.
        quantizer: a parametrization with bits, of any family.
        kinds: kinds of activations that are quantized.
        keep: patterns as of `Parametric`.
    """
    weight = None if weight_bits is None else pinned(weight_bits, quantizer)
    activation = None if activation_bits is None else pinned(activation_bits, quantizer)
    return Parametric(weight=weight, activation=activation, kinds=kinds, keep=keep)


@attrs.frozen
class FromPolicy:
    """Every site at its policy's bits, with a learned range.

    Args:
        policy: bits and quantizers by site.
        step: first step at 4 bits where the data do not say one; other widths start with about that range.
        fused: use the fused cores, else standard functions.
        faithful: quantizers as in the published code.
        per_channel: one range an output channel of each weight.
    """

    policy: Policy
    step: float = 2.0**-3
    fused: bool = True
    faithful: bool = False
    per_channel: bool = False

    def check(self, network: Network) -> None:
        """Raise ValueError naming sites that the policy misses or has too many."""
        self.policy.check(network)

    def covers(self, site: Site) -> bool:
        """Return whether the policy names the site."""
        return site.name in self.policy.sites

    def _scheme(self, site: Site) -> Parametric:
        chosen = self.policy.sites[site.name]
        if chosen.quantizer == "float" or chosen.bits >= FLOAT_BITS:
            return Parametric(kinds=(site.kind,) if site.role == ACTIVATION else ())
        name = quantizer_class(chosen.quantizer).at_fixed_bits  # type: ignore[attr-defined]
        settings = attrs.evolve(
            pinned(chosen.bits, name, faithful=self.faithful),
            step=self.step * 2.0 ** (4 - chosen.bits),
            per_channel=self.per_channel,
        )
        return Parametric(weight=settings, activation=settings, fused=self.fused)

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight or bias."""
        return self._scheme(site).weight(site, w)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""
        return self._scheme(site).activation(site, x)
