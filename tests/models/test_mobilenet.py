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
from nnmpq.models.mobilenet_v2 import divisible


def traced(name: str, side: int = 224, classes: int = 1000, **options: float) -> Network:
    nn.clear_parameters()
    return trace(build(name, nn.Variable((1, 3, side, side)), classes, **options))


def parameters(without_normalisation: bool = False) -> int:
    own = nn.get_parameters()
    return sum(v.size for name, v in own.items() if not (without_normalisation and "/bn/" in name))


@pytest.mark.parametrize(
    "width,side,mmacs,millions",
    [
        # Tables 6 and 7 of the paper, but for 291, which it gives as 290 and the table of its models as 291.
        (1.0, 224, 569, 4.2),
        (0.75, 224, 325, 2.6),
        (0.5, 224, 149, 1.3),
        (0.25, 224, 41, 0.5),
        (1.0, 192, 418, 4.2),
        (1.0, 160, 291, 4.2),
        (1.0, 128, 186, 4.2),
    ],
)
def test_version_1_has_the_counts_of_the_paper(width: float, side: int, mmacs: float, millions: float) -> None:
    network = traced("mobilenet_v1", side, width_multiplier=width)
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=0.6)
    assert parameters() / 1e6 == pytest.approx(millions, abs=0.05)
    assert len(network.layers) == 28


def test_version_1_has_the_count_of_keras() -> None:
    traced("mobilenet_v1")
    assert parameters() == 4253864 - 21888  # which counts running statistics too
    # 1024 channels and biases more or less for each class.
    traced("mobilenet_v1", 32, 10, stem="cifar")
    assert parameters() == 4253864 - 21888 - 990 * 1025


def test_version_2_has_the_counts_of_torchvision() -> None:
    network = traced("mobilenet_v2")
    assert parameters() == 3504872
    assert network.macs / 1e6 == pytest.approx(300.8, abs=0.05)
    assert len(network.layers) == 53
    # Sony's table 4.
    assert parameters(without_normalisation=True) * 4 / 2**20 == pytest.approx(13.23, abs=0.012)


@pytest.mark.parametrize(
    "width,side,mmacs,millions",
    [
        # The table of the published implementation, which does not count normalisation.
        (1.4, 224, 582, 6.06),
        (1.3, 224, 509, 5.34),
        (1.0, 224, 300, 3.47),
        (0.75, 224, 209, 2.61),
        (0.5, 224, 97, 1.95),
        (0.35, 224, 59, 1.66),
        (1.0, 192, 221, 3.47),
        (1.0, 160, 154, 3.47),
        (1.0, 128, 99, 3.47),
        (1.0, 96, 56, 3.47),
    ],
)
def test_version_2_has_the_counts_of_its_authors(width: float, side: int, mmacs: float, millions: float) -> None:
    network = traced("mobilenet_v2", side, width_multiplier=width)
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=1)
    assert parameters(without_normalisation=True) / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize(
    "small,millions,mmacs,inner_mmacs", [(True, 2.203, 296.5, 269.4), (False, 3.471, 300.8, 268.6)]
)
def test_version_2_has_the_counts_of_proqha(small: bool, millions: float, mmacs: float, inner_mmacs: float) -> None:
    network = traced("mobilenet_v2", 32 if small else 224, 10 if small else 1000, stem="cifar" if small else "imagenet")
    assert parameters(without_normalisation=True) / 1e6 == pytest.approx(millions, abs=6e-4)
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=0.06)
    inner = network.layers[1:-2]  # but for the stem, the head and the classifier
    assert len(inner) == 50
    assert sum(layer.weight.elements for layer in inner) / 1e6 == pytest.approx(1.779, abs=6e-4)
    assert sum(layer.macs for layer in inner) / 1e6 == pytest.approx(inner_mmacs, abs=0.06)


def test_strides() -> None:
    sides = {
        (name, small): [
            layer.output_shape[1]
            for layer in traced(name, 64, stem="cifar" if small else "imagenet").layers
            if layer.output_shape[1:]
        ]
        for name in ("mobilenet_v1", "mobilenet_v2")
        for small in (False, True)
    }
    assert sorted(set(sides["mobilenet_v1", False])) == [2, 4, 8, 16, 32]
    assert sorted(set(sides["mobilenet_v1", True])) == [4, 8, 16, 32, 64]
    assert sorted(set(sides["mobilenet_v2", False])) == [2, 4, 8, 16, 32]
    assert sorted(set(sides["mobilenet_v2", True])) == [16, 32, 64]
    # The depthwise convolution of a block has its stride: the pointwise one before it does not.
    layers = {layer.name: layer for layer in traced("mobilenet_v2").layers}
    assert layers["block2/expand/conv"].output_shape == (96, 112, 112)
    assert layers["block2/depthwise/depthwise_conv"].output_shape == (96, 56, 56)
    assert layers["block2/project/conv"].output_shape == (24, 56, 56)


