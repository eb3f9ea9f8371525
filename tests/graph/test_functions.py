"""What the passes know of nnabla's functions."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.graph.functions import LAYER_KIND, channel_axis, functions_of, moves, multiplications, parameter_names


def image(*shape: int) -> nn.Variable:
    return nn.Variable(shape or (2, 4, 8, 8), need_grad=True)


LAYERS = {
    "convolution": lambda: PF.convolution(image(), 6, (3, 3), group=2, stride=(2, 2), pad=(1, 1), with_bias=False),
    "one_dimension": lambda: PF.convolution(image(2, 4, 8), 6, (3,), with_bias=False),
    "frames": lambda: PF.convolution(image(2, 3, 4, 8, 8), 6, (3, 3), base_axis=2, with_bias=False),
    "depthwise": lambda: PF.depthwise_convolution(image(), (3, 3), multiplier=2, with_bias=False),
    "deconvolution": lambda: PF.deconvolution(image(), 6, (2, 2), stride=(2, 2), group=2, with_bias=False),
    "depthwise_deconvolution": lambda: PF.depthwise_deconvolution(image(), (2, 2), divisor=2, with_bias=False),
    "affine": lambda: PF.affine(image(), 6, with_bias=False),
    "affine_rows": lambda: PF.affine(image(2, 5, 3), 6, base_axis=2, with_bias=False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_multiplications_are_the_ones_that_the_layer_does(name):
    # With inputs and weights of one, each output counts the products that went into it.
    y = LAYERS[name]()
    function = y.parent
    x, weight = function.inputs
    x.d, weight.d = 1, 1
    y.forward()
    done = float(np.sum(y.d, dtype=np.float64)) / x.shape[0]
    if function.info.args.get("pad") and any(function.info.args["pad"]):
        # 8x8, 3x3, stride 2, padding 1: of 4 rows of 3 taps one tap is outside, likewise of the columns.
        done *= (4 * 3) ** 2 / (4 * 3 - 1) ** 2
    assert multiplications(function) == pytest.approx(done)


@pytest.mark.parametrize("name", LAYERS)
def test_the_channel_axis_is_where_a_slice_of_the_weight_decides_a_slice_of_the_output(name):
    y = LAYERS[name]()
    function = y.parent
    x, weight = function.inputs
    axis = channel_axis(function)
    output_axis = function.info.args["base_axis"]
    x.d, weight.d = 1, 1
    y.forward()
    before = np.array(y.d)
    w = np.array(weight.d)
    np.moveaxis(w, axis, 0)[0] = 2
    weight.d = w
    y.forward()
    changed = {int(i) for i in np.nonzero(np.moveaxis(before != y.d, output_axis, 0).any(tuple(range(1, y.ndim))))[0]}
    groups = function.info.args.get("group", 1) if function.info.type_name == "Deconvolution" else 1
    assert changed == {group * (y.shape[output_axis] // groups) for group in range(groups)}


def test_channels_may_come_last():
    # The CPU does not run these, but a graph for a GPU is traced here all the same.
    a = PF.convolution(image(2, 8, 8, 4), 6, (3, 3), channel_last=True, with_bias=False)
    b = PF.deconvolution(image(2, 8, 8, 4), 6, (3, 2), channel_last=True, with_bias=False)
    assert a.shape == (2, 6, 6, 6) and a.parent.inputs[1].shape == (6, 3, 3, 4)
    assert multiplications(a.parent) == 6 * 6 * 6 * 3 * 3 * 4
    assert b.parent.inputs[1].shape == (4, 3, 2, 6)
    assert multiplications(b.parent) == 4 * 8 * 8 * 3 * 2 * 6
    assert (channel_axis(a.parent), channel_axis(b.parent)) == (0, 3)


def test_every_layer_kind_is_tested():
    tested = set()
    for build in LAYERS.values():
        nn.clear_parameters()
        tested.add(build().parent.info.type_name)
    assert tested == set(LAYER_KIND)


MOVING = {
    "max_pooling": (lambda x: F.max_pooling(x, (2, 2)), True),
    "subsampling": (lambda x: F.average_pooling(x, (1, 1), (2, 2)), True),
    "average_pooling": (lambda x: F.average_pooling(x, (2, 2)), False),
    "zero_padding": (lambda x: F.pad(x, (1, 1, 1, 1)), True),
    "reflecting": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), True),
    "padding_with_one": (lambda x: F.pad(x, (1, 1, 1, 1), constant_value=1.0), False),
    "nearest": (lambda x: F.interpolate(x, (2, 2), mode="nearest"), True),
    "linear": (lambda x: F.interpolate(x, (2, 2), mode="linear"), False),
    "unpooling": (lambda x: F.unpooling(x, (2, 2)), True),
    "reshape": (lambda x: F.reshape(x, (2, -1)), True),
    "transpose": (lambda x: F.transpose(x, (0, 2, 3, 1)), True),
    "flip": (lambda x: F.flip(x, axes=[3]), True),
    "slice": (lambda x: x[:, :, 1:5], True),
    "concatenate": (lambda x: F.concatenate(x, x), True),
    "scaling": (lambda x: F.mul_scalar(x, 0.3), False),
    "relu": (lambda x: F.relu(x), False),
}


@pytest.mark.parametrize("name", MOVING)
def test_what_moves_numbers_makes_no_new_ones(name):
    build, expected = MOVING[name]
    x = image()
    x.d = np.random.RandomState(1).randn(*x.shape).astype(np.float32)
    y = build(x)
    y.forward()
    made_new_ones = not set(y.d.ravel().tolist()) <= {*x.d.ravel().tolist(), 0.0}
    assert moves(y.parent) is expected
    # A ReLU makes none either, but it is a site of its own.
    assert made_new_ones is (not expected and name != "relu")


def test_functions_come_in_execution_order_and_once():
    x = image()
    a = F.relu(x)
    b, c = F.tanh(a), F.sigmoid(a)
    assert [f.info.type_name for f in functions_of([b, c])] == ["ReLU", "Tanh", "Sigmoid"]
    assert functions_of([x]) == []


def test_parameters_are_named_by_data_in_the_current_scope():
    y = PF.affine(image(2, 3), 4, name="one")
    weight = y.parent.inputs[1]
    assert parameter_names()[weight.data] == "one/affine/W"
    with nn.parameter_scope("one"):
        assert parameter_names()[weight.data] == "affine/W"
    nn.clear_parameters()
    assert weight.data not in parameter_names()
