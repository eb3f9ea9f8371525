from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.graph.trace import trace
from nnmpq.models import build
from nnmpq.models.densenet import densenet


def parameters(part: str = "") -> int:
    return sum(v.size for name, v in nn.get_parameters().items() if part in f"/{name}")


def test_the_counts_of_the_paper() -> None:
    network = trace(build("densenet40", nn.Variable((1, 3, 32, 32)), 10))
    assert round(parameters() / 1e6, 1) == 1.0
    assert len(network.layers) == 40


def test_the_counts_of_proqha() -> None:
    network = trace(build("densenet40", nn.Variable((1, 3, 32, 32)), 10, first_channels=24))
    assert sum(layer.weight.elements for layer in network.layers) / 1e6 == pytest.approx(1.041, abs=6e-4)
    assert network.macs / 1e6 == pytest.approx(282.9, abs=0.05)
    quantised = network.layers[1:-1]
    assert len(quantised) == 38
    assert sum(layer.weight.elements for layer in quantised) / 1e6 == pytest.approx(1.035, abs=6e-4)
    assert sum(layer.macs for layer in quantised) / 1e6 == pytest.approx(282.3, abs=0.06)
    assert network.layers[-1].input_shape == (456, 1, 1)


@pytest.mark.parametrize("depth,growth,first", [(40, 12, 16), (40, 24, 16), (22, 5, 7)])
def test_the_counts_of_the_formula(depth: int, growth: int, first: int) -> None:
    network = trace(densenet(depth, nn.Variable((1, 3, 32, 32)), 10, growth=growth, first_channels=first))
    n = (depth - 4) // 3
    # Of each block: its channels at the start, and the sum of what its n layers read.
    starts = [first + n * growth * block for block in range(3)]
    reads = [n * start + growth * n * (n - 1) // 2 for start in starts]
    ends = [start + n * growth for start in starts]
    dense = [9 * growth * read for read in reads]
    transitions = [end**2 for end in ends[:2]]
    assert parameters("/conv/W") == 27 * first + sum(dense) + sum(transitions)
    assert parameters("/bn/") == 2 * (sum(reads) + sum(ends))
    assert parameters("/fc/") == 10 * ends[2] + 10
    pixels = (32**2, 16**2, 8**2)
    macs = sum(d * p for d, p in zip(dense, pixels)) + sum(t * p for t, p in zip(transitions, pixels))
    assert network.macs == 27 * first * 32**2 + macs + 10 * ends[2]


def test_a_layer_adds_its_channels_behind_those_before() -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 12, 12))
    y = densenet(10, x, 5, growth=4, first_channels=6, test=True, rng=np.random.RandomState(1))
    weights = nn.get_parameters()
    for name, weight in weights.items():
        if name.endswith("conv/W") and "block" in name:
            weight.d = 0  # what the blocks add is nothing
        elif "transition" in name and name.endswith("conv/W"):
            weight.d = np.eye(len(weight.d))[:, :, None, None]
    y.forward()
    stem = nn.functions.convolution(x, weights["conv1/conv/W"], pad=(1, 1))
    stem.forward()
    scale = np.sqrt(1 + 1e-5)  # of each of the three normalizations on the way
    h = np.maximum(stem.d, 0) / scale**3
    features = np.zeros((2, 6 + 3 * 2 * 4))
    features[:, :6] = h.mean((2, 3))  # two poolings of 2x2, then the average: that of all pixels
    expected = features @ weights["fc/affine/W"].d + weights["fc/affine/b"].d
    np.testing.assert_allclose(y.d, expected, rtol=1e-4, atol=1e-6)


def test_names_and_maps() -> None:
    network = trace(densenet(40, nn.Variable((1, 3, 32, 32)), 10))
    names = [layer.name for layer in network.layers]
    dense = [[f"block{block}/layer{n}" for n in range(1, 13)] for block in (1, 2, 3)]
    scopes = ["conv1", *dense[0], "transition1", *dense[1], "transition2", *dense[2]]
    assert names == [*(f"{scope}/conv" for scope in scopes), "fc/affine"]
    assert network.layer("transition1/conv").output_shape == (16 + 144, 32, 32)
    assert network.layer("block2/layer1/conv").input_shape == (160, 16, 16)
    assert network.layer("block3/layer12/conv").input_shape == (304 + 11 * 12, 8, 8)


def test_quantizes_every_layer_and_relu() -> None:
    y = build("densenet40", nn.Variable((1, 3, 16, 16)), 10, test=True)
    quantized = quantize(y, Fixed(weight_bits=3, activation_bits=4))
    bits = list(quantized.bit_numbers().values())
    relus = 36 + 2 + 1
    assert (bits.count(3), bits.count(4), len(bits)) == (40 + 1, relus, 41 + relus)  # and the classifier's bias
    quantized.output.forward()
    assert np.isfinite(quantized.output.d).all()


@pytest.mark.parametrize("size", [(1, 1), (9, 9), (33, 20)])
def test_any_input_size(size: tuple[int, int]) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, *size))
    y = densenet(40, x, 7, rng=np.random.RandomState(1))
    y.forward()
    assert y.shape == (2, 7) and np.isfinite(y.d).all() and y.d.std() > 0


def test_initial_weights_keep_the_deviation() -> None:
    densenet(40, nn.Variable((1, 3, 32, 32)), 10, rng=np.random.RandomState(0))
    weight = nn.get_parameters()["block3/layer12/conv/W"].d
    # He et al.: the variance is 2 over the inputs.
    assert weight.std() == pytest.approx(np.sqrt(2 / (9 * weight.shape[1])), rel=0.02)


@pytest.mark.parametrize("depth,nearest", [(41, 40), (3, 7), (4, 7)])
def test_an_impossible_depth_is_refused(depth: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=f"num_layers {depth}: 4 and a multiple of 3 is needed, such as {nearest}"):
        densenet(depth, nn.Variable((1, 3, 32, 32)))
