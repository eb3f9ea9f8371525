from __future__ import annotations

from typing import Callable

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.export.integer.chain import Chain, Link
from nnmpq.export.integer.program import ExportError

CHANNELS = 3
NUMBERS = np.array([[[[0.5]], [[-2.0]], [[1.5]]]], np.float32)


def chain_of(build: Callable[[nn.Variable], nn.Variable]) -> tuple[Chain, nn.Variable, nn.Variable]:
    nn.clear_parameters()
    x = nn.Variable((2, CHANNELS, 1, 1))
    y = build(x)
    links: list[Link] = []
    variable = y
    while variable.parent is not None:
        function = variable.parent
        position = next(i for i, v in enumerate(function.inputs) if v == x or v.parent is not None)
        links.insert(0, Link(function, position))
        variable = function.inputs[position]
    return Chain(tuple(links), CHANNELS, 4, "here"), x, y


def stirred(x: nn.Variable) -> nn.Variable:
    y = PF.batch_normalization(x, batch_stat=False)
    for name, variable in nn.get_parameters(grad_only=False).items():
        variable.d = 0.5 + np.random.RandomState(len(name)).rand(*variable.shape)
    return y


def constant() -> nn.Variable:
    return nn.Variable.from_numpy_array(NUMBERS)


CASES: dict[str, Callable[[nn.Variable], nn.Variable]] = {
    "batch normalization": stirred,
    "scalars": lambda x: F.add_scalar(F.mul_scalar(x, -3.0), 0.25),
    "times": lambda x: F.mul2(x, constant()),
    "plus": lambda x: F.add2(constant(), x),
    "minus": lambda x: F.sub2(x, constant()),
    "from": lambda x: F.sub2(constant(), x),
    "over": lambda x: F.div2(x, constant()),
    "two": lambda x: F.mul_scalar(F.add2(x, constant()), 2.0),
}


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_the_line_and_the_function_are_the_graphs(build: Callable[[nn.Variable], nn.Variable]) -> None:
    chain, x, y = chain_of(build)
    sums = np.array([[-5, 3, 8], [100, -7, 0]], np.int64)
    unit = np.array([0.25, 0.5, 0.125])
    x.d = (sums * unit).reshape(x.shape)
    y.forward()
    wanted = y.d.reshape(2, CHANNELS)
    np.testing.assert_array_equal(chain.evaluator(unit, 2)(sums), wanted)
    slope, offset = chain.line(unit)
    np.testing.assert_allclose(sums * slope + offset, wanted, rtol=1e-6, atol=1e-6)


def test_bias_and_window_come_first() -> None:
    bias = np.array([1.0, -1.0, 0.5], np.float32)
    chain = Chain((), CHANNELS, 4, "here", bias=bias)
    sums = np.array([[4, 8, -2]], np.int64)
    assert chain.evaluator(np.ones(()), 1)(sums).tolist() == [[5.0, 7.0, -1.5]]
    pooled = Chain((), CHANNELS, 4, "here", window=(2, 2))
    assert pooled.evaluator(np.asarray(0.5), 1)(sums).tolist() == [[0.5, 1.0, -0.25]]
    np.testing.assert_array_equal(pooled.line(np.asarray(0.5))[0], [0.125] * 3)


def test_what_is_no_line_is_refused() -> None:
    chain, _, _ = chain_of(lambda x: F.tanh(x))
    with pytest.raises(ExportError, match="here: Tanh has no integer form"):
        chain.line(np.ones(()))
    chain, _, _ = chain_of(lambda x: F.mul_scalar(F.relu(x), 2.0))
    with pytest.raises(ExportError, match="here: MulScalar behind ReLU"):
        chain.line(np.ones(()))
    chain, _, _ = chain_of(lambda x: F.div2(constant(), x))
    with pytest.raises(ExportError, match="division by an activation"):
        chain.line(np.ones(()))
    chain, _, _ = chain_of(lambda x: F.add2(x, nn.Variable.from_numpy_array(np.ones((1, 3, 2, 2), np.float32))))
    with pytest.raises(ExportError, match="not one number a channel"):
        chain.line(np.ones(()))


def test_a_clip_at_the_end_changes_no_line() -> None:
    chain, _, _ = chain_of(lambda x: F.minimum_scalar(F.relu(F.mul_scalar(x, 2.0)), 6.0))
    np.testing.assert_array_equal(chain.line(np.ones(()))[0], [2.0] * 3)
    assert chain.evaluator(np.ones(()), 1)(np.array([[-1, 2, 9]])).tolist() == [[0.0, 4.0, 6.0]]
