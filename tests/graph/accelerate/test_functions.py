"""Every accelerated function against nnabla's own: outputs, all gradients, running statistics."""

from __future__ import annotations

import itertools
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.accelerate.rules import RULES
from nnmpq.graph.functions import functions_of
from tests.graph.accelerate.comparing import compare, leaf

SHAPES = [(1, 3, 5, 7), (2, 16, 8, 8), (3, 8, 9, 9)]
CONVOLUTIONS = [
    dict(kernel=(3, 3), pad=(1, 1)),
    dict(kernel=(3, 3), pad=(1, 1), stride=(2, 2)),
    dict(kernel=(1, 1)),
    dict(kernel=(1, 1), stride=(2, 2)),
    dict(kernel=(5, 3), pad=(2, 0), stride=(1, 2)),
    dict(kernel=(3, 3), pad=(2, 2), dilation=(2, 2)),
    dict(kernel=(2, 2), stride=(2, 2)),
]


def _accelerated(fast, name: str) -> bool:
    return name in {f.info.type_name for f in functions_of(fast.outputs)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("given", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_convolution(shape, given, bias):
    def build():
        options = {k: v for k, v in given.items() if k != "kernel"}
        leaves = {"x": leaf(shape, 1), "w": leaf((12, shape[1], *given["kernel"]), 2, scale=0.2)}
        if bias:
            leaves["b"] = leaf((12,), 3)
        return F.convolution(leaves["x"], leaves["w"], leaves.get("b"), **options), leaves

    assert _accelerated(compare(build), "Convolution")


@pytest.mark.parametrize("group", [2, 4, 8])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_grouped_convolution(group, stride):
    def build():
        x, w, b = leaf((2, 8, 7, 7), 1), leaf((16, 8 // group, 3, 3), 2), leaf((16,), 3)
        return F.convolution(x, w, b, pad=(1, 1), stride=stride, group=group), {"x": x, "w": w, "b": b}

    assert _accelerated(compare(build), "Convolution")


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("given", [dict(pad=(1, 1)), dict(pad=(1, 1), stride=(2, 2)), dict(dilation=(2, 2))], ids=str)
@pytest.mark.parametrize("channels", [1, 5, 32])
def test_depthwise_convolution(multiplier, given, channels):
    def build():
        x, w, b = (
            leaf((2, channels, 9, 8), 1),
            leaf((channels * multiplier, 3, 3), 2),
            leaf((channels * multiplier,), 3),
        )
        return F.depthwise_convolution(x, w, b, multiplier=multiplier, **given), {"x": x, "w": w, "b": b}

    assert _accelerated(compare(build), "Convolution")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("given", [dict(), dict(pad=(1, 1), stride=(2, 2)), dict(dilation=(2, 1))], ids=str)
def test_deconvolution(given, group, bias):
    def build():
        leaves = {"x": leaf((2, 6, 5, 4), 1), "w": leaf((6, 8 // group, 3, 3), 2)}
        if bias:
            leaves["b"] = leaf((8,), 3)
        return F.deconvolution(leaves["x"], leaves["w"], leaves.get("b"), group=group, **given), leaves

    assert _accelerated(compare(build), "Deconvolution")


@pytest.mark.parametrize("shape,base_axis", [((1, 7), 1), ((5, 64), 1), ((3, 4, 2, 2), 1), ((3, 4, 5), 2), ((1, 3), 0)])
@pytest.mark.parametrize("bias", [False, True])
def test_affine(shape, base_axis, bias):
    def build():
        features = int(np.prod(shape[base_axis:]))
        leaves = {"x": leaf(shape, 1), "w": leaf((features, 10), 2)}
        if bias:
            leaves["b"] = leaf((10,), 3)
        return F.affine(leaves["x"], leaves["w"], leaves.get("b"), base_axis=base_axis), leaves

    assert _accelerated(compare(build), "Affine")


FOLLOWERS = {
    "none": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
}


@pytest.mark.parametrize("follow", FOLLOWERS)
@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("batch_stat", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (4, 16, 8, 8), (6, 600, 1, 1), (8, 20)])
def test_batch_normalization(shape, batch_stat, joins, follow):
    channels = (1, shape[1], *(1,) * (len(shape) - 2))

    def build():
        leaves = {"x": leaf(shape, 1), "beta": leaf(channels, 2), "gamma": leaf(channels, 3)}
        leaves["mean"], leaves["variance"] = leaf(channels, 4, False), leaf(channels, 5, False)
        leaves["variance"].d = leaves["variance"].d ** 2 + 0.5
        y = F.batch_normalization(*leaves.values(), batch_stat=batch_stat, eps=1e-3)
        if joins:
            leaves["s"] = leaf(shape, 6)
            y = F.add2(y, leaves["s"])
        return FOLLOWERS[follow](y), leaves

    fast = compare(build)
    assert _accelerated(fast, "Normalise")
    names = [f.info.type_name for f in functions_of(fast.outputs)]
    assert not {"Clip", "ReLU", "ReLU6", "BatchNormalization"} & set(names)
    assert names.count("Addition") == 1  # of the test's own loss


def test_the_variance_of_numbers_far_from_zero():
    x = np.random.RandomState(0).randn(64, 3, 4, 4) * 0.1 + [[[[300.0]], [[-20.0]], [[0.0]]]]
    v = nn.Variable.from_numpy_array(x.astype(np.float32))
    x = v.d.astype(np.float64)
    parameters = [nn.Variable((1, 3, 1, 1)) for _ in range(4)]
    for parameter, value in zip(parameters, (0, 1, 0, 0)):
        parameter.d = value
    (y,) = accelerate([F.batch_normalization(v, *parameters, eps=1e-5)]).outputs
    y.forward()
    # nnabla's own E[x^2] - E[x]^2 is wrong by 0.9 here.
    expected = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    assert np.abs(y.d - expected).max() < 1e-3


@pytest.mark.parametrize("function", [F.relu, F.relu6])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 5)])
def test_rectifiers(function, shape):
    def build():
        x = leaf(shape, 1, scale=5)
        return function(x), {"x": x}

    assert _accelerated(compare(build), "Clip")


@pytest.mark.parametrize("count", [2, 3, 5])
def test_sums(count):
    def build():
        leaves = {f"x{i}": leaf((2, 3, 5, 5), i) for i in range(count)}
        return F.add2(*leaves.values()) if count == 2 else F.add_n(*leaves.values()), leaves

    assert _accelerated(compare(build), "Addition")


def test_a_variable_added_to_itself():
    def build():
        x = leaf((2, 3, 5, 5))
        y = F.add2(x, x)
        return F.add2(F.relu(y), F.relu6(y)), {"x": x}

    compare(build)


POOLS = [
    dict(kernel=(2, 2)),
    dict(kernel=(3, 3), stride=(2, 2), pad=(1, 1)),
    dict(kernel=(3, 3), stride=(2, 2), ignore_border=False),
    dict(kernel=(1, 1), stride=(2, 2)),
    dict(kernel=(3, 2), stride=(1, 1)),
]


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 16, 8, 8), (2, 8, 1, 1)])
@pytest.mark.parametrize("given", POOLS, ids=str)
@pytest.mark.parametrize("function", [F.max_pooling, F.average_pooling])
def test_pooling(shape, given, function):
    if any(k > s + 2 * p for k, s, p in zip(given["kernel"], shape[2:], given.get("pad", (0, 0)))):
        pytest.skip("the window is larger than the map")

    def build():
        x = leaf(shape, 1)
        return function(x, **given), {"x": x}

    fast = compare(build)
    assert _accelerated(fast, "Pooling") or (function is F.average_pooling and given.get("ignore_border") is False)