def test_channels() -> None:
    # Widths of the published implementation at 0.35, 0.5, 0.75, 1.3 and 1.4.
    assert [divisible(32 * w) for w in (0.35, 0.5, 0.75, 1.3, 1.4)] == [16, 16, 24, 40, 48]
    assert [divisible(24 * w) for w in (0.35, 0.5, 0.75, 1.3, 1.4)] == [8, 16, 24, 32, 32]
    layers = traced("mobilenet_v2", 32, width_multiplier=1.4).layers
    assert layers[-2].weight.shape == (1792, 448, 1, 1)
    assert traced("mobilenet_v2", 32, stem="cifar", width_multiplier=0.35).layers[-2].weight.shape[0] == 1280
    assert traced("mobilenet_v1", 32, width_multiplier=0.1).layers[0].weight.shape[0] == 8


def test_bottlenecks_are_linear_and_ten_blocks_add_their_input() -> None:
    y = build("mobilenet_v2", nn.Variable((1, 3, 32, 32)), 10)
    kinds: list[str] = []
    y.visit(lambda function: kinds.append(function.info.type_name))
    assert kinds.count("Add2") == 10
    assert kinds.count("ReLU6") == 35
    for first, second in zip(kinds, kinds[1:]):
        assert (first, second) not in {("Add2", "ReLU6"), ("ReLU6", "Add2"), ("ReLU6", "BatchNormalization")}


def test_a_block_of_version_2_adds_its_input_to_its_projection() -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 12, 9))
    outputs = []
    for nothing in (False, True):
        nn.clear_parameters()
        y = build("mobilenet_v2", x, 5, test=True, seed=1, stem="cifar")
        own = nn.get_parameters()
        assert "block1/expand/conv/W" not in own and "block2/expand/conv/W" in own
        own["block3/project/bn/gamma"].d = 0
        if nothing:
            # What its projection does not hand on, nothing before it in the block can change.
            own["block3/expand/conv/W"].d = 5
        y.forward()
        outputs.append(y.d.copy())
    np.testing.assert_array_equal(*outputs)
    assert np.ptp(outputs[0], axis=0).max() > 0  # the images still arrive


@pytest.mark.parametrize("name,relus", [("mobilenet_v1", 27), ("mobilenet_v2", 35)])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_quantized_at_an_odd_size(name: str, relus: int, activation: str) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, 33, 45))
    y = build(name, x, 5, seed=0, width_multiplier=0.5, activation=activation)
    quantized = quantize(y, Fixed(weight_bits=3, activation_bits=4))
    roles = [quantized.network.site(site).role for site in quantized.sites]
    assert (roles.count("weight"), roles.count("activation")) == (len(quantized.network.layers), relus)
    kinds = [layer.kind for layer in quantized.network.layers]
    assert kinds.count("depthwise") == {"mobilenet_v1": 13, "mobilenet_v2": 17}[name]
    F.sink(y, quantized.output).forward()
    assert np.isfinite(y.d).all() and np.isfinite(quantized.output.d).all()


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_initial_weights_and_options(name: str) -> None:
    build(name, nn.Variable((1, 3, 32, 32)), 100, seed=0)
    for parameter_name, parameter in nn.get_parameters().items():
        if parameter_name.endswith("conv/W") and parameter.size > 8000:
            depthwise = parameter_name.endswith("depthwise_conv/W")
            fan = 9 if depthwise else parameter.shape[0] * parameter.shape[2] * parameter.shape[3]
            assert parameter.d.std() == pytest.approx(np.sqrt(2 / fan), rel=0.05), parameter_name
    with pytest.raises(ValueError, match="width_multiplier 0: more than 0"):
        build(name, nn.Variable((1, 3, 32, 32)), 10, width_multiplier=0)
    with pytest.raises(ValueError, match="activation 'elu': one of"):
        build(name, nn.Variable((1, 3, 32, 32)), 10, activation="elu")
