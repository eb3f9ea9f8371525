"""Arithmetic on few numbers as one function: equal to nnabla's functions, one by one and in whole penalties."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.accelerate.scalar_compiler import BINARY, REDUCTIONS, UNARY
from nnmpq.graph.functions import functions_of
from tests.graph.accelerate.comparing import differences, one_step

NUMBERS = [-3.5, -1.5, -0.5, -0.2, 0.25, 0.5, 1.0, 1.5, 2.5, 7.0]
FUNCTIONS = {
    "Identity": F.identity,
    "Reshape": lambda x: F.reshape(x, (2, 5), inplace=False),
    "MaximumScalar": lambda x: F.maximum_scalar(x, 0.5),
    "MinimumScalar": lambda x: F.minimum_scalar(x, 0.5),
    "AddScalar": lambda x: F.add_scalar(x, 0.7),
    "MulScalar": lambda x: F.mul_scalar(x, -0.7),
    "PowScalar": lambda x: F.pow_scalar(x, 2.0),
    "RPowScalar": lambda x: F.r_pow_scalar(x, 2.0),
    # Not at zero, where a rounding may have brought it.
    "RDivScalar": lambda x: F.r_div_scalar(F.add_scalar(x, 5.5), 3.0),
    "Log": lambda x: F.log(F.maximum_scalar(x, 0.1)),
    "Round": F.round,
    "Ceil": F.ceil,
    "ReLU": F.relu,
    "Add2": lambda x: F.add2(x, F.mul_scalar(x, 2.0)),
    "Sub2": lambda x: F.sub2(x, F.mul_scalar(x, 2.0)),
    "Mul2": lambda x: F.mul2(x, F.add_scalar(x, 2.0)),
    "Div2": lambda x: F.div2(x, F.add_scalar(x, 20.0)),
    "Sum": F.sum,
    "Max": F.max,
}


def test_every_function_has_a_case():
    assert FUNCTIONS.keys() == {*UNARY, *BINARY, *REDUCTIONS}


def _compare(build, x: nn.Variable) -> list[str]:
    y = F.mul_scalar(F.identity(build(F.identity(x))), 3.0)
    (fast,) = accelerate([y]).outputs
    names = {f.info.type_name for f in functions_of([fast])}
    assert "ScalarArithmetic" in names and names <= {"ScalarArithmetic", "Concatenate", "Slice", "Reshape", "Stack"}
    wrong = differences(one_step(y, [y], {"x": x}), one_step(fast, [fast], {"x": x}), 1e-6)
    return wrong


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_function(name):
    x = nn.parameter.get_parameter_or_create("x", (len(NUMBERS),), initializer=np.array(NUMBERS, np.float32))
    assert _compare(FUNCTIONS[name], x) == []


def test_stopped_gradients_stay_stopped():
    x = nn.parameter.get_parameter_or_create("x", (), initializer=np.array(3.0, np.float32))
    fixed = F.identity(F.mul_scalar(x, 2.0)).apply(need_grad=False)
    y = F.mul2(fixed, F.add_scalar(x, 1.0))
    (fast,) = accelerate([y]).outputs
    fast.forward()
    x.grad.zero()
    fast.backward()
    # d(6 * (x + 1)) / dx with the 6 = 2x held.
    assert float(fast.d) == 24.0 and float(x.g) == 6.0


def test_numbers_side_by_side():
    parameters = [
        nn.parameter.get_parameter_or_create(f"x{i}", (), initializer=np.array(v, np.float32))
        for i, v in enumerate((1.0, 5.0, 2.0))
    ]
    factors = nn.Variable.from_numpy_array(np.array([3.0, 1.0, 0.5], np.float32))
    y = F.add2(F.sum(F.mul2(F.stack(*parameters), factors)), F.max(F.stack(*parameters)))
    (fast,) = accelerate([y]).outputs
    fast.forward()
    for p in parameters:
        p.grad.zero()
    fast.backward()
    assert float(fast.d) == 3 + 5 + 1 + 5
    assert [float(p.g) for p in parameters] == [3.0, 2.0, 0.5]


def test_an_output_that_gets_no_gradient_adds_nothing():
    x = nn.parameter.get_parameter_or_create("x", (), initializer=np.array(3.0, np.float32))
    used, unused = F.mul_scalar(F.add_scalar(x, 1.0), 2.0), F.mul_scalar(F.add_scalar(x, 1.0), 1e6)
    big = nn.Variable.from_numpy_array(np.ones((2, 5000), np.float32))
    loss = F.sum(F.mul2(big, F.reshape(used, (1, 1), inplace=False)))
    fast = accelerate([loss, unused])
    fast.outputs[0].forward()
    x.grad.zero()
    fast.outputs[0].backward()
    assert float(x.g) == 20000.0


def test_few_functions_are_left_as_they_are():
    x = nn.parameter.get_parameter_or_create("x", (3,))
    (fast,) = accelerate([F.add_scalar(x, 1.0)]).outputs
    assert [f.info.type_name for f in functions_of([fast])] == ["AddScalar"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(FUNCTIONS.keys() - {"Reshape"})), min_size=1, max_size=6), st.integers(0, 9999))
def test_any_chain(names, seed):
    nn.clear_parameters()
    numbers = np.random.RandomState(seed).uniform(0.3, 3.0, (4,)).astype(np.float32)
    x = nn.parameter.get_parameter_or_create("x", (4,), initializer=numbers)

    def build(v):
        for name in names:
            # Kept where no function overflows and no rounding is at its edge.
            v = F.minimum_scalar(F.maximum_scalar(FUNCTIONS[name](v), -4.0), 4.0)
        return v

    probe = build(x)
    probe.forward()
    if np.all(np.isfinite(probe.d)):
        assert _compare(build, x) == []
