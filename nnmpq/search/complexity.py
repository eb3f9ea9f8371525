"""What a search is told to save: expected complexity a MAC, and EdMIPS' published weight of it in these units."""

from __future__ import annotations

from collections.abc import Collection

import nnabla as nn

from nnmpq.cost import Bits, bitops
from nnmpq.graph.network import Layer, Network


def searched_layers(network: Network, sites: Collection[str]) -> tuple[Layer, ...]:
    """Return the layers whose weight is searched.

    Args:
        network: the network.
        sites: names of the sites that are searched.
    """
    return tuple(layer for layer in network.layers if layer.weight.name in sites)


def relative_complexity(network: Network, layers: tuple[Layer, ...], bits: Bits) -> nn.Variable:
    """Return sum_l MACs_l E[a_l] E[w_l] / sum_l MACs_l, shape (): mean bits, squared.

    Args:
        network: the network.
        layers: those that count; the published search leaves the first and the last out, as they are float.
        bits: by site, expected bits as graph variables.

    Raises:
        ValueError: there is no layer.

    Source:
        Cai and Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks", CVPR 2020,
        equation 17, over the layers' sum instead of the first one.
    """
    macs = sum(layer.macs for layer in layers)
    if not macs:
        raise ValueError("no layer's weight is searched: nothing has a complexity")
    total = bitops(Network(layers, network.activations), bits)
    return total * (1.0 / macs)


def published_size(layer: Layer) -> float:
    """Return a layer's size in the published code: weights * input pixels / stride^2, a MAC count for padded layers.

    Example:
        >>> from nnmpq.graph.network import Site
        >>> weight = Site("c/W", "weight", "convolution", (64, 64, 3, 3), True, layer="c")
        >>> published_size(Layer("c", "convolution", weight, None, 0, None, (64, 56, 56), (64, 56, 56)))
        115605504.0
    """
    pixels, stride = 1, 1
    if len(layer.input_shape) == 3:
        _, height, width = layer.input_shape
        pixels = height * width
        stride = max(round(height / layer.output_shape[1]), 1) * max(round(width / layer.output_shape[2]), 1)
    return layer.weight.elements * pixels / stride


def from_published(cd: float, layers: tuple[Layer, ...]) -> float:
    """Return the weight of `relative_complexity` that a published ``cd`` means on a network.

    lambda = cd * sum_l C_l / C_0, C_0 the first searched layer's size.

    The published loss divides by one layer, which is 22 times larger in one network than in another; in these units
    the four published weights are all between 0.042 and 0.052.

    Args:
        cd: weight decay of the complexity, >= 0.
        layers: those that are searched, in execution order.

    Source:
        The published code and README of Cai and Vasconcelos, CVPR 2020.
    """
    sizes = [published_size(layer) for layer in layers]
    return cd * sum(sizes) / sizes[0]
