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
from nnmpq.models.edmips_resnet import edmips_resnet

# What the published code gives; millions, and thousands of elements that quantized layers read.
IMAGENET = [
    ("edmips_resnet18", 11692456, 11166912, 12544, 19, 1814.07, 1695.55, 2032.1),
    ("edmips_resnet50", 25583272, 23454912, 79360, 52, 4089.18, 3969.12, 10511.9),
]
# GMPQ's totals hold the learned ranges too: 19 layers of 4 x 4, and 52 layers of 12.
CIFAR = [
    ("edmips_resnet18", 11177210 - 19 * 16, 11159232, 12544, 19, 555.42, 553.65, 663.6),
    ("edmips_resnet50", 23547706 - 52 * 12, 23447232, 79360, 52, 1297.83, 1296.04, 3432.4),
]


def parameters(part: str = "") -> int:
    return sum(v.size for name, v in nn.get_parameters().items() if part in name)


def traced(name: str, side: int = 224, classes: int = 1000, **options: bool) -> Network:
    return trace(build(name, nn.Variable((1, 3, side, side)), classes, **options))


@pytest.mark.parametrize(
    "small,row", [(False, row) for row in IMAGENET] + [(True, row) for row in CIFAR], ids=lambda value: str(value)[:22]
)
def test_the_counts_of_the_published_code(
    small: bool, row: tuple[str, int, int, int, int, float, float, float]
) -> None:
    name, total, convolutions, normalisation, quantized, mmacs, quantized_mmacs, inputs = row
    network = traced(name, 32 if small else 224, 10 if small else 1000, stem="cifar" if small else "imagenet")
    assert parameters() == total
    assert parameters("conv/W") == convolutions
    assert parameters("/bn/") == normalisation
    trunk = network.layers[1:-1]
    assert len(trunk) == quantized
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=0.006)
    assert sum(layer.macs for layer in trunk) / 1e6 == pytest.approx(quantized_mmacs, abs=0.006)
    assert sum(np.prod(layer.input_shape) for layer in trunk) / 1e3 == pytest.approx(inputs, abs=0.06)


def test_the_cifar_network_of_proqha_pools_after_its_stem() -> None:
    network = traced("edmips_resnet18", 32, 10, stem="cifar_pooled")
    assert network.macs / 1e6 == pytest.approx(140.2, abs=0.05)
    inner = [layer for layer in network.layers[1:-1] if "shortcut" not in layer.name]
    assert sum(layer.weight.elements for layer in network.layers) / 1e6 == pytest.approx(11.16, abs=0.006)
    assert len(inner) == 16
    assert sum(layer.weight.elements for layer in inner) / 1e6 == pytest.approx(10.985, abs=0.001)
    assert sum(layer.macs for layer in inner) / 1e6 == pytest.approx(136.8, abs=0.06)


def test_the_published_allocation_costs_what_it_should() -> None:
    weights = [1, 1, 1, 1, 3, 2, 4, 2, 1, 3, 2, 4, 2, 1, 3, 2, 4, 2, 2]
    activations = [2, 2, 2, 2, 2, 2, 4, 2, 2, 3, 3, 3, 2, 2, 3, 3, 3, 2, 2]
    # In each block its convolutions, then the one of the shortcut: its place is 6, 11 and 16.
    layers = traced("edmips_resnet18").layers[1:-1]
    assert [place for place, layer in enumerate(layers) if "shortcut" in layer.name] == [6, 11, 16]
    operations = sum(layer.macs * w * a for layer, w, a in zip(layers, weights, activations))
    assert operations / 1e6 == pytest.approx(6730.8, abs=0.06)
    # The published "bit": the square root of the mean product.
    assert np.sqrt(operations / sum(layer.macs for layer in layers)) == pytest.approx(1.9924, abs=6e-5)


def test_shortcuts_read_what_the_first_convolution_reads() -> None:
    layers = {layer.name: layer for layer in traced("edmips_resnet18").layers}
    first, shortcut = layers["res2/block1/conv1/conv"], layers["res2/block1/shortcut/conv"]
    assert first.input is not None and first.input == shortcut.input
    assert first.input_shape == (64, 56, 56) and shortcut.output_shape == (128, 28, 28)


@pytest.mark.parametrize("small", [False, True])
def test_the_first_block_and_the_stem(small: bool) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 33, 33))
    y = build("edmips_resnet18", x, 5, test=True, seed=1, stem="cifar" if small else "imagenet")
    own = nn.get_parameters()
    for name, parameter in own.items():
        # The blocks' convolutions give nothing; projections, and what the first stage hands on, are left.
        if name.endswith("last/bn/gamma"):
            parameter.d = 0

    def normal(h: nn.Variable) -> nn.Variable:
        return h / float(np.sqrt(1 + 1e-5))

    if small:
        h = F.relu(normal(F.convolution(x, own["conv1/conv/W"], pad=(1, 1))))
    else:
        h = F.convolution(x, own["conv1/conv/W"], pad=(3, 3), stride=(2, 2))
        h = normal(F.max_pooling(h, (3, 3), (2, 2), pad=(1, 1)))
    for stage in (2, 3, 4):
        weight = own[f"res{stage}/block1/shortcut/conv/W"]
        h = normal(F.convolution(F.relu(normal(h)), weight, stride=(2, 2)))
    expected = F.affine(F.mean(F.relu(h), (2, 3)), own["fc/affine/W"], own["fc/affine/b"])
    F.sink(y, expected).forward()
    np.testing.assert_allclose(y.d, expected.d, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name,relus", [("edmips_resnet18", 2 * 8 + 1), ("edmips_resnet50", 3 * 16 + 1)])
def test_quantized_at_an_odd_size(name: str, relus: int) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 33, 45))
    y = build(name, x, 5, seed=0)
    quantized = quantize(y, Fixed(weight_bits=3, activation_bits=4))
    roles = [quantized.network.site(site).role for site in quantized.sites]
    assert (roles.count("weight"), roles.count("activation")) == (len(quantized.network.layers), relus)
    # All that a quantized layer reads has a quantizer, and it is unsigned.
    for layer in quantized.network.layers[1:-1]:
        assert layer.input in quantized.sites and not quantized.network.site(layer.input).signed
    F.sink(y, quantized.output).forward()
    assert np.isfinite(y.d).all() and np.isfinite(quantized.output.d).all()


def test_unknown_depths() -> None:
    with pytest.raises(ValueError, match="num_layers 34: one of"):
        edmips_resnet(34, nn.Variable((1, 3, 32, 32)))
