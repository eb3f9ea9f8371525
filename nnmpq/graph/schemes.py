"""Schemes: which quantizer each site gets."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.parameter import get_parameter_or_create

from nnmpq.files import nearest
from nnmpq.graph.network import ACTIVATION, Network, Site, as_tuple
from nnmpq.quantizers import make, name_of, quantizer_class

if TYPE_CHECKING:
    from nnmpq.policy import Policy

FLOAT_BITS = 32


@attrs.frozen
class Quantized:
    """What a scheme puts at a site.

    Args:
        output: the tensor that goes on.
        bits: 32 for float, else a graph variable of shape ().
        quantizer: None for float.
        parameters: the quantizer's raw parameters by name.
        source: the tensor that was quantized.
    """

    output: nn.Variable
    bits: Any = FLOAT_BITS
    quantizer: Any = None
    parameters: dict[str, nn.Variable] = attrs.field(factory=dict)
    source: nn.Variable | None = None

    @property
    def quantizer_name(self) -> str:
        """The quantizer's registered name, "float" without one."""
        return "float" if self.quantizer is None else name_of(self.quantizer)

    def values(self) -> dict[str, np.ndarray]:
        """Return the raw parameters as numbers."""
        return {name: np.array(v.d, np.float32) for name, v in self.parameters.items()}

    def grid(self) -> Any:
        """Return the grid as it is now; only of quantized sites."""
        needs_data = self.quantizer.family in ("midrise", "dorefa", "sign")
        x = np.array(self.source.d) if needs_data and self.source is not None else None
        return self.quantizer.grid(self.values(), x)

    def bit_number(self) -> int:
        """Return the bits as they are now."""
        return FLOAT_BITS if self.quantizer is None else int(self.grid().bits)


class Scheme(Protocol):
    """Decides what stands at each site.

    For sites of kind "relu" after a plain ReLU, `activation` gets the ReLU's input, and what it returns must not be
    negative: an unsigned quantizer clips at zero by itself.
    """

    def check(self, network: Network) -> None:
        """Raise ValueError where the scheme does not fit the network."""

    def covers(self, site: Site) -> bool:
        """Return whether the site is this scheme's, and counts in the cost."""

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight or bias."""

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""


def place(site: Site, quantizer: Any, x: nn.Variable, start: dict[str, np.ndarray], fused: bool = True) -> Quantized:
    """Put a quantizer at a site, with its parameters in the current parameter scope.

    Args:
        site: where; parameters are named "<site>_quantizer/<parameter>".
        quantizer: any registered one.
        x: tensor to quantize.
        start: raw values for parameters that do not exist yet.
        fused: use the fused core, else standard functions.
    """
    parameters = {}
    for name, value in start.items():
        parameters[name] = get_parameter_or_create(
            f"{site.name}_quantizer/{name}",
            np.shape(value),
            initializer=np.asarray(value, np.float32),
            need_grad=quantizer.learned(name),
        )
    output = quantizer.apply(x, parameters, fused)
    return Quantized(output, quantizer.bits(parameters), quantizer, parameters, x)


def exists(site: Site) -> bool:
    """Return whether a site's quantizer already has parameters in the current scope."""
    prefix = f"{site.name}_quantizer/"
    return any(name.startswith(prefix) for name in nn.get_parameters(grad_only=False))


def first_step(w: np.ndarray, bits: int, signed: bool = True) -> float:
    """Return the step that spans a tensor's largest magnitude with that many bits, rounded to a power of two.

    2^floor(log2(max|w| / (2^(b-1) - 1))) up to 4 bits, 2^ceil(...) above.

    Args:
        w: the tensor.
        bits: width.
        signed: whether one bit is the sign.

    Example:
        >>> first_step(np.array([0.9, -0.2]), 4), first_step(np.array([0.9, -0.2]), 8)
        (0.125, 0.0078125)

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, section 4, as in its published code.
    """
    top = float(np.max(np.abs(w))) + float(np.finfo(np.float32).eps)
    exponent = np.log2(top / max(2 ** (bits - int(signed)) - 1, 1))
    return float(2.0 ** (np.ceil(exponent) if bits > 4 else np.floor(exponent)))


