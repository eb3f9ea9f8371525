"""Costs against published constants and closed forms, and graph variables against numbers."""

from __future__ import annotations

import attrs
import nnabla as nn
import numpy as np
import pytest

from nnmpq.cost import TARGETS, cost
from nnmpq.graph.network import Layer, Network, Site
from nnmpq.graph.trace import trace
from nnmpq.models import build

KIB_BITS = 8192


@pytest.fixture
def resnet20() -> Network:
    return trace(build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20))


def uniform_bits(network: Network, weight: int, activation: int) -> dict[str, int]:
    """Sony's count: all weights and biases, the outputs of the ReLUs."""
    sites = [s for s in network.sites() if s.role != "activation" or s.kind == "relu"]
    return {s.name: activation if s.role == "activation" else weight for s in sites}


def tiny() -> Network:
    """Three layers of 8x4, 4x4 and 4x2 weights, 10, 20 and 30 MACs; activations of 8, 4 and 4 elements."""
    layers, activations = [], []
    for name, shape, macs in (("a", (8, 4), 10), ("b", (4, 4), 20), ("c", (4, 2), 30)):
        weight = Site(f"{name}/W", "weight", "affine", shape, True, name, 1)
        bias = Site(f"{name}/b", "bias", "affine", (2,), True, name, 0) if name == "c" else None
        source = Site(f"{name}/in", "activation", "relu", shape[:1], False, readers=(name,))
        layers.append(Layer(name, "affine", weight, bias, macs, source.name, shape[:1], shape[1:]))
        activations.append(source)
    return Network(layers, activations)


NUMBERS = {"a/W": 2, "b/W": 3, "c/W": 5, "c/b": 6, "a/in": 4, "b/in": 7, "c/in": 8}


def as_variables(numbers) -> dict[str, nn.Variable]:
    made = {}
    for name, value in numbers.items():
        made[name] = nn.Variable.from_numpy_array(np.float32(value)).apply(need_grad=True)
        made[name].g = 0
    return made


@pytest.mark.parametrize(
    "weight, activation, kib", [(32, 32, (1048.23, 736, 64)), (2, 4, (65.51, 92, 8)), (4, 32, (131.03, 736, 64))]
)
def test_published_sizes_of_resnet20(resnet20, weight, activation, kib):
    """Uhlich et al., table 3: 1048/64/736 KB at 32 bits, 65.5/8/92 at 2 and 4."""
    found = cost(resnet20, uniform_bits(resnet20, weight, activation))
    assert sum(s.elements for s in resnet20.sites() if s.role != "activation") == 268_346
    assert round(found.weights_kib, 2) == kib[0]
    assert (found.activations_sum_kib, found.activations_max_kib) == kib[1:]


def test_bitops_of_resnet20(resnet20):
    """He et al.: 9 convolutions a stage but for the strided ones; MACs counted by hand."""
    first, fc = 9 * 3 * 16 * 32 * 32, 64 * 10
    stages = 6 * 9 * 16 * 16 * 32 * 32
    stages += (9 * 16 * 32 + 5 * 9 * 32 * 32) * 16 * 16 + (9 * 32 * 64 + 5 * 9 * 64 * 64) * 8 * 8
    bits = {**uniform_bits(resnet20, 2, 4), "input": 8}
    pooled = resnet20.layers[-1].input
    assert pooled is not None
    bits[pooled] = 4
    found = cost(resnet20, bits)
    assert found.bitops_inner == stages * 2 * 4
    assert found.bitops == stages * 8 + first * 2 * 8 + fc * 2 * 4
    assert found.mean_bits == pytest.approx((found.bitops / (first + stages + fc)) ** 0.5)