def test_average_pooling_without_the_pad():
    def build():
        x = leaf((2, 4, 7, 7))
        return F.average_pooling(x, (3, 3), (2, 2), pad=(1, 1), including_pad=False), {"x": x}

    assert _accelerated(compare(build), "Pooling")


def test_maximum_among_equals():
    def build():
        x = leaf((2, 4, 8, 8))
        x.d = np.round(x.d)
        return F.max_pooling(x, (3, 3), (2, 2)), {"x": x}

    compare(build)


@pytest.mark.parametrize("shape", SHAPES)
def test_global_average_pooling(shape):
    def build():
        x = leaf(shape)
        return F.global_average_pooling(x), {"x": x}

    assert _accelerated(compare(build), "Pooling")


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("widths", list(itertools.product((1, 3, 8), repeat=2)))
def test_concatenation(widths, axis):
    def build():
        shapes = [(2, w, 4, 5) if axis == 1 else (2, 4, w) for w in widths]
        leaves = {f"x{i}": leaf(shape, i) for i, shape in enumerate(shapes)}
        return F.concatenate(*leaves.values(), axis=axis), leaves

    assert _accelerated(compare(build), "ConcatenateLast")


def test_channels_of_zeros():
    def build():
        x = leaf((2, 3, 4, 5))
        return F.pad(x, (2, 5, 0, 0, 0, 0)), {"x": x}

    assert _accelerated(compare(build), "PadLast")


def test_softmax_cross_entropy():
    def build():
        x, label = leaf((7, 10), scale=5), nn.Variable((7, 1))
        label.d = np.arange(7).reshape(7, 1)
        return F.softmax_cross_entropy(x, label), {"x": x}

    assert _accelerated(compare(build), "SoftmaxCrossEntropy")


def test_a_label_that_is_no_class_spoils_the_loss():
    x, label = leaf((2, 3)), nn.Variable((2, 1))
    label.d = 3
    (fast,) = accelerate([F.sum(F.softmax_cross_entropy(x, label))]).outputs
    fast.forward()
    assert np.isnan(fast.d)


def test_every_rule_is_tested_here():
    source = Path(__file__).read_text()
    tested = {
        "Convolution": "F.convolution", "DepthwiseConvolution": "F.depthwise_convolution",
        "Deconvolution": "F.deconvolution", "Affine": "F.affine", "ReLU": "F.relu", "ReLU6": "F.relu6",
        "Add2": "F.add2", "AddN": "F.add_n", "MaxPooling": "F.max_pooling", "AveragePooling": "F.average_pooling",
        "GlobalAveragePooling": "F.global_average_pooling", "Concatenate": "F.concatenate", "Pad": "F.pad",
        "SoftmaxCrossEntropy": "F.softmax_cross_entropy",
    }  # fmt: skip
    # Cores and FixedPointQuantize have test files of their own.
    quantizers = {name for name in RULES if name.endswith("Core") or name == "FixedPointQuantize"}
    assert RULES.keys() - quantizers == tested.keys()
    assert all(name in source for name in tested.values())