@attrs.frozen
class SiteSettings:
    """A quantizer and how it starts.

    Args:
        quantizer: a key of `nnmpq.quantizers.QUANTIZERS`.
        bits: width at the start, or for good where nothing is learned.
        step: step at the start where the data do not say one.
        step_from_data: take a weight's first step from its values.
        options: fields of the quantizer's class: limits, `faithful`, `learn`.
        per_channel: one step and range an output channel; weights only.
    """

    quantizer: str
    bits: int = 4
    step: float = 2.0**-3
    step_from_data: bool = True
    options: dict[str, Any] = attrs.field(factory=dict)
    per_channel: bool = False

    def build(self, site: Site) -> Any:
        """Make the quantizer for a site."""
        options = dict(self.options)
        limits = options.get("bits_limits", (1.0, 8.0))
        signed = site.signed or site.role != ACTIVATION
        if quantizer_class(self.quantizer).family == "uniform" and signed and limits[0] < 2:  # type: ignore[attr-defined]
            limits = (2.0, max(limits[1], 2.0))
        if quantizer_class(self.quantizer).family == "pow2" and signed and site.role == ACTIVATION:  # type: ignore[attr-defined]
            options["with_zero"] = True
            limits = (max(limits[0], 2.0), max(limits[1], 2.0))
        options["bits_limits"] = limits
        if self.per_channel and site.role == "weight":
            options["channel_axis"] = site.channel_axis
        return make(self.quantizer, signed=signed, **options)


@attrs.frozen
class _Patterns:
    """Sites that keep float, or get 8 bits: "first/*" or "first/*:8"."""

    patterns: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    def bits(self, site: Site) -> int | None:
        """Return 32, 8 or another width where a pattern takes the site, else None."""
        for pattern in self.patterns:
            name, _, bits = pattern.partition(":")
            if fnmatch.fnmatchcase(site.name, name) or fnmatch.fnmatchcase(site.layer or "", name):
                return int(bits) if bits else FLOAT_BITS
        return None

    def check(self, network: Network) -> None:
        """Raise ValueError for a pattern that takes no site."""
        sites = list(network.sites())
        for pattern in self.patterns:
            name, _, bits = pattern.partition(":")
            if bits and not (bits.isdigit() and 1 <= int(bits) <= 16):
                raise ValueError(f"keep = {pattern}: after the colon stands a number of bits from 1 to 16")
            if not any(fnmatch.fnmatchcase(s.name, name) or fnmatch.fnmatchcase(s.layer or "", name) for s in sites):
                words = [s.name for s in sites] + [layer.name for layer in network.layers]
                raise ValueError(f"keep = {pattern}: it matches no site; the nearest is {nearest(name, words)}")


def _as_patterns(patterns: Any) -> _Patterns:
    return patterns if isinstance(patterns, _Patterns) else _Patterns(patterns)


