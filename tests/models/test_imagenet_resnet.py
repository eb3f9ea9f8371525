from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.graph.network import Network
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.graph.trace import trace
from nnmpq.models import build
from nnmpq.models.imagenet_resnet import imagenet_resnet


def traced(name: str, side: int = 224, classes: int = 1000, **options: bool) -> Network:
    return trace(build(name, nn.Variable((1, 3, side, side)), classes, **options))


def parameters(part: str = "") -> int:
    return sum(v.size for name, v in nn.get_parameters().items() if part in name)


@pytest.mark.parametrize(
    "name,count,mmacs,layers",
    [("resnet18", 11689512, 1814.07, 21), ("resnet34", 21797672, 3663.76, 37), ("resnet50", 25557032, 4089.18, 54)],
)
def test_the_counts_of_torchvision(name: str, count: int, mmacs: float, layers: int) -> None:
    network = traced(name)
    assert parameters() == count
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=0.01)
    assert len(network.layers) == layers


@pytest.mark.parametrize(
    "name,millions,mmacs,inner_millions,inner_mmacs",
    [
        ("resnet18", 11.68, 1814, 10.985, 1676),
        ("resnet34", 21.78, 3664, 21.09, 3526),
        ("resnet50", 25.50, 4089, 20.68, 3609),
    ],
)
def test_the_counts_of_proqha(
    name: str, millions: float, mmacs: float, inner_millions: float, inner_mmacs: float
) -> None:
    network = traced(name)
    # It quantizes all but the first layer, the last one and the 1x1 convolutions of shortcuts.
    inner = [layer for layer in network.layers[1:-1] if "shortcut" not in layer.name]
    assert sum(layer.weight.elements for layer in network.layers) / 1e6 == pytest.approx(millions, abs=0.006)
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=0.5)
    assert sum(layer.weight.elements for layer in inner) / 1e6 == pytest.approx(inner_millions, abs=0.006)
    assert sum(layer.macs for layer in inner) / 1e6 == pytest.approx(inner_mmacs, abs=0.6)
    assert len(inner) == int(name[6:]) - 2


def test_normalisation_and_memory_of_resnet18() -> None:
    network = traced("resnet18")
    assert parameters("/bn/") == 9600
    # Sony's table 4 gives 44.56 MiB of float weights: the layers without their biases' rounding.
    sizes = [site.elements for layer in network.layers for site in (layer.weight, layer.bias) if site is not None]
    assert sum(sizes) * 4 / 2**20 == pytest.approx(44.56, abs=0.005)


def test_where_the_map_is_halved() -> None:
    layers = {layer.name: layer for layer in traced("resnet50").layers}
    assert layers["res1/block1/conv1/conv"].input_shape == (64, 56, 56)
    # In the 3x3 convolution, not in the 1x1 before it.
    assert layers["res2/block1/conv1/conv"].output_shape == (128, 56, 56)
    assert layers["res2/block1/conv2/conv"].output_shape == (128, 28, 28)
    assert layers["res2/block1/shortcut/conv"].output_shape == (512, 28, 28)
    assert layers["res4/block3/conv3/conv"].output_shape == (2048, 7, 7)
    assert "res1/block1/shortcut/conv" in layers and "res1/block2/shortcut/conv" not in layers


def test_the_stem_for_small_images() -> None:
    plain = traced("resnet18", 32, 10, stem="cifar")
    assert parameters() == 11173962  # the usual CIFAR network of this form
    assert plain.layers[0].weight.shape == (64, 3, 3, 3)
    assert plain.layers[-2].output_shape == (512, 4, 4)
    assert plain.macs / 1e6 == pytest.approx(555.42, abs=0.01)
    pooled = traced("resnet18", 32, 10, stem="cifar_pooled")
    assert pooled.layers[-2].output_shape == (512, 2, 2)
    assert pooled.macs / 1e6 == pytest.approx(140.2, abs=0.05)  # ProQHA's, which keeps the pooling


def test_a_block_adds_its_input_before_the_last_relu() -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 17, 16))
    y = build("resnet18", x, 5, test=True, seed=1, stem="cifar")
    own = nn.get_parameters()
    for name, parameter in own.items():
        if name.endswith("conv2/bn/gamma"):
            parameter.d = 0  # nothing is left of the blocks but their shortcuts
    h = F.relu(F.convolution(x, own["conv1/conv/W"], pad=(1, 1)) / float(np.sqrt(1 + 1e-5)))
    for stage in (2, 3, 4):
        weight = own[f"res{stage}/block1/shortcut/conv/W"]
        h = F.relu(F.convolution(h, weight, stride=(2, 2)) / float(np.sqrt(1 + 1e-5)))
    expected = F.affine(F.mean(h, (2, 3)), own["fc/affine/W"], own["fc/affine/b"])
    F.sink(y, expected).forward()
    np.testing.assert_allclose(y.d, expected.d, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name,relus", [("resnet18", 1 + 2 * 8), ("resnet50", 1 + 3 * 16)])
def test_quantized_at_an_odd_size(name: str, relus: int) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 33, 45))
    y = build(name, x, 5, seed=0)
    quantized = quantize(y, Fixed(weight_bits=3, activation_bits=4))
    roles = [quantized.network.site(site).role for site in quantized.sites]
    assert (roles.count("weight"), roles.count("activation")) == (len(quantized.network.layers), relus)
    F.sink(y, quantized.output).forward()
    assert np.isfinite(y.d).all() and np.isfinite(quantized.output.d).all()
    assert not np.array_equal(y.d, quantized.output.d)


def test_initial_weights_are_he_normal() -> None:
    build("resnet18", nn.Variable((1, 3, 32, 32)), 5, seed=0)
    for name, parameter in nn.get_parameters().items():
        if name.endswith("conv/W") and parameter.size > 30000:
            fan = parameter.shape[0] * parameter.shape[2] * parameter.shape[3]
            assert parameter.d.std() == pytest.approx(np.sqrt(2 / fan), rel=0.03), name
            assert np.abs(parameter.d).max() > 3 * parameter.d.std()  # not uniform


def test_unknown_depths() -> None:
    with pytest.raises(ValueError, match="num_layers 20: one of"):
        imagenet_resnet(20, nn.Variable((1, 3, 32, 32)))
