"""Convolution primitives against sums written out in numpy, and against scipy where it has the operation."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import scipy.signal

from nnmpq.graph.accelerate.convolution import convolved_size
from nnmpq.onednn.convolution import ConvolutionSpec, WeightLayout, convolution_plan
from nnmpq.onednn.library import OneDnnError
from nnmpq.onednn.primitive import buffer_of
from nnmpq.quantizers.buffers import floats_at
from tests.onednn.arrays import address, first, last, normal, reference, worst

# batch, channels, size, outputs, kernel, stride, pad, dilation, group
CASES = [
    (1, 1, (1, 1), 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (2, 3, (7, 5), 5, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (3, 16, (9, 9), 24, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    (2, 17, (8, 11), 19, (1, 1), (2, 3), (0, 0), (1, 1), 1),
    (1, 8, (10, 6), 8, (5, 1), (1, 2), (2, 0), (1, 1), 1),
    (2, 6, (13, 13), 7, (3, 2), (2, 1), (3, 2), (2, 3), 1),
    (2, 12, (7, 7), 8, (3, 3), (1, 1), (1, 1), (1, 1), 4),
    (2, 6, (9, 7), 18, (3, 3), (2, 2), (2, 2), (2, 2), 3),
    (2, 32, (7, 9), 32, (3, 3), (1, 1), (1, 1), (1, 1), 32),
    (1, 5, (8, 8), 10, (3, 3), (2, 2), (1, 1), (1, 1), 5),
    (4, 64, (8, 8), 64, (3, 3), (1, 1), (1, 1), (1, 1), 1),
]


def spec_of(case, bias: bool = False) -> ConvolutionSpec:
    batch, channels, size, outputs, kernel, stride, pad, dilation, group = case
    out = convolved_size(size, kernel, stride, pad, dilation)
    return ConvolutionSpec(batch, channels, size, outputs, out, kernel, stride, pad, dilation, group, bias)


def blocked(layout: WeightLayout, w: np.ndarray):
    """A weight in a plan's layout: what must stay alive, and its address."""
    if layout.move is None:
        return w, address(w)
    memory, place = buffer_of(layout.wanted)
    layout.move(address(w), place)
    return memory, place


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_three_passes(case, bias):
    spec = spec_of(case, bias)
    plan = convolution_plan(spec, 1)
    x = normal((spec.batch, spec.channels, *spec.size), 1)
    w = normal((spec.outputs, spec.channels // spec.group, *spec.kernel), 2)
    g = normal((spec.batch, spec.outputs, *spec.output_size), 3)
    b = normal((spec.outputs,), 4)
    y, gx, gw = reference(spec, x, w, g)

    found = np.full(last(g).shape, np.nan, np.float32)
    kept, place = blocked(plan.forward_weight, w)
    moved = last(x)
    plan.forward(address(moved), place, *([address(b)] if bias else []), address(found))
    assert worst(first(found), y + b[:, None, None] * bias) < 2e-6

    back = np.full(moved.shape, np.nan, np.float32)
    kept, place = blocked(plan.backward_weight, w)
    gradient = last(g)
    plan.backward_data(address(gradient), place, address(back))
    assert worst(first(back), gx) < 2e-6

    layout = plan.weight_gradient
    kept, place = buffer_of(layout.wanted)
    bias_gradient = np.full(spec.outputs, np.nan, np.float32)
    plan.backward_weights(address(moved), address(gradient), place, *([address(bias_gradient)] if bias else []))
    weight_gradient = np.empty(w.shape, np.float32)
    if layout.move is None:
        weight_gradient[:] = floats_at(place, w.size).reshape(w.shape)
    else:
        layout.move(place, address(weight_gradient))
    assert worst(weight_gradient, gw) < 2e-6
    if bias:
        assert worst(bias_gradient, g.sum((0, 2, 3), dtype=np.float64)) < 2e-6
    del kept


def test_one_channel_is_scipy_s_correlation():
    spec = spec_of((1, 1, (9, 6), 1, (3, 3), (1, 1), (0, 0), (1, 1), 1))
    x, w = normal((1, 1, 9, 6), 1), normal((1, 1, 3, 3), 2)
    y = np.empty((1, 7, 4, 1), np.float32)
    plan = convolution_plan(spec, 1)
    kept, place = blocked(plan.forward_weight, w)
    plan.forward(address(x), place, address(y))
    assert worst(y[0, ..., 0], scipy.signal.correlate2d(x[0, 0], w[0, 0], "valid")) < 1e-6
    del kept


def test_equal_shapes_share_a_plan_and_other_thread_counts_do_not():
    spec = spec_of(CASES[1])
    assert convolution_plan(spec, 1) is convolution_plan(spec_of(CASES[1]), 1)
    assert convolution_plan(spec, 1) is not convolution_plan(spec, 2)
    assert convolution_plan(spec, 1) is not convolution_plan(spec_of(CASES[1], bias=True), 1)


@pytest.mark.parametrize(
    "changes",
    [
        dict(output_size=(2, 2)),
        dict(channels=-1),
        dict(stride=(0, 1)),
        dict(dilation=(0, 0)),
        dict(pad=(-9, 0)),
        dict(group=2),
    ],
    ids=str,
)
def test_what_fits_nothing_is_refused_with_the_status_and_the_shape(changes):
    spec = attrs.evolve(spec_of((2, 3, (7, 5), 5, (3, 3), (1, 1), (1, 1), (1, 1), 1)), **changes)
    with pytest.raises(OneDnnError, match=r"oneDNN: .* failed with status \d"):
        convolution_plan(spec, 1).forward  # noqa: B018