@attrs.frozen
class Parametric:
    """Quantizers with learned parameters at weights, activations or both.

    Args:
        weight: settings of weights and biases; None leaves them float.
        activation: settings of activations; None leaves them float.
        kinds: kinds of activations that are this scheme's; Sony's code knows "relu" alone.
        keep: patterns of sites that stay float ("fc/*") or at a fixed width ("conv1/*:8").
        fused: use the fused cores, else standard functions.

    Example:
        >>> Parametric(weight=SiteSettings("uniform_delta_xmax")).covers(Site("a/W", "weight", "affine", (2, 3), True))
        True
    """

    weight_settings: SiteSettings | None = attrs.field(default=None, alias="weight")
    activation_settings: SiteSettings | None = attrs.field(default=None, alias="activation")
    kinds: tuple[str, ...] = attrs.field(default=("relu",), converter=as_tuple)
    keep: _Patterns = attrs.field(default=(), converter=_as_patterns)  # type: ignore[assignment]
    fused: bool = True

    def check(self, network: Network) -> None:
        """Raise ValueError where a pattern takes no site."""
        self.keep.check(network)

    def covers(self, site: Site) -> bool:
        """Return whether the site counts: all weights and biases, and activations of the chosen kinds."""
        return site.role != ACTIVATION or site.kind in self.kinds

    def _settings(self, site: Site) -> SiteSettings | None:
        settings = self.activation_settings if site.role == ACTIVATION else self.weight_settings
        kept = self.keep.bits(site)
        if kept is None:
            return settings
        if kept == FLOAT_BITS:
            return None
        options = {"bits_limits": (float(kept), float(kept))}
        return SiteSettings("uniform_b_xmax", bits=kept, options=options)

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight or bias; a bias starts from its layer's weight's first step."""
        settings = self._settings(site)
        if settings is None:
            return Quantized(w, source=w)
        quantizer = settings.build(site)
        step: float | np.ndarray = settings.step
        source = _start_of_layer(site, w)
        if settings.step_from_data and not exists(site) and np.any(source):
            step = first_step(source, settings.bits)
        if settings.per_channel and site.role == "weight" and site.channel_axis is not None:
            step = np.full(site.shape[site.channel_axis], step, np.float32)
        return place(site, quantizer, w, quantizer.initial(settings.bits, step), self.fused)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""
        settings = self._settings(site)
        if settings is None:
            return Quantized(F.relu(x) if site.kind == "relu" else x, source=x)
        quantizer = settings.build(site)
        bits = max(settings.bits, int(quantizer.bits_limits[0]))
        return place(site, quantizer, x, quantizer.initial(bits, settings.step), self.fused)


def _start_of_layer(site: Site, w: nn.Variable) -> np.ndarray:
    """The values that a site's first step is taken from: its layer's weight."""
    if site.role == "bias":
        weight = nn.get_parameters(grad_only=False).get(f"{site.layer}/W")
        if weight is not None:
            return np.array(weight.d)
    return np.array(w.d)


def Float(kinds: tuple[str, ...] = ("relu",)) -> Parametric:  # noqa: N802
    """Return the scheme that leaves every site float, and counts it at 32 bits."""
    return Parametric(kinds=kinds)


def Fixed(  # noqa: N802
    weight_bits: int | None,
    activation_bits: int | None,
    *,
    quantizer: str = "uniform_b_xmax",
    kinds: tuple[str, ...] = ("relu",),
    keep: tuple[str, ...] = (),
) -> Parametric:
    """Return the scheme with the same bits at every weight, and the same at every activation; the range is learned.

    Args:
        weight_bits: width of weights and biases; None leaves them float.
        activation_bits: width of activations; None leaves them float.
        quantizer: a parametrization with bits, of any family.
        kinds: kinds of activations that are quantized.
        keep: patterns as of `Parametric`.
    """

    def settings(bits: int | None, top: float) -> SiteSettings | None:
        if bits is None:
            return None
        options = {"bits_limits": (float(bits), float(bits)), "xmax_limits": (2.0**-8, top)}
        return SiteSettings(quantizer, bits=bits, options=options)

    return Parametric(
        weight=settings(weight_bits, 127.0),
        activation=settings(activation_bits, 255.0),
        kinds=kinds,
        keep=keep,
    )


@attrs.frozen
class FromPolicy:
    """Every site at its policy's bits, with a learned range.

    Args:
        policy: bits and quantizers by site.
        step: step at the start where the data do not say one.
        fused: use the fused cores, else standard functions.
        faithful: quantizers as in the published code.
    """

    policy: Policy
    step: float = 2.0**-3
    fused: bool = True
    faithful: bool = False

    def check(self, network: Network) -> None:
        """Raise ValueError naming sites that the policy misses or has too many."""
        self.policy.check(network)

    def covers(self, site: Site) -> bool:
        """Return whether the policy names the site."""
        return site.name in self.policy.sites

    def _scheme(self, site: Site) -> Parametric:
        chosen = self.policy.sites[site.name]
        if chosen.quantizer == "float" or chosen.bits >= FLOAT_BITS:
            return Parametric(kinds=(site.kind,), fused=self.fused)
        name = quantizer_class(chosen.quantizer).at_fixed_bits  # type: ignore[attr-defined]
        options = {"bits_limits": (float(chosen.bits), float(chosen.bits)), "faithful": self.faithful}
        if site.role == ACTIVATION:
            options["xmax_limits"] = (2.0**-8, 255.0)
        settings = SiteSettings(name, bits=chosen.bits, step=self.step, options=options)
        return Parametric(weight=settings, activation=settings, kinds=(site.kind,), fused=self.fused)

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight or bias."""
        return self._scheme(site).weight(site, w)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""
        return self._scheme(site).activation(site, x)
