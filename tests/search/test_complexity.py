"""Complexity in mean bits, and the published weight of it."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.graph.network import Layer, Site
from nnmpq.search.complexity import from_published, published_size, relative_complexity, searched_layers
from tests.search.small import network

bits = st.floats(1.0, 8.0)


@given(bits, bits, bits)
def test_the_same_bits_everywhere_are_their_square(read, narrow, wide):
    net = network([10, 30], [5], [(0,), (0,)])
    same = relative_complexity(net, net.layers, {"l0/W": read, "l1/W": read, "a0/relu": read})
    assert same == pytest.approx(read**2)
    # 70 MACs against 210.
    found = relative_complexity(net, net.layers, {"l0/W": narrow, "l1/W": wide, "a0/relu": read})
    assert found == pytest.approx(read * (narrow + 3 * wide) / 4)


def test_its_slope_is_the_share_of_macs_times_what_is_read():
    net = network([10, 30], [5], [(0,), (0,)])
    numbers = {"l0/W": 2.0, "l1/W": 4.0, "a0/relu": 3.0}
    graph = {name: nn.Variable.from_numpy_array(np.float32(v)).apply(need_grad=True) for name, v in numbers.items()}
    for variable in graph.values():
        variable.g = 0
    found = relative_complexity(net, net.layers, graph)
    found.forward()
    found.backward()
    slopes = {name: float(variable.g) for name, variable in graph.items()}
    assert slopes == {"l0/W": pytest.approx(3 / 4), "l1/W": pytest.approx(9 / 4), "a0/relu": pytest.approx(3.5)}


def test_only_searched_layers_count():
    net = network([10, 30, 20], [5], [(0,), (0,), (0,)])
    layers = searched_layers(net, {"l1/W", "a0/relu"})
    assert [layer.name for layer in layers] == ["l1"]
    found = relative_complexity(net, layers, {"l0/W": 32, "l1/W": 2, "l2/W": 32, "a0/relu": 2})
    assert found == pytest.approx(4.0)


def convolution(channels: int, size: int, stride: int) -> Layer:
    weight = Site("c/W", "weight", "convolution", (channels, channels, 3, 3), True, layer="c")
    shapes = (channels, size, size), (channels, size // stride, size // stride)
    return Layer("c", "convolution", weight, None, 0, None, *shapes)


def test_a_published_weight_is_converted_by_all_layers_over_the_first():
    # 64 channels on 56 x 56 pixels: the published 115.6 MMAC; 128 channels behind a stride of 2: twice that.
    first, second = convolution(64, 56, 1), convolution(128, 56, 2)
    assert published_size(first) == 64 * 64 * 9 * 56 * 56
    assert published_size(second) == 128 * 128 * 9 * 28 * 28
    assert from_published(0.1, (first, second)) == pytest.approx(0.1 * (1 + 1))
    assert from_published(0.1, (first,)) == pytest.approx(0.1)
