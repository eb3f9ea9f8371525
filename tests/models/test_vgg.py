from __future__ import annotations

from typing import Any

import nnabla as nn
import nnabla.initializer as I
import numpy as np
import pytest

from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.graph.trace import trace
from nnmpq.models import build
from nnmpq.models.vgg import CONVOLUTIONS, vgg


def parameters() -> int:
    return sum(v.size for v in nn.get_parameters().values())


@pytest.fixture
def zero_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred million random numbers take seconds, and no count needs them."""
    monkeypatch.setattr(I.NormalInitializer, "__call__", lambda self, shape: np.zeros(shape, np.float32))


@pytest.mark.usefixtures("zero_weights")
@pytest.mark.parametrize(
    "name,count,gmacs", [("vgg11", 132868840, 7.609), ("vgg16", 138365992, 15.47), ("vgg19", 143678248, 19.632)]
)
def test_the_counts_of_torchvision(name: str, count: int, gmacs: float) -> None:
    network = trace(build(name, nn.Variable((1, 3, 224, 224)), 1000))
    assert parameters() == count
    assert network.macs / 1e9 == pytest.approx(gmacs, abs=5e-4)
    assert len(network.layers) == int(name[3:])
    assert network.layers[-4].output_shape == (512, 14, 14)
    assert network.layers[-3].name == "hidden1/affine"
    assert network.layers[-3].weight.shape == (512 * 7 * 7, 4096)


@pytest.mark.usefixtures("zero_weights")
@pytest.mark.parametrize("depth,millions,mmacs", [(11, 128.8, 272.3), (16, 134.3, 432.8), (19, 139.6, 517.7)])
def test_the_counts_of_proqha(depth: int, millions: float, mmacs: float) -> None:
    # Its CIFAR network blows the last pixel up to 7x7: convolutions as at 32 pixels, the rest as at 224.
    small = trace(vgg(depth, nn.Variable((1, 3, 32, 32)), 10, hidden=())).layers[:-1]
    nn.clear_parameters()
    large = trace(vgg(depth, nn.Variable((1, 3, 224, 224)), 10)).layers
    assert sum(layer.weight.elements for layer in large) / 1e6 == pytest.approx(millions, abs=0.06)
    assert sum(layer.macs for layer in (*small, *large[-3:])) / 1e6 == pytest.approx(mmacs, abs=0.06)


@pytest.mark.parametrize("depth,count,mmacs", [(11, 9231114, 153), (16, 14728266, 313), (19, 20040522, 398)])
def test_the_usual_counts_for_cifar(depth: int, count: int, mmacs: float) -> None:
    network = trace(build(f"vgg{depth}", nn.Variable((1, 3, 32, 32)), 10, hidden=()))
    assert parameters() == count
    assert network.macs / 1e6 == pytest.approx(mmacs, abs=0.5)
    assert len(network.layers) == depth - 2
    # Without the biases, which batch normalization makes idle.
    nn.clear_parameters()
    vgg(depth, nn.Variable((1, 3, 32, 32)), 10, hidden=(), with_bias=False)
    assert count - parameters() == sum(layer.weight.shape[0] for layer in network.layers[:-1])


@pytest.mark.parametrize("depth", [11, 16, 19])
def test_stages(depth: int) -> None:
    layers = trace(vgg(depth, nn.Variable((1, 3, 64, 64)), 10, hidden=())).layers
    names = [f"conv{s}_{n}/conv" for s, count in enumerate(CONVOLUTIONS[depth], 1) for n in range(1, count + 1)]
    assert [layer.name for layer in layers] == [*names, "fc/affine"]
    sides = {1: 64, 2: 32, 3: 16, 4: 8, 5: 4}
    widths = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
    for layer in layers[:-1]:
        stage = int(layer.name[4])
        assert layer.output_shape == (widths[stage], sides[stage], sides[stage])


@pytest.mark.parametrize("options,relus", [({"hidden": ()}, 13), ({"hidden": (32, 16)}, 15)])
def test_quantizes_every_layer_and_relu(options: dict[str, Any], relus: int) -> None:
    y = build("vgg16", nn.Variable((1, 3, 32, 32)), 10, test=True, **options)
    quantized = quantize(y, Fixed(weight_bits=3, activation_bits=4))
    bits = list(quantized.bit_numbers().values())
    layers = relus + 1
    assert (bits.count(3), bits.count(4), len(bits)) == (2 * layers, relus, 2 * layers + relus)  # weights and biases
    quantized.output.forward()
    assert np.isfinite(quantized.output.d).all()


@pytest.mark.parametrize("size", [(9, 9), (33, 47), (65, 32)])
@pytest.mark.parametrize("hidden", [(), (16,)])
def test_any_input_size(size: tuple[int, int], hidden: tuple[int, ...]) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, *size))
    y = vgg(11, x, 7, hidden=hidden, rng=np.random.RandomState(1))
    y.forward()
    assert y.shape == (2, 7) and np.isfinite(y.d).all() and y.d.std() > 0


def test_hidden_layers_fit_every_larger_image() -> None:
    for side in (224, 256, 299):
        y = vgg(11, nn.Variable((1, 3, side, side)), 7, hidden=(8,))
        assert y.shape == (1, 7)
    assert nn.get_parameters()["hidden1/affine/W"].shape == (512 * 49, 8)


def test_initial_weights() -> None:
    vgg(11, nn.Variable((1, 3, 32, 32)), 10, hidden=(64,), rng=np.random.RandomState(0))
    weights = nn.get_parameters()
    # He et al.: the variance is 2 over the 9 pixels of each of the outputs.
    assert weights["conv4_2/conv/W"].d.std() == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.01)
    assert weights["hidden1/affine/W"].d.std() == pytest.approx(0.01, rel=0.02)
    assert not weights["conv4_2/conv/b"].d.any() and not weights["fc/affine/b"].d.any()


def test_an_unknown_depth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_layers 13: one of \[11, 16, 19\] is needed"):
        vgg(13, nn.Variable((1, 3, 32, 32)), 10)
