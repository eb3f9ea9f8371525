"""One block at one precision: the ordinary quantize pass over its part of the graph, normalization of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import nnabla as nn
import numpy as np
from nnabla.parameter import get_parameter_or_create

from nnmpq.dynamic.blocks import Block, constants_of, on_other_input
from nnmpq.graph.functions import functions_of, parameter_names
from nnmpq.graph.network import ACTIVATION, Network, Site
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.quantized import Quantized, Scheme
from nnmpq.graph.schemes import FLOAT_BITS, Parametric, SiteSettings
from nnmpq.graph.trace import Traced, trace_graph
from nnmpq.quantizers import quantizer_class

NORMALIZATIONS = ("BatchNormalization", "FusedBatchNormalization")


def scope_of(bits: int) -> str:
    """Return the scope in which a precision's own parameters are: "precision4" for 4 bits."""
    return f"precision{bits}"


@attrs.frozen(eq=False)
class Renamed:
    """A scheme whose sites go by other names, so that several of one network have parameters of their own.

    Args:
        scheme: what decides.
        prefix: scope before every name.
        activations: by the name that a part's own trace gives, the site in the whole network.
    """

    scheme: Scheme
    prefix: str
    activations: Mapping[str, Site]

    def site(self, site: Site) -> Site:
        """Return the site under its name here."""
        known = self.activations.get(site.name, site) if site.role == ACTIVATION else site
        return attrs.evolve(known, name=f"{self.prefix}/{known.name}" if self.prefix else known.name)

    def check(self, network: Network) -> None:
        """Patterns are checked once, against the whole network."""

    def covers(self, site: Site) -> bool:
        """Return whether the scheme has a quantizer for the site; what the part's trace alone knows has none."""
        return (site.role != ACTIVATION or site.name in self.activations) and self.scheme.covers(self.site(site))

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight or bias."""
        return self.scheme.weight(self.site(site), w)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""
        return self.scheme.activation(self.site(site), x)


def _at(settings: SiteSettings | None, bits: int, role: str) -> SiteSettings | None:
    """Settings at another width for good, with the range that they have."""
    if settings is None or bits >= FLOAT_BITS:
        return None
    chosen = quantizer_class(settings.quantizer)
    name = chosen.at_fixed_bits  # type: ignore[attr-defined]
    options = {**settings.options, "bits_limits": (float(bits), float(bits))}
    if role != ACTIVATION and bits == 1 and chosen.family != "dorefa":  # type: ignore[attr-defined]
        # A signed grid of one bit has no second level; sign times mean has.
        name = "sign_mean"
    step = settings.step * (2**settings.bits - 1) / (2**bits - 1)
    return attrs.evolve(settings, quantizer=name, bits=bits, step=step, options=options)


def at_precision(scheme: Parametric, bits: int) -> Parametric:
    """Return a scheme with all its weights and activations at so many bits, ranges as they are.

    Args:
        scheme: its quantizers, their range at the start, its `keep`.
        bits: width for good, 32 for float; one bit makes sign times mean of uniform weights.

    Example:
        >>> scheme = Parametric(weight=SiteSettings("uniform_delta_xmax"), activation=SiteSettings("pact", 4, 1 / 15))
        >>> one = at_precision(scheme, 1)
        >>> one.weight_settings.quantizer, one.activation_settings.bits, round(one.activation_settings.step, 6)
        ('sign_mean', 1, 1.0)
    """
    return attrs.evolve(
        scheme,
        weight=_at(scheme.weight_settings, bits, "weight"),
        activation=_at(scheme.activation_settings, bits, ACTIVATION),
    )


@attrs.frozen(eq=False)
class Part:
    """A quantized part of a network on an input of its own.

    Args:
        entry: its input.
        quantized: the part.
        scheme: what quantized it, and under which names.
    """

    entry: nn.Variable
    quantized: QuantizedNetwork
    scheme: Renamed

    def sites(self) -> dict[str, Quantized]:
        """Return what stands at each site, by the names that its parameters have."""
        network = self.quantized.network
        return {self.scheme.site(network.site(name)).name: found for name, found in self.quantized.sites.items()}

    def on(self, x: nn.Variable, *, frozen: bool = False) -> nn.Variable:
        """Return the part's output with x as its input.

        Args:
            x: same shape as `entry`.
            frozen: weights are quantized once, now, and not at each call.
        """
        return on_other_input(self.quantized.output, self.entry, x, self.constants() if frozen else None)[0]

    def constants(self) -> dict[nn.Variable, nn.Variable]:
        """Return what the part computes from parameters alone, as `constants_of` does."""
        return constants_of(self.quantized.output, self.entry)


def _private_parameters(block: Block, prefix: str) -> dict[nn.Variable, nn.Variable]:
    """Normalization parameters of a precision; where they do not exist yet they start as those of the block do."""
    names = parameter_names()
    inside = _inside(block)
    found = {}
    for function in inside:
        if function.info.type_name in NORMALIZATIONS:
            for v in function.inputs[1:5]:
                found[v] = get_parameter_or_create(
                    f"{prefix}/{names[v.data]}", v.shape, np.array(v.d, np.float32), v.need_grad
                )
    return found


def _inside(block: Block) -> list[Any]:
    """The functions of a block."""
    before = set(functions_of([block.entry]))
    return [f for f in functions_of([block.exit]) if f not in before]


def build_path(block: Block, whole: Traced, scheme: Parametric, bits: int) -> Part:
    """Quantize a block at one precision, in the current parameter scope.

    Weights are the block's own, shared by all precisions. Normalization and quantizers are this precision's: the
    parameter "res1/block1/conv1/bn/gamma" is "precision4/res1/block1/conv1/bn/gamma" at 4 bits.

    Args:
        block: a block of a float graph.
        whole: the trace of that graph; activations go by their names in it.
        scheme: quantizers and their ranges.
        bits: width of weights and activations, 32 for float.

    Returns:
        The block on an input of its own.

    Example:
        >>> from nnmpq.dynamic.blocks import find_blocks
        >>> from nnmpq.models import build
        >>> y = build("preact_resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20)
        >>> scheme = Parametric(weight=SiteSettings("dorefa"), activation=SiteSettings("pact", 4, 1 / 15))
        >>> path = build_path(find_blocks(y)[0], trace_graph(y), scheme, 1)
        >>> path.quantized.sites["res1/block1/conv1/conv/W"].bit_number()
        1
    """
    prefix = scope_of(bits)
    entry = nn.Variable(block.entry.shape, need_grad=True)
    output, variables = on_other_input(block.exit, block.entry, entry, _private_parameters(block, prefix))
    own = trace_graph(output).sites
    known = {old: variables[old] for old in whole.sites if old in variables and variables[old] in own}
    names = {own[new].name: whole.sites[old] for old, new in known.items()}
    renamed = Renamed(at_precision(scheme, bits), prefix, names)
    return Part(entry, quantize(output, renamed), renamed)
