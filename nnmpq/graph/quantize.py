"""The quantize pass: a float graph in, a quantized graph out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import nnabla as nn

from nnmpq.graph.network import Network, Site
from nnmpq.graph.rewrite import copy_function, rewrite
from nnmpq.graph.schemes import Quantized, Scheme
from nnmpq.graph.trace import trace_graph

if TYPE_CHECKING:
    from nnmpq.policy import Policy


@attrs.frozen(eq=False)
class QuantizedNetwork:
    """A rewritten graph, and what each site got.

    Args:
        output: the quantized graph's output.
        network: layers and sites of the float graph.
        sites: what stands at each covered site, in execution order.
        outputs: all outputs, where the float graph had several.
        float_outputs: the float graph's outputs.
    """

    output: nn.Variable
    network: Network
    sites: dict[str, Quantized]
    outputs: tuple[nn.Variable, ...]
    float_outputs: tuple[nn.Variable, ...]

    def bits(self) -> dict[str, Any]:
        """Return the bits of every covered site, as numbers or differentiable variables of shape ()."""
        return {name: quantized.bits for name, quantized in self.sites.items()}

    def bit_numbers(self) -> dict[str, int]:
        """Return the bits of every covered site as they are now."""
        return {name: quantized.bit_number() for name, quantized in self.sites.items()}

    def parameters(self) -> dict[str, nn.Variable]:
        """Return the parameters of all quantizers by their full names."""
        return {
            f"{name}_quantizer/{key}": variable
            for name, quantized in self.sites.items()
            for key, variable in quantized.parameters.items()
        }

    def policy(
        self,
        *,
        name: str = "",
        method: str = "",
        seed: int | None = None,
        budget: Mapping[str, float] | None = None,
        cost: Mapping[str, float] | None = None,
    ) -> Policy:
        """Return the policy that this network has come to.

        Args:
            name: name of the network.
            method: what produced the bits.
            seed: its seed.
            budget: limits that it had to meet, by name.
            cost: what it costs, by name.
        """
        from nnmpq.policy import Policy, SitePolicy

        sites = {}
        for site in self.network.sites():
            quantized = self.sites.get(site.name)
            if quantized is None:
                continue
            sites[site.name] = SitePolicy(
                role=site.role,
                bits=quantized.bit_number(),
                quantizer=quantized.quantizer_name,
                signed=bool(quantized.quantizer.signed) if quantized.quantizer is not None else site.signed,
            )
        return Policy(
            network=name,
            method=method,
            seed=seed,
            budget=dict(budget or {}),
            cost=dict(cost or {}),
            sites=sites,
        )


def quantize(y: nn.Variable | Sequence[nn.Variable], scheme: Scheme, *, fused: bool = True) -> QuantizedNetwork:
    """Insert quantizers into a float graph.

    Built twice, for training and for evaluation, under the same parameter names, the two graphs share every
    parameter, the quantizers' included. The float graph stays as it was.

    Args:
        y: output of a float graph, or several; built here, by a user, or loaded with `NnpLoader`.
        scheme: decides which quantizer each site gets.
        fused: False builds quantizers of standard functions, whatever the scheme says: slower, but nnabla can
            save the graph.

    Returns:
        The quantized graph with its sites.

    Raises:
        RewriteError: the graph holds functions that were written in Python.
        ValueError: the scheme does not fit the network.

    Example:
        >>> import nnabla.functions as F, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.schemes import Fixed
        >>> x = nn.Variable((4, 3, 8, 8))
        >>> y = PF.affine(F.relu(PF.convolution(x, 6, (3, 3), name="first")), 2, name="last")
        >>> quantize(y, Fixed(weight_bits=3, activation_bits=4)).bit_numbers()["first/conv/relu"]
        4
    """
    roots = [y] if isinstance(y, nn.Variable) else list(y)
    traced = trace_graph(roots)
    scheme.check(traced.network)
    if not fused:
        scheme = attrs.evolve(scheme, fused=False)  # type: ignore[misc]
    done: dict[str, Quantized] = {}

    def weight(site: Site, variable: nn.Variable) -> nn.Variable:
        # Layers that share a weight share its quantized form too.
        if site.name not in done:
            done[site.name] = scheme.weight(site, variable)
        return done[site.name].output

    def activation(variable: nn.Variable, quantizes: nn.Variable) -> nn.Variable:
        site = traced.sites.get(variable)
        if site is None or not scheme.covers(site):
            return quantizes
        done[site.name] = scheme.activation(site, quantizes)
        return done[site.name].output

    def replace(function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
        layer = traced.layers.get(function)
        if layer is not None:
            inputs = list(inputs)
            for position, site in ((1, layer.weight), (2, layer.bias)):
                if site is not None and scheme.covers(site):
                    inputs[position] = weight(site, inputs[position])
        quantized = [v for v in function.outputs if v in traced.sites and scheme.covers(traced.sites[v])]
        if not quantized:
            return copy_function(function, inputs) if layer is not None else None
        if function.info.type_name == "ReLU":
            # An unsigned quantizer clips at zero by itself: it replaces the ReLU.
            return [activation(function.outputs[0], inputs[0])]
        return [activation(v, made) for v, made in zip(function.outputs, copy_function(function, inputs))]

    leaves = {v: activation(v, v) for v in traced.sites if v.parent is None}
    outputs, _ = rewrite(traced.outputs, replace, leaves)
    sites = {site.name: done[site.name] for site in traced.network.sites() if site.name in done}
    return QuantizedNetwork(outputs[0], traced.network, sites, tuple(outputs), tuple(roots))
