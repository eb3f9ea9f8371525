"""Residual blocks are found in any network, and parts run on other inputs as they did on their own."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.dynamic.blocks import find_blocks, on_other_input
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.models import build


@pytest.fixture(autouse=True)
def _clean_scope() -> None:
    nn.clear_parameters()


@pytest.mark.parametrize("depth", [20, 44])
def test_a_preactivation_network_has_n_blocks_a_stage(depth: int) -> None:
    y = build("preact_resnet", nn.Variable((2, 3, 32, 32)), 10, num_layers=depth)
    n = (depth - 2) // 6
    expected = [f"res{stage}/block{number}" for stage in (1, 2, 3) for number in range(1, n + 1)]
    assert [block.name for block in find_blocks(y)] == expected


@pytest.mark.parametrize(("name", "count"), [("resnet18", 8), ("mobilenet_v2", 10), ("resnet_digits", 3)])
def test_other_networks_have_as_many_blocks_as_shortcuts(name: str, count: int) -> None:
    shape = (1, 1, 8, 8) if name == "resnet_digits" else (1, 3, 64, 64)
    assert len(find_blocks(build(name, nn.Variable(shape), 10))) == count


def test_a_network_without_branches_is_refused() -> None:
    with pytest.raises(ValueError, match="no residual block"):
        find_blocks(build("vgg11", nn.Variable((1, 3, 32, 32)), 10, width_multiplier=0.05, hidden=()))


def test_blocks_of_one_layer_go_by_that_layer() -> None:
    x = PF.convolution(nn.Variable((2, 3, 4, 4)), 3, (1, 1), name="stem")
    for name in ("a", "b"):
        x = F.add2(x, PF.convolution(x, 3, (3, 3), pad=(1, 1), name=name))
    assert [block.name for block in find_blocks(PF.affine(x, 2, name="last"))] == ["a/conv", "b/conv"]


def test_blocks_outside_any_scope_are_refused() -> None:
    x = PF.convolution(nn.Variable((2, 3, 4, 4)), 3, (1, 1), name="stem")
    h = F.add2(PF.convolution(x, 3, (1, 1), name="one"), PF.convolution(x, 3, (1, 1), name="two"))
    with pytest.raises(ValueError, match="scope of its own"):
        find_blocks(PF.affine(h, 2, name="last"))


def test_a_part_on_another_input_computes_the_same_and_hands_gradients_on() -> None:
    x = nn.Variable((2, 3, 8, 8))
    entry = F.mul_scalar(x, 2.0)
    inner = F.relu(PF.convolution(entry, 4, (3, 3), name="inner"))
    y = PF.affine(inner, 2, name="last")
    other = nn.Variable((2, 3, 8, 8), need_grad=True)
    moved, variables = on_other_input(y, entry, other)
    x.d = np.random.RandomState(0).randn(*x.shape)
    other.d = 2 * x.d
    y.forward()
    moved.forward()
    np.testing.assert_array_equal(moved.d, y.d)
    other.g = 0
    moved.backward()
    assert np.abs(other.g).sum() > 0
    assert variables[inner] != inner and variables[entry] == other


def test_a_quantized_part_can_be_moved_with_its_quantizers() -> None:
    entry = nn.Variable((2, 3, 8, 8), need_grad=True)
    y = PF.affine(F.relu(PF.convolution(entry, 4, (3, 3), name="inner")), 2, name="last")
    quantized = quantize(y, Fixed(3, 2)).output
    other = nn.Variable((2, 3, 8, 8), need_grad=True)
    moved, _ = on_other_input(quantized, entry, other)
    entry.d = other.d = np.random.RandomState(0).randn(*entry.shape)
    quantized.forward()
    moved.forward()
    np.testing.assert_array_equal(moved.d, quantized.d)
    for v in (entry, other):
        v.g = 0
    quantized.backward()
    moved.backward()
    np.testing.assert_array_equal(other.g, entry.g)
