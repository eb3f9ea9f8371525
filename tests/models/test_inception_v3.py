from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.graph.functions import functions_of
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.graph.trace import trace
from nnmpq.models import build
from nnmpq.models.inception_v3 import inception_v3

LAYERS = {"a": 7, "b": 4, "c": 10, "d": 6, "e": 9}


def parameters(part: str = "") -> int:
    """Trained numbers in the parameters whose name has that part."""
    return sum(v.size for name, v in nn.get_parameters().items() if part in f"/{name}")


def test_the_counts_of_edmips() -> None:
    network = trace(build("inception_v3", nn.Variable((1, 3, 299, 299)), 1000))
    assert (parameters(), parameters("/conv/W"), parameters("/bn/")) == (23850952, 21751136, 50816)
    # Its searches take all layers but the first and the last.
    quantised = network.layers[1:-1]
    assert len(quantised) == 93
    assert sum(layer.weight.elements for layer in quantised) / 1e6 == pytest.approx(21.7503, abs=5e-5)
    mmacs = [layer.macs / 1e6 for layer in network.layers]
    counts = (sum(mmacs), mmacs[0], sum(mmacs[1:-1]), mmacs[-1])
    assert counts == pytest.approx((5713.22, 19.18, 5691.99, 2.048), abs=5e-3)
    assert sum(np.prod(layer.input_shape) for layer in quantised) / 1e3 == pytest.approx(13874.5, abs=0.05)


def test_the_counts_of_torchvision() -> None:
    y = inception_v3(nn.Variable((1, 3, 299, 299)), auxiliary=True, preactivation=False)
    assert [head.shape for head in y] == [(1, 1000)] * 2
    assert parameters() == 27161264
    # Its count of multiplications leaves the auxiliary head out.
    network = trace(y[0])
    assert network.macs / 1e9 == pytest.approx(5.713, abs=5e-4)
    used = sum(layer.weight.elements for layer in network.layers)
    assert used == 23834568 - 1000 - 2 * sum(layer.weight.shape[0] for layer in network.layers[:-1])


def test_the_auxiliary_head_of_edmips() -> None:
    y = inception_v3(nn.Variable((1, 3, 299, 299)), auxiliary=True)
    assert parameters() == 23850952 + 3326696
    head = trace(y[1]).layers[-3:]
    assert [layer.name for layer in head] == ["auxiliary/conv1/conv", "auxiliary/conv2/conv", "auxiliary/fc/affine"]
    assert [layer.output_shape for layer in head] == [(128, 5, 5), (768, 1, 1), (1000,)]


def test_maps_and_channels_of_the_paper() -> None:
    network = trace(inception_v3(nn.Variable((1, 3, 299, 299))))
    stem = [network.layer(f"conv{number}/conv").output_shape for number in range(1, 6)]
    assert stem == [(32, 149, 149), (32, 147, 147), (64, 147, 147), (80, 73, 73), (192, 71, 71)]
    blocks: dict[str, list] = {}
    for layer in network.layers[5:-1]:
        blocks.setdefault(layer.name.split("/")[0], []).append(layer)
    inputs = {name: layers[0].input_shape for name, layers in blocks.items()}
    assert list(inputs.values()) == [
        *((192, 35, 35), (256, 35, 35), (288, 35, 35)),
        (288, 35, 35),
        *[(768, 17, 17)] * 4,
        (768, 17, 17),
        *((1280, 8, 8), (2048, 8, 8)),
    ]
    assert {name: len(layers) for name, layers in blocks.items()} == {name: LAYERS[name[6]] for name in blocks}
    assert network.layer("fc/affine").input_shape == (2048, 1, 1)


def test_directions_of_the_long_kernels() -> None:
    network = trace(inception_v3(nn.Variable((1, 3, 75, 75))))
    kernels = {
        branch: [layer.weight.shape[2:] for layer in network.layers if layer.name.startswith(f"block_{branch}")]
        for branch in ("c1/branch7x7_", "c1/branch7x7double_", "d/branch7x7x3_", "e1/branch3x3_2/")
    }
    assert kernels == {
        "c1/branch7x7_": [(1, 1), (1, 7), (7, 1)],
        "c1/branch7x7double_": [(1, 1), (7, 1), (1, 7), (7, 1), (1, 7)],
        "d/branch7x7x3_": [(1, 1), (1, 7), (7, 1), (3, 3)],
        "e1/branch3x3_2/": [(1, 3), (3, 1)],
    }


def test_branches_share_a_normalized_map() -> None:
    network = trace(inception_v3(nn.Variable((1, 3, 75, 75))))
    readers = sorted(len(site.readers) for site in network.activations if site.kind == "relu" and len(site.readers) > 1)
    # Blocks B and D have 2 first convolutions, A, C and E have 3, and each of E's two forks has 2.
    assert readers == sorted([2, 2] + [3] * (3 + 4 + 2) + [2] * 4)


def test_pooled_branches_average_the_block_input_itself() -> None:
    y = inception_v3(nn.Variable((1, 3, 75, 75)))
    pools = [f for f in functions_of([y]) if f.info.type_name == "AveragePooling"]
    assert len(pools) == 3 + 4 + 2
    assert {f.inputs[0].parent.info.type_name for f in pools} == {"MaxPooling", "Concatenate"}
    for f in pools:
        # As torch averages: at the edge the zeros outside count.
        assert (f.info.args["kernel"], f.info.args["pad"], f.info.args["including_pad"]) == ([3, 3], [1, 1], True)


@pytest.mark.parametrize("preactivation,relus", [(True, 4 + 3 * 5 + 3 + 4 * 8 + 5 + 2 * 5 + 1), (False, 94)])
def test_quantizes_every_layer_and_relu(preactivation: bool, relus: int) -> None:
    y = inception_v3(nn.Variable((1, 3, 75, 75)), 10, preactivation=preactivation, test=True)
    quantized = quantize(y, Fixed(weight_bits=3, activation_bits=4))
    bits = list(quantized.bit_numbers().values())
    assert (bits.count(3), bits.count(4), len(bits)) == (95 + 1, relus, 95 + 1 + relus)  # and the classifier's bias
    quantized.output.forward()
    assert np.isfinite(quantized.output.d).all()


@pytest.mark.parametrize("size,preactivation", [((9, 9), True), ((33, 47), False), ((107, 76), True)])
def test_any_input_size(size: tuple[int, int], preactivation: bool) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, *size))
    y = inception_v3(x, 7, auxiliary=True, preactivation=preactivation, rng=np.random.RandomState(1))
    assert len(y) == 2
    for head in y:
        head.forward()
        assert head.shape == (2, 7) and np.isfinite(head.d).all() and head.d.std() > 0


def test_epsilon_and_weights() -> None:
    y = inception_v3(nn.Variable((1, 3, 75, 75)), rng=np.random.RandomState(3))
    epsilons = [f.info.args["eps"] for f in functions_of([y]) if f.info.type_name == "BatchNormalization"]
    assert len(epsilons) == 70 and epsilons == pytest.approx([1e-3] * 70)
    for name, weight in nn.get_parameters().items():
        if name.endswith("/W") and weight.size > 4000:
            # A normal distribution cut at two deviations has 0.8796 of its deviation left.
            assert weight.d.std() == pytest.approx(0.1 * 0.8796, rel=0.05), name
            assert np.abs(weight.d).max() <= np.float32(0.2)