def test_numbers_by_hand():
    found = cost(tiny(), NUMBERS)
    assert found.weights_kib == (32 * 2 + 16 * 3 + 8 * 5 + 2 * 6) / KIB_BITS
    assert found.activations_sum_kib == (8 * 4 + 4 * 7 + 4 * 8) / KIB_BITS
    assert found.activations_max_kib == 8 * 4 / KIB_BITS
    assert found.bitops == 10 * 2 * 4 + 20 * 3 * 7 + 30 * 5 * 8
    assert found.bitops_inner == 20 * 3 * 7
    assert found.mean_bits == (found.bitops / 60) ** 0.5


def test_sites_without_bits():
    """Weights count 32; activations count nothing in KiB, 32 in BitOps."""
    found = cost(tiny(), {"a/in": 4})
    assert found.weights_kib == 58 * 32 / KIB_BITS
    assert found.activations_sum_kib == found.activations_max_kib == 8 * 4 / KIB_BITS
    assert found.bitops == 10 * 32 * 4 + 50 * 32 * 32
    assert cost(tiny(), {}).activations_max_kib == 0


def test_variables_equal_numbers():
    for share in ({}, {"a/W": 2, "b/in": 7}, {"a/in": 4, "c/b": 6, "c/W": 5}):
        variables = {**as_variables({k: v for k, v in NUMBERS.items() if k not in share}), **share}
        expected = attrs.asdict(cost(tiny(), NUMBERS))
        for name, found in attrs.asdict(cost(tiny(), variables), recurse=False).items():
            if isinstance(found, nn.Variable):
                assert found.shape == ()
                found.forward()
                found = found.d
            assert found == pytest.approx(expected[name], rel=1e-6), name


GRADIENTS = {
    "weights_kib": {"a/W": 32 / KIB_BITS, "b/W": 16 / KIB_BITS, "c/W": 8 / KIB_BITS, "c/b": 2 / KIB_BITS},
    "activations_sum_kib": {"a/in": 8 / KIB_BITS, "b/in": 4 / KIB_BITS, "c/in": 4 / KIB_BITS},
    "bitops": {"a/W": 40, "b/W": 140, "c/W": 240, "a/in": 20, "b/in": 60, "c/in": 150},
    "bitops_inner": {"b/W": 140, "b/in": 60},
}
MEAN = (1700 / 60) ** 0.5
GRADIENTS["mean_bits"] = {name: g / (2 * 60 * MEAN) for name, g in GRADIENTS["bitops"].items()}


@pytest.mark.parametrize("target", sorted(GRADIENTS))
def test_gradients(target):
    """d/db of sum(n b), of sum(m b c), and of sqrt(B / M) = dB / (2 M sqrt(B / M))."""
    variables = as_variables(NUMBERS)
    total = TARGETS[target](tiny(), variables)
    total.forward()
    total.backward(1.0)
    for name, v in variables.items():
        assert float(v.g) == pytest.approx(GRADIENTS[target].get(name, 0.0), rel=1e-5), name


def test_gradient_of_the_largest_goes_to_one_of_equals():
    variables = as_variables({"a/in": 4, "b/in": 8, "c/in": 8})  # 32 bits each
    total = TARGETS["activations_max_kib"](tiny(), variables)
    total.forward()
    total.backward(1.0)
    found = [float(v.g) for v in variables.values()]
    assert sorted(found)[:2] == [0, 0]
    assert max(found) in (8 / KIB_BITS, 4 / KIB_BITS)


def test_scales_cost_four_bytes_each():
    plain, scaled = cost(tiny(), NUMBERS), cost(tiny(), NUMBERS, scale_channels={"a/W": 4, "b/W": 1})
    assert scaled.weights_kib - plain.weights_kib == pytest.approx(5 * 4 / 1024)
    assert attrs.evolve(scaled, weights_kib=plain.weights_kib) == plain
    variable = cost(tiny(), as_variables(NUMBERS), scale_channels={"a/W": 4, "b/W": 1}).weights_kib
    variable.forward()
    assert float(variable.d) == pytest.approx(scaled.weights_kib, rel=1e-6)
