"""What quantizer a site gets and how it starts: settings, first steps, and patterns for exceptions."""

from __future__ import annotations

import fnmatch
from typing import Any

import attrs
import numpy as np

from nnmpq.files import nearest
from nnmpq.graph.network import ACTIVATION, BIAS, WEIGHT, Network, Site
from nnmpq.quantizers import make, quantizer_class

FLOAT_BITS = 32
# Limits of raw parameters by the role of the site, as published.
WEIGHT_LIMITS = {
    "bits_limits": (2.0, 8.0),
    "step_limits": (2.0**-8, 1.0),
    "xmin_limits": (2.0**-16, 127.0),
    "xmax_limits": (2.0**-8, 127.0),
}
ACTIVATION_LIMITS = {
    "bits_limits": (1.0, 8.0),
    "step_limits": (2.0**-8, 1.0),
    "xmin_limits": (2.0**-14, 255.0),
    "xmax_limits": (2.0**-8, 255.0),
}
# Quantizers that only make sense for one role; the others serve both.
WEIGHT_FAMILIES = ("midrise", "dorefa", "sign", "symmetric")
ACTIVATION_QUANTIZERS = ("half_wave_gaussian", "pact")


def first_step(w: np.ndarray, bits: int, axis: int | None = None) -> Any:
    """Return the power of two at which a weight's largest magnitude takes so many bits, sign included.

    2^floor(log2(m / (2^(b-1) - 1))) up to 4 bits, 2^ceil(...) above, m = max|w| + 2^-23.

    Args:
        w: the weight.
        bits: width, 1 or more; 1 is treated as 2.
        axis: one step an entry of this axis; None gives one for the whole tensor.

    Returns:
        The step, shape () or (C,); 0 where all weights are zero.

    Example:
        >>> w = np.array([[0.9, -0.2], [0.0, 0.0]])
        >>> float(first_step(w, 4)), float(first_step(w, 8)), first_step(w, 4, axis=0).tolist()
        (0.125, 0.0078125, [0.125, 0.0])

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, section 4; the ceiling is the published code's.
    """
    others = None if axis is None else tuple(i for i in range(np.ndim(w)) if i != axis)
    largest = np.max(np.abs(np.asarray(w, np.float64)), axis=others)
    exponent = np.log2((largest + np.finfo(np.float32).eps) / max(2 ** (bits - 1) - 1, 1))
    step = 2.0 ** (np.ceil(exponent) if bits > 4 else np.floor(exponent))
    return np.where(largest > 0, step, 0.0)


def start_step(bits: int) -> float:
    """Return the step of a grid to about 2 when the data say none: 2^-3 at 4 bits, as published, and so on.

    Example:
        >>> start_step(4), start_step(8)
        (0.125, 0.0078125)
    """
    return 2.0 ** (1 - bits)


