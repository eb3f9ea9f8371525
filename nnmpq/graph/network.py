"""What a traced network is: its layers and the tensors that can get a quantizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from nnmpq.files import nearest

WEIGHT = "weight"
BIAS = "bias"
ACTIVATION = "activation"

LAYER_KINDS = ("convolution", "depthwise", "deconvolution", "affine")
ACTIVATION_KINDS = ("input", "relu", "sum", "branch", "pool", "linear", "nonlinearity")


def as_tuple(items: Iterable[Any]) -> tuple[Any, ...]:
    """Return the items as a tuple; `tuple` itself, with a type that attrs' converters need."""
    return tuple(items)


@attrs.frozen
class Site:
    """One tensor that can get a quantizer.

    Args:
        name: "<layer>/W", "<layer>/b" or "<nearest layer upstream>/<kind>".
        role: "weight", "bias" or "activation".
        kind: the layer's kind, or for activations one of `ACTIVATION_KINDS`.
        shape: shape of the tensor; activations without their batch dimension.
        signed: whether the tensor can hold negative numbers.
        layer: name of the layer that owns a weight or bias, else None.
        channel_axis: axis of the output channels of a weight, else None.
        readers: names of the layers that read an activation.
    """

    name: str
    role: str = attrs.field(validator=attrs.validators.in_((WEIGHT, BIAS, ACTIVATION)))
    kind: str = attrs.field(validator=attrs.validators.in_(LAYER_KINDS + ACTIVATION_KINDS))
    shape: tuple[int, ...] = attrs.field(converter=as_tuple)
    signed: bool
    layer: str | None = None
    channel_axis: int | None = None
    readers: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)

    @property
    def elements(self) -> int:
        """Number of elements, without the batch.

        Example:
            >>> Site("conv/relu", "activation", "relu", (16, 32, 32), signed=False).elements
            16384
        """
        count = 1
        for length in self.shape:
            count *= length
        return count


@attrs.frozen
class Layer:
    """A convolution, depthwise convolution, deconvolution or affine with a weight.

    Args:
        name: scope of the weight parameter.
        kind: one of `LAYER_KINDS`.
        weight: the weight's site.
        bias: the bias' site, if it has one.
        macs: multiplications and accumulations per image.
        input: name of the activation site that it reads, None if that is not a site.
        input_shape: shape of what it reads, without the batch.
        output_shape: shape of what it writes, without the batch.
        inputs: names of all sites that it reads, `input` first; a concatenation joins several.
    """

    name: str
    kind: str = attrs.field(validator=attrs.validators.in_(LAYER_KINDS))
    weight: Site
    bias: Site | None
    macs: int
    input: str | None
    input_shape: tuple[int, ...] = attrs.field(converter=as_tuple)
    output_shape: tuple[int, ...] = attrs.field(converter=as_tuple)
    inputs: tuple[str, ...] = attrs.field(converter=as_tuple)

    @inputs.default
    def _one_input(self) -> tuple[str, ...]:
        return () if self.input is None else (self.input,)


@attrs.frozen
class Network:
    """The layers and activation sites of a graph, both in execution order."""

    layers: tuple[Layer, ...] = attrs.field(converter=as_tuple)
    activations: tuple[Site, ...] = attrs.field(converter=as_tuple)

    def sites(self) -> Iterator[Site]:
        """Yield every site: weights and biases layer by layer, then the activations."""
        seen: set[str] = set()
        for layer in self.layers:
            for site in (layer.weight, layer.bias):
                if site is not None and site.name not in seen:
                    seen.add(site.name)
                    yield site
        yield from self.activations

    def site(self, name: str) -> Site:
        """Return the site of that name.

        Raises:
            KeyError: no site has it; the nearest is named.
        """
        for site in self.sites():
            if site.name == name:
                return site
        raise KeyError(f"no site {name!r}; the nearest is {nearest(name, [s.name for s in self.sites()])!r}")

    def layer(self, name: str) -> Layer:
        """Return the first layer of that name.

        Raises:
            KeyError: no layer has it; the nearest is named.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; the nearest is {nearest(name, [x.name for x in self.layers])!r}")

    @property
    def macs(self) -> int:
        """Multiplications and accumulations per image, all layers."""
        return sum(layer.macs for layer in self.layers)
