"""Networks made by hand for the tests of the report."""

from __future__ import annotations

from nnmpq.graph.network import Layer, Network, Site


def convolution(index: int, channels: int = 16, size: int = 32) -> Layer:
    """A 3x3 convolution that reads the ReLU of the one before it, the first one the input."""
    name = f"res1/layer{index}/conv"
    weight = Site(f"{name}/W", "weight", "convolution", (channels, channels, 3, 3), signed=True, layer=name)
    source = "input" if index == 0 else f"res1/layer{index - 1}/conv/relu"
    shape = (channels, size, size)
    return Layer(name, "convolution", weight, None, 9 * channels * channels * size * size, source, shape, shape)


def affine(inputs: int = 64, outputs: int = 10) -> Layer:
    """An affine layer with a bias that reads something that is no site."""
    weight = Site("fc/W", "weight", "affine", (inputs, outputs), signed=True, layer="fc")
    bias = Site("fc/b", "bias", "affine", (outputs,), signed=True, layer="fc")
    return Layer("fc", "affine", weight, bias, inputs * outputs, None, (inputs,), (outputs,))


def activation(layer: Layer, readers: tuple[str, ...] = ()) -> Site:
    """The ReLU after a layer."""
    return Site(f"{layer.name}/relu", "activation", "relu", layer.output_shape, signed=False, readers=readers)


def chain(length: int) -> Network:
    """Convolutions one after the other and an affine layer at the end."""
    layers = [convolution(index) for index in range(length - 1)]
    readers = [(layer.name,) for layer in layers[1:]] + [()]
    return Network((*layers, affine()), tuple(activation(layer, names) for layer, names in zip(layers, readers)))
