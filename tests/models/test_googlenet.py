from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.graph.functions import functions_of
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.graph.trace import trace
from nnmpq.models import build
from nnmpq.models.googlenet import BLOCKS, googlenet

TORCHVISION = {"preactivation": False, "large_kernel": 3}


def parameters(part: str = "") -> int:
    """Trained numbers in the parameters whose name has that part."""
    return sum(v.size for name, v in nn.get_parameters().items() if part in f"/{name}")


def test_the_counts_of_edmips() -> None:
    network = trace(build("googlenet", nn.Variable((1, 3, 224, 224)), 1000))
    assert (parameters(), parameters("/conv/W"), parameters("/bn/")) == (7015144, 5966272, 23872)
    # Its searches take all layers but the first and the last.
    quantised = network.layers[1:-1]
    assert len(quantised) == 56
    assert sum(layer.weight.elements for layer in quantised) / 1e6 == pytest.approx(5.9569, abs=5e-5)
    mmacs = [layer.macs / 1e6 for layer in network.layers]
    assert (sum(mmacs), mmacs[0], sum(mmacs[1:-1]), mmacs[-1]) == pytest.approx(
        (1582.67, 118.01, 1463.63, 1.024), abs=5e-3
    )
    assert sum(np.prod(layer.input_shape) for layer in quantised) / 1e3 == pytest.approx(4511.9, abs=0.05)


def test_the_counts_of_torchvision() -> None:
    network = trace(build("googlenet", nn.Variable((1, 3, 224, 224)), 1000, **TORCHVISION))
    assert parameters() == 6624904
    assert network.macs / 1e9 == pytest.approx(1.498, abs=5e-4)


@pytest.mark.parametrize("form,total", [({}, 7015144 + 6379984), (TORCHVISION, 13004888)])
def test_auxiliary_heads(form: dict, total: int) -> None:
    y = googlenet(nn.Variable((2, 3, 224, 224)), auxiliary=True, **form)
    assert [head.shape for head in y] == [(2, 1000)] * 3
    assert parameters() == total
    assert len(trace(y).layers) == 58 + 2 * 3
    # A larger image fits the same parameters.
    googlenet(nn.Variable((1, 3, 257, 300)), auxiliary=True, **form)


def test_maps_and_channels_of_the_paper() -> None:
    network = trace(googlenet(nn.Variable((1, 3, 224, 224))))
    assert network.layer("conv1/conv").output_shape == (64, 112, 112)
    assert network.layer("conv2/conv").output_shape == (192, 56, 56)
    inputs = {name: network.layer(f"inception{name}/branch1/conv").input_shape for name in BLOCKS}
    channels = {"3a": 192, "3b": 256, "4a": 480, "4b": 512, "4c": 512, "4d": 512, "4e": 528, "5a": 832, "5b": 832}
    sides = {"3": 28, "4": 14, "5": 7}
    assert inputs == {name: (width, sides[name[0]], sides[name[0]]) for name, width in channels.items()}
    assert network.layer("fc/affine").input_shape == (1024, 1, 1)


@pytest.mark.parametrize("preactivation", [True, False])
def test_a_block_reads_one_site_but_for_its_pooled_branch(preactivation: bool) -> None:
    network = trace(googlenet(nn.Variable((1, 3, 64, 64)), preactivation=preactivation))
    names = ["branch1", "branch2_reduce", "branch2", "branch3_reduce", "branch3", "branch4"]
    block = [layer for layer in network.layers if layer.name.startswith("inception3b/")]
    assert [layer.name.split("/")[1] for layer in block] == names
    read = dict(zip(names, (layer.inputs for layer in block)))
    assert read["branch1"] == read["branch2_reduce"] == read["branch3_reduce"]
    # Pre-activation: one normalized map. Else the four results of block 3a, which max pooling leaves as they are.
    assert len(read["branch1"]) == (1 if preactivation else 4)
    assert (read["branch4"] == read["branch1"]) is not preactivation
    kernels = [layer.weight.shape[2:] for layer in block]
    assert kernels == [(1, 1), (1, 1), (3, 3), (1, 1), (5, 5), (1, 1)]


def test_pooled_branches_pool_the_block_input_itself() -> None:
    y = googlenet(nn.Variable((1, 3, 64, 64)))
    pools = [f for f in functions_of([y]) if f.info.type_name == "MaxPooling"]
    inner = [f for f in pools if f.info.args["stride"] == [1, 1]]
    assert (len(pools), len(inner)) == (4 + 9, 9)
    # Not its normalized form: the poolings between the stages, or the block before.
    assert {f.inputs[0].parent.info.type_name for f in inner} == {"MaxPooling", "Concatenate"}
    assert all(f.info.args["kernel"] == [3, 3] and f.outputs[0].shape == f.inputs[0].shape for f in inner)


@pytest.mark.parametrize("preactivation,relus", [(True, 2 + 9 * 4 + 1), (False, 57)])
def test_quantizes_every_layer_and_relu(preactivation: bool, relus: int) -> None:
    y = googlenet(nn.Variable((1, 3, 32, 32)), 10, preactivation=preactivation, test=True)
    quantized = quantize(y, Fixed(weight_bits=3, activation_bits=4))
    bits = list(quantized.bit_numbers().values())
    assert (bits.count(3), bits.count(4), len(bits)) == (58 + 1, relus, 58 + 1 + relus)  # and the classifier's bias
    quantized.output.forward()
    assert np.isfinite(quantized.output.d).all()


@pytest.mark.parametrize("size", [(9, 9), (33, 47), (97, 64)])
@pytest.mark.parametrize("form", [{}, TORCHVISION])
def test_any_input_size(size: tuple[int, int], form: dict) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(2, 3, *size))
    y = googlenet(x, 7, auxiliary=True, rng=np.random.RandomState(1), **form)
    assert len(y) == 3
    for head in y:
        head.forward()
        assert head.shape == (2, 7) and np.isfinite(head.d).all() and head.d.std() > 0


def test_epsilon_weights_and_seed() -> None:
    rng = np.random.RandomState(3)
    y = googlenet(nn.Variable((1, 3, 32, 32)), rng=rng)
    epsilons = [f.info.args["eps"] for f in functions_of([y]) if f.info.type_name == "BatchNormalization"]
    assert len(epsilons) == 39 and epsilons == pytest.approx([1e-3] * 39)
    for name, weight in nn.get_parameters().items():
        if name.endswith("/W") and weight.size > 4000:
            # A normal distribution cut at two deviations has 0.8796 of its deviation left.
            assert weight.d.std() == pytest.approx(0.01 * 0.8796, rel=0.05), name
            assert np.abs(weight.d).max() <= 0.02
    first = nn.get_parameters()["conv1/conv/W"].d.copy()
    nn.clear_parameters()
    googlenet(nn.Variable((1, 3, 32, 32)), rng=np.random.RandomState(3))
    np.testing.assert_array_equal(nn.get_parameters()["conv1/conv/W"].d, first)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="large_kernel 4: an odd number is needed, such as 5"):
        googlenet(nn.Variable((1, 3, 32, 32)), large_kernel=4)
