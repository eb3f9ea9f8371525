from __future__ import annotations

from fractions import Fraction

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.export.integer.lower import lower
from nnmpq.export.integer.moves import common_multipliers
from nnmpq.export.integer.program import ExportError
from nnmpq.export.integer.saved import run
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.models.vgg import vgg
from tests.export.networks import KINDS, normalised, prepare, trained


@given(exponents=st.lists(st.integers(-8, 8), min_size=1, max_size=5))
def test_powers_of_two_have_their_smallest_as_common_step(exponents: list[int]) -> None:
    steps = [2.0**e for e in exponents]
    unit, multiples = common_multipliers(steps, "here")
    assert unit == min(steps)
    assert [Fraction(m) * Fraction(unit) for m in multiples] == [Fraction(step) for step in steps]


@settings(max_examples=100)
@given(steps=st.lists(st.floats(2.0**-6, 1.0, allow_subnormal=False), min_size=2, max_size=4))
def test_any_steps_come_near_multiples_of_one(steps: list[float]) -> None:
    unit, multiples = common_multipliers(steps, "here")
    assert all(isinstance(m, int) and 1 <= m < 2**24 for m in multiples)
    for step, multiple in zip(steps, multiples):
        assert abs(multiple * unit - step) <= unit / 2 * (1 + 1e-9)


@pytest.mark.parametrize("far", [2.0**8 * 1.5, 2.0**24])
def test_steps_too_far_apart_are_refused(far: float) -> None:
    with pytest.raises(ExportError, match="sum: steps .* too far apart"):
        common_multipliers([1 / 3.1, far], "sum")


def _exact(build) -> None:
    """Every level of a network is the trained network's."""
    network = trained(12, build=build)
    program = network.program()
    values, (wanted, _) = run(program, network.images), network.run()
    for tensor in program.sites:
        found = (values[tensor.name] * tensor.step).astype(np.float32).reshape(wanted[tensor.name].shape)
        np.testing.assert_array_equal(found, wanted[tensor.name], err_msg=tensor.name)
        assert len(np.unique(wanted[tensor.name])) > 1, tensor.name


def _stem(x: nn.Variable) -> nn.Variable:
    return F.relu(normalised(PF.convolution(x, 5, (3, 3), pad=(1, 1), with_bias=False, name="a"), "a"))


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [((3, 3), (2, 2), (1, 1)), ((2, 3), (1, 2), (0, 1)), ((4, 4), (4, 4), (2, 2)), ((1, 12), (1, 1), (0, 0))],
)
def test_average_pooling_that_counts_its_padding_is_exact(kernel: tuple, stride: tuple, pad: tuple) -> None:
    def build(x: nn.Variable) -> nn.Variable:
        return PF.affine(F.average_pooling(_stem(x), kernel, stride, pad=pad, including_pad=True), 3, name="b")

    _exact(build)


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [((3, 3), (2, 2), (1, 1)), ((2, 5), (3, 1), (1, 2)), ((12, 1), (1, 1), (0, 0))]
)
def test_max_pooling_of_odd_shapes_is_exact(kernel: tuple, stride: tuple, pad: tuple) -> None:
    _exact(lambda x: PF.affine(F.max_pooling(_stem(x), kernel, stride, pad=pad), 3, name="b"))


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((1, 3), {"pad": (0, 1), "stride": (3, 1)}),
        ((5, 2), {"pad": (4, 0), "stride": (1, 5), "dilation": (2, 3)}),
        ((12, 12), {}),
        ((3, 3), {"pad": (7, 7), "stride": (4, 4)}),
    ],
    ids=["flat", "dilated", "whole map", "windows in the padding alone"],
)
def test_convolutions_of_odd_shapes_are_exact(kernel: tuple, options: dict) -> None:
    def build(x: nn.Variable) -> nn.Variable:
        h = F.relu(normalised(PF.convolution(_stem(x), 6, kernel, name="o", **options), "o"))
        return PF.affine(h, 3, name="b")

    _exact(build)


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_convolutions_are_exact_or_refused(multiplier: int) -> None:
    def build(x: nn.Variable) -> nn.Variable:
        h = PF.depthwise_convolution(_stem(x), (3, 2), multiplier=multiplier, stride=(2, 1), name="d")
        return PF.affine(F.relu6(normalised(h, "d")), 3, name="b")

    _exact(build)


def test_differences_and_sums_of_three_branches_are_exact() -> None:
    def build(x: nn.Variable) -> nn.Variable:
        h = _stem(x)
        parts = [normalised(PF.convolution(h, 5, (1, 1), name=n), n) for n in ("p", "q")]
        return PF.affine(F.relu(F.sub2(F.relu(F.add_n(h, *parts)), parts[0])), 3, name="b")

    _exact(build)


def test_poolings_that_leave_the_padding_out_or_hang_over_are_refused() -> None:
    for options, message in (
        ({"pad": (1, 1), "including_pad": False}, "leaves the padding out: set including_pad = True"),
        ({"ignore_border": False}, "ignore_border = False has no integer form"),
    ):
        nn.clear_parameters()
        x = nn.Variable((2, 3, 12, 12))
        y = PF.affine(F.average_pooling(_stem(x), (5, 5), (2, 2), **options), 3, name="b")
        with pytest.raises(ExportError, match=message):
            lower(quantize(y, Fixed(4, 4, kinds=KINDS)), prepare)


def test_a_vgg_is_exact() -> None:
    """Max pooling without a quantizer of its own in front of every stage, hidden affines, biases everywhere."""

    def build(x: nn.Variable) -> nn.Variable:
        y = vgg(11, x, 4, test=True, width_multiplier=0.05, hidden=(7,))
        # Weights as small as they start leave nothing but zeros.
        weight = nn.get_parameters()["hidden1/affine/W"]
        weight.d = np.random.RandomState(2).randn(*weight.shape) / 2
        return y

    _exact(build)
