from __future__ import annotations

import time

import nnabla as nn
import numpy as np
import pytest

from nnmpq.graph.schemes import Quantized
from nnmpq.quantizers import make
from nnmpq.training.constraints import group_alike


def site(quantizer, **values):
    parameters = {}
    for name, value in values.items():
        variable = nn.Variable.from_numpy_array(np.asarray(value, np.float32), need_grad=quantizer.learned(name))
        variable.g = 0
        parameters[name] = variable
    return Quantized(nn.Variable(()), quantizer=quantizer, parameters=parameters)


STEP_RANGE = {"step_limits": (2.0**-8, 1.0), "xmax_limits": (2.0**-8, 127.0)}


def test_gradients_are_clamped_to_the_raw_step_of_their_own_quantizer():
    quantizer = make("uniform_delta_xmax", signed=True, **STEP_RANGE)
    first, second = site(quantizer, step=0.25, xmax=2.0), site(quantizer, step=0.5, xmax=2.0)
    for one in (first, second):
        one.parameters["step"].g = 9.0
        one.parameters["xmax"].g = -0.375
    (alike,) = group_alike({"a": first, "b": second})
    alike.decay_and_clamp(0.0, True)
    assert (float(first.parameters["step"].g), float(first.parameters["xmax"].g)) == (0.25, -0.25)
    assert (float(second.parameters["step"].g), float(second.parameters["xmax"].g)) == (0.5, -0.375)


def test_decay_is_added_before_the_clamp():
    quantizer = make("uniform_delta_xmax", signed=True, **STEP_RANGE)
    one = site(quantizer, step=0.25, xmax=100.0)
    one.parameters["xmax"].g = -0.5
    (alike,) = group_alike({"a": one})
    # -0.5 + 0.006 * 100 = 0.1, within the clamp of 0.25; clamped first, it would be -0.25 + 0.6 = 0.35.
    alike.decay_and_clamp(0.006, True)
    assert float(one.parameters["xmax"].g) == pytest.approx(0.1, abs=1e-6)


def test_decay_alone_is_rate_times_value():
    one = site(make("uniform_b_xmax", signed=True), bits=4.0, xmax=2.0)
    one.parameters["xmax"].g = 1.0
    (alike,) = group_alike({"a": one})
    alike.decay_and_clamp(0.125, False)
    assert float(one.parameters["xmax"].g) == 1.25
    assert float(one.parameters["bits"].g) == 0.5


def test_power_of_two_gradients_are_clamped_to_xmin():
    one = site(make("pow2_xmin_xmax", signed=True), xmin=0.0625, xmax=1.0)
    one.parameters["xmin"].g, one.parameters["xmax"].g = -3.0, 0.03125
    (alike,) = group_alike({"a": one})
    alike.decay_and_clamp(0.0, True)
    assert (float(one.parameters["xmin"].g), float(one.parameters["xmax"].g)) == (-0.0625, 0.03125)


@pytest.mark.parametrize(
    ("step", "xmax", "expected"),
    [
        (-3.0, 2.0, (2.0**-8 + 1e-5, 2.0)),  # below the lower limit
        (4.0, 500.0, (1 - 1e-5, 127 - 1e-5)),  # above the upper ones
        (0.5, 0.25, (0.25 - 1e-5, 0.5 + 1e-5)),  # crossed: they change places
        (0.25, 2.0, (0.25, 2.0)),  # nothing to do
    ],
)
def test_values_are_put_back_in_order_and_inside_the_limits(step, xmax, expected):
    quantizer = make("uniform_delta_xmax", signed=True, **STEP_RANGE)
    one, untouched = site(quantizer, step=step, xmax=xmax), site(quantizer, step=0.125, xmax=1.0)
    (alike,) = group_alike({"a": untouched, "b": one})
    alike.constrain()
    found = (float(one.parameters["step"].d), float(one.parameters["xmax"].d))
    assert found == pytest.approx(expected, rel=1e-6)
    assert float(untouched.parameters["step"].d) == 0.125


def test_vectors_of_channels_go_along():
    quantizer = make("uniform_delta_xmax", signed=True, channel_axis=0, **STEP_RANGE)
    wide = site(quantizer, step=[0.25, 4.0, 0.5], xmax=[1.0, 2.0, 3.0])
    narrow = site(quantizer, step=[-1.0], xmax=[2.0])
    (alike,) = group_alike({"a": wide, "b": narrow})
    alike.constrain()
    limits = [0.25, 1 - 1e-5, 0.5]
    assert wide.parameters["step"].d.tolist() == pytest.approx(limits, rel=1e-6)
    assert narrow.parameters["step"].d.tolist() == pytest.approx([2.0**-8 + 1e-5], rel=1e-6)


def test_quantizers_are_grouped_by_equal_settings_and_only_learned_ones():
    learned = make("uniform_delta_xmax", signed=True)
    sites = {
        "a": site(learned, step=0.5, xmax=1.0),
        "b": site(make("uniform_delta_xmax", signed=True), step=0.5, xmax=1.0),
        "c": site(make("uniform_delta_xmax", signed=False), step=0.5, xmax=1.0),
        "d": site(make("uniform_b_xmax", signed=True, learn=False), bits=4.0, xmax=1.0),
        "e": Quantized(nn.Variable(())),
    }
    groups = group_alike(sites)
    assert sorted(len(group.parameters["step"]) for group in groups) == [1, 2]


def test_pinned_bits_are_left_alone():
    one = site(make("uniform_b_xmax", signed=True, bits_limits=(2.0, 2.0)), bits=2.0, xmax=1000.0)
    (alike,) = group_alike({"a": one})
    assert alike.learned == ("xmax",)
    alike.decay_and_clamp(0.5, True)
    alike.constrain()
    assert float(one.parameters["bits"].d) == 2.0
    assert float(one.parameters["xmax"].d) < 1000


def test_forty_quantizers_cost_well_under_five_milliseconds():
    quantizer = make("uniform_delta_xmax", signed=True, **STEP_RANGE)
    sites = {str(number): site(quantizer, step=2.0, xmax=1.0) for number in range(40)}
    (alike,) = group_alike(sites)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        alike.decay_and_clamp(0.0, True)
        alike.constrain()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.003
