from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.graph.trace import trace
from nnmpq.models import build

# Weights of the blocks, and millions of their multiplications, of the published code.
CAMP = [
    (20, 16, 10, 267264, 40.108),
    (44, 16, 10, 654336, 96.731),
    (56, 16, 10, 847872, 125.04),
    (110, 16, 10, 1718784, 252.44),
    (20, 64, 100, 4276224, 641.73),
    (44, 64, 100, 10469376, 1547.70),
    (110, 64, 100, 27500544, 4039.11),
]
STEM_AND_CLASSIFIER = {16: (1082, 0.443), 64: (27428, 1.795)}


@pytest.mark.parametrize("depth,width,classes,weights,mmacs", CAMP)
def test_the_counts_of_camp(depth: int, width: int, classes: int, weights: int, mmacs: float) -> None:
    network = trace(
        build("preact_resnet", nn.Variable((1, 3, 32, 32)), classes, num_layers=depth, width_multiplier=width / 16)
    )
    assert len(network.layers) == depth
    blocks, ends = network.layers[1:-1], (network.layers[0], network.layers[-1])
    assert sum(layer.weight.elements for layer in blocks) == weights
    assert sum(layer.macs for layer in blocks) / 1e6 == pytest.approx(mmacs, abs=0.006)
    outside, outside_mmacs = STEM_AND_CLASSIFIER[width]
    assert sum(s.elements for layer in ends for s in (layer.weight, layer.bias) if s is not None) == outside
    assert sum(layer.macs for layer in ends) / 1e6 == pytest.approx(outside_mmacs, abs=6e-4)
    # A normalisation before each convolution of a block, and the last one.
    n = (depth - 2) // 6
    channels = width * (2 * n + 1 + 2 * (2 * n - 1) + 2 + 4 * (2 * n - 1) + 4)
    assert sum(v.size for name, v in nn.get_parameters().items() if "/bn/" in name) == 2 * channels


@pytest.mark.parametrize("depth,millions,mmacs", [(20, 0.268, 40.55), (56, 0.849, 125.5), (110, 1.720, 252.9)])
def test_the_counts_of_proqha(depth: int, millions: float, mmacs: float) -> None:
    options = {"shortcut_type": "subsample", "activated_shortcut": True, "final_activation": False}
    network = trace(build("preact_resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=depth, **options))
    assert sum(layer.weight.elements for layer in network.layers) / 1e6 == pytest.approx(millions, abs=1.1e-3)
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=0.06)
    assert not any(name.startswith("last/") for name in nn.get_parameters())


def halved_and_widened(h: np.ndarray, shortcut: str) -> np.ndarray:
    """By numpy: 2x2 means in the middle of the new channels, or every second pixel in the first of them."""
    batch, channels, height, width = h.shape
    out = np.zeros((batch, 2 * channels, height // 2, width // 2))
    if not shortcut:
        means = h.reshape(batch, channels, height // 2, 2, width // 2, 2).mean((3, 5))
        out[:, channels // 2 : channels // 2 + channels] = means
    else:
        out[:, :channels] = h[:, :, ::2, ::2]
    return out


@pytest.mark.parametrize("shortcut", ["", "subsample"])
@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("final", [False, True])
def test_what_is_left_without_the_blocks_second_convolutions(shortcut: str, activated: bool, final: bool) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 16, 12))
    options = {"shortcut_type": shortcut, "activated_shortcut": activated, "final_activation": final}
    y = build("preact_resnet", x, 5, test=True, seed=2, **options)
    own = nn.get_parameters()
    for name, parameter in own.items():
        if name.endswith("conv2/conv/W"):
            parameter.d = 0
    stem = F.convolution(x, own["conv1/conv/W"], pad=(1, 1))
    F.sink(y, stem).forward()
    h, scale = stem.d, 1 / np.sqrt(1 + 1e-5)
    for block in range(9):
        if activated:
            h = np.maximum(h * scale, 0)
        if block in (3, 6):
            h = halved_and_widened(h, shortcut)
    if final:
        h = np.maximum(h * scale, 0)
    expected = h.mean((2, 3)) @ own["fc/affine/W"].d + own["fc/affine/b"].d
    np.testing.assert_allclose(y.d, expected, rtol=1e-5, atol=1e-6)


def test_convolved_shortcuts_read_what_the_block_reads() -> None:
    layers = trace(build("preact_resnet", nn.Variable((1, 3, 32, 32)), 10, shortcut_type="conv")).layers
    assert len(layers) == 22
    found = {layer.name: layer for layer in layers}
    for stage in (2, 3):
        shortcut, first = found[f"res{stage}/block1/shortcut/conv"], found[f"res{stage}/block1/conv1/conv"]
        assert shortcut.input == first.input and shortcut.weight.shape[2:] == (1, 1)
        assert shortcut.output_shape == first.output_shape


@pytest.mark.parametrize("shortcut", ["", "subsample", "conv"])
@pytest.mark.parametrize("size", [(1, 1), (17, 30), (33, 7)])
def test_quantized_at_any_size(shortcut: str, size: tuple[int, int]) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, *size))
    y = build("preact_resnet", x, 5, seed=0, test=True, shortcut_type=shortcut)
    quantized = quantize(y, Fixed(weight_bits=3, activation_bits=4))
    roles = [quantized.network.site(site).role for site in quantized.sites]
    layers = 20 + (2 if shortcut == "conv" else 0)
    assert (roles.count("weight"), roles.count("activation")) == (layers, 2 * 9 + 1)
    F.sink(y, quantized.output).forward()
    assert np.isfinite(y.d).all() and np.isfinite(quantized.output.d).all()


def test_the_border_of_an_odd_map_is_a_mean_of_what_is_there() -> None:
    x = nn.Variable.from_numpy_array(np.ones((1, 3, 5, 5)))
    y = build("preact_resnet", x, 5, test=True, final_activation=False)
    own = nn.get_parameters()
    for name, parameter in own.items():
        parameter.d = 0 if name.endswith("conv2/conv/W") else parameter.d
    own["conv1/conv/W"].d = 0
    own["conv1/conv/W"].d[:, :, 1, 1] = 1 / 3  # the stem hands on a map of ones
    y.forward()
    # Sixteen channels of ones among 64; zeros that were averaged in would make them less.
    expected = own["fc/affine/W"].d[24:40].sum(0) + own["fc/affine/b"].d
    np.testing.assert_allclose(y.d[0], expected, rtol=1e-5, atol=1e-6)


def test_unknown_options() -> None:
    x = nn.Variable((1, 3, 32, 32))
    with pytest.raises(ValueError, match="num_layers 21: one of"):
        build("preact_resnet", x, 10, num_layers=21)
    with pytest.raises(ValueError, match="shortcut_type 'b': one of"):
        build("preact_resnet", x, 10, shortcut_type="b")