@attrs.frozen
class SiteSettings:
    """A quantizer and how it starts.

    Args:
        quantizer: a key of `nnmpq.quantizers.QUANTIZERS`.
        bits: width at the start, or for good where nothing is learned.
        step: step at the start where the data do not say one.
        step_from_data: take the first step of a weight and its bias from the weight, unless that is all zero.
        options: fields of the quantizer's class: limits (else the published ones), `faithful`, `learn`.
        per_channel: one step and range an output channel; weights only.
    """

    quantizer: str = attrs.field()
    bits: int = 4
    step: float = 2.0**-3
    step_from_data: bool = True
    options: dict[str, Any] = attrs.field(factory=dict)
    per_channel: bool = False

    @quantizer.validator
    def _registered(self, attribute: Any, value: str) -> None:
        quantizer_class(value)

    def for_site(self, site: Site) -> SiteSettings | None:
        """Return what stands at this site: itself, a substitute where it cannot serve, or None for float.

        A bias beside a weight quantizer without learned range stays float, as in those quantizers' papers. A
        signed activation beside a quantizer that starts at zero gets a signed uniform one of the same bits.

        Raises:
            ValueError: the quantizer is not for sites of this role.
        """
        family = quantizer_class(self.quantizer).family  # type: ignore[attr-defined]
        if site.role == ACTIVATION and family in WEIGHT_FAMILIES:
            raise ValueError(f"{self.quantizer} at {site.name}: it is for weights, not for activations")
        if site.role != ACTIVATION and self.quantizer in ACTIVATION_QUANTIZERS:
            raise ValueError(f"{self.quantizer} at {site.name}: it is for activations, not for weights")
        if site.role == BIAS and family in WEIGHT_FAMILIES:
            return None
        if self.quantizer in ACTIVATION_QUANTIZERS and site.signed:
            return attrs.evolve(pinned(max(self.bits, 2)), step=self.step)
        return self

    def build(self, site: Site) -> Any:
        """Make the quantizer for a site.

        Activations have a zero on their grid, weights of the power-of-two family do not. A signed activation
        gets 2 bits at least, for zero and both signs, whatever the settings say to all activations.

        Raises:
            ValueError: the quantizer cannot have such bits.
        """
        activation = site.role == ACTIVATION
        options: dict[str, Any] = {
            "with_zero": activation,
            **(ACTIVATION_LIMITS if activation else WEIGHT_LIMITS),
        }
        options.update(self.options, signed=site.signed or not activation)
        family = quantizer_class(self.quantizer).family  # type: ignore[attr-defined]
        if family in WEIGHT_FAMILIES and "bits_limits" not in self.options:
            del options["bits_limits"]
        elif options["signed"] and activation:
            low, high = options["bits_limits"]
            options["bits_limits"] = (max(low, 2.0), max(high, 2.0))
        if self.per_channel and site.role == WEIGHT:
            options["channel_axis"] = site.channel_axis
        return make(self.quantizer, **options)


def pinned(bits: int, quantizer: str = "uniform_b_xmax", **options: Any) -> SiteSettings:
    """Return settings of a quantizer with bits for good and a learned range.

    Args:
        bits: width.
        quantizer: a parametrization with bits, of any family.
        options: more fields of its class.
    """
    limits = (float(bits), float(bits))
    return SiteSettings(quantizer, bits, start_step(bits), options={"bits_limits": limits, **options})


def _matches(site: Site, name: str) -> bool:
    return fnmatch.fnmatchcase(site.name, name) or fnmatch.fnmatchcase(site.layer or "", name)


@attrs.frozen
class Patterns:
    """Sites that stay float ("fc/*"), or get so many bits for good ("conv1/*:8").

    Args:
        patterns: file-name patterns on names of sites, or of layers for weights; the first that fits acts.
    """

    patterns: tuple[str, ...] = attrs.field(default=())

    @patterns.validator
    def _well_formed(self, attribute: Any, value: tuple[str, ...]) -> None:
        if isinstance(value, str):
            raise ValueError(f"keep = {value!r}: a tuple of patterns is needed: ({value!r},)")
        for pattern in value:
            name, colon, bits = pattern.partition(":")
            if not name or (colon and not (bits.isdigit() and 1 <= int(bits) <= 16)):
                raise ValueError(f"keep = {pattern}: a pattern is needed, and after a colon bits from 1 to 16: fc/*:8")

    def bits(self, site: Site) -> int | None:
        """Return the bits that a pattern gives the site, 32 for float; None where none fits.

        Example:
            >>> site = Site("fc/W", "weight", "affine", (2, 3), True, layer="fc")
            >>> Patterns(("conv*", "fc:8")).bits(site), Patterns(("f?/W",)).bits(site), Patterns().bits(site)
            (8, 32, None)
        """
        for pattern in self.patterns:
            name, _, bits = pattern.partition(":")
            if _matches(site, name):
                return int(bits) if bits else FLOAT_BITS
        return None

    def check(self, network: Network) -> None:
        """Raise ValueError for a pattern that fits no site; it names the nearest."""
        sites = list(network.sites())
        for pattern in self.patterns:
            name = pattern.partition(":")[0]
            if not any(_matches(site, name) for site in sites):
                words = [s.name for s in sites] + [layer.name for layer in network.layers]
                raise ValueError(f"keep = {pattern}: it fits no site; the nearest is {nearest(name, words)!r}")
