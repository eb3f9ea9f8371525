"""Copies of graphs with everything that a user may have done to them."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from nnabla.function import PythonFunction

from nnmpq.graph.functions import functions_of
from nnmpq.graph.rewrite import rewrite, unfuse
from tests.graph.networks import foreign, residual


class Doubled(PythonFunction):
    """A function that nnabla keeps no recipe of."""

    @property
    def name(self) -> str:
        return "Doubled"

    def min_outputs(self) -> int:
        return 1

    def grad_depends_output_data(self, i, o):
        return False

    def grad_depends_input_data(self, i, j):
        return False

    def setup_impl(self, inputs, outputs):
        outputs[0].reset_shape(inputs[0].shape, True)

    def forward_impl(self, inputs, outputs):
        outputs[0].data.copy_from(F.mul_scalar(inputs[0].data, 2.0))

    def backward_impl(self, inputs, outputs, propagate_down, accumulate):
        pass


def numbers(*shape: int) -> nn.Variable:
    x = nn.Variable(shape or (2, 4), need_grad=True)
    x.d = np.random.RandomState(0).randn(*x.shape).astype(np.float32)
    return x


def copy(*outputs: nn.Variable) -> list[nn.Variable]:
    return rewrite(outputs, lambda function, inputs: None)[0]


def gradient(y: nn.Variable, x: nn.Variable) -> np.ndarray:
    x.grad.zero()
    y.forward()
    y.backward()
    return np.array(x.g)


def test_running_statistics_are_shared():
    x = numbers(2, 3, 8, 8)
    (again,) = copy(PF.batch_normalization(x))
    again.forward()
    # decay 0.9 from zero.
    mean = nn.get_parameters(grad_only=False)["bn/mean"].d
    np.testing.assert_allclose(mean, 0.1 * x.d.mean((0, 2, 3), keepdims=True), atol=1e-6)


def test_a_loaded_file_can_be_copied(tmp_path):
    x, y = foreign(tmp_path)
    x.d = numbers(*x.shape).d
    (again,) = copy(y)
    y.forward()
    again.forward()
    np.testing.assert_array_equal(again.d, y.d)


def test_functions_of_several_outputs_and_outputs_that_nothing_reads():
    x = numbers()
    parts = F.split(x, 1)
    (again,) = copy(F.add2(F.relu(parts[0]), parts[2]))
    again.forward()
    np.testing.assert_array_equal(again.d, np.maximum(x.d[:, 0], 0) + x.d[:, 2])


def test_several_outputs_share_what_they_have_in_common():
    x = numbers()
    h = F.tanh(x)
    a, b = copy(F.relu(h), F.abs(h))
    assert a.parent.inputs[0] == b.parent.inputs[0] != h
    assert copy(x) == [x]


def test_nothing_is_done_in_place():
    x = numbers()
    h = F.tanh(x)
    (again,) = copy(F.add2(F.relu(h, inplace=True), h))
    assert not any(f.info.args.get("inplace") for f in functions_of([again]))
    again.forward()
    np.testing.assert_allclose(again.d, np.tanh(x.d) + np.maximum(np.tanh(x.d), 0), rtol=1e-5)


def test_a_stopped_gradient_stays_stopped():
    x = numbers()
    h = F.tanh(x)
    h.need_grad = False
    (again,) = copy(F.mul2(h, x))
    np.testing.assert_allclose(gradient(again, x), np.tanh(x.d), rtol=1e-6)


def test_a_gradient_that_never_came_may_come():
    x, learned = nn.Variable((2, 4)), numbers()
    y = F.mul_scalar(F.pad(x, (1, 1)), 3.0)
    assert not y.need_grad
    (again,), _ = rewrite([y], lambda function, inputs: None, {x: learned})
    np.testing.assert_array_equal(gradient(again, learned), np.full((2, 4), 3.0))


def test_an_input_put_in_place_of_a_stopped_variable_keeps_its_own_gradient():
    x = numbers()
    h = F.tanh(x)
    h.need_grad = False
    (again,), _ = rewrite([F.mul2(h, x)], lambda f, inputs: [inputs[0]] if f.info.type_name == "Tanh" else None)
    assert x.need_grad
    np.testing.assert_allclose(gradient(again, x), x.d, rtol=1e-6)


def test_what_the_user_marked_stays_marked():
    h = F.tanh(numbers())
    h.persistent, h.name = True, "feature"
    made = copy(F.relu(h))[0].parent.inputs[0]
    assert (made.persistent, made.name) == (True, "feature") and made != h


def test_a_function_written_in_python_is_shared_or_replaced_where_that_is_possible():
    x = numbers()
    (shared,) = copy(F.tanh(Doubled(nn.get_current_context())(x)))
    (replaced,), _ = rewrite(
        [Doubled(nn.get_current_context())(F.tanh(x))],
        lambda f, inputs: [F.mul_scalar(inputs[0], 2.0)] if f.info.type_name == "Doubled" else None,
    )
    shared.forward()
    replaced.forward()
    np.testing.assert_allclose(shared.d, np.tanh(2 * x.d), rtol=1e-6)
    np.testing.assert_allclose(replaced.d, 2 * np.tanh(x.d), rtol=1e-6)


@pytest.mark.parametrize("joined", [False, True])
def test_fused_batch_normalization_comes_apart_to_the_same_numbers(joined):
    x, z = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4) if joined else None
    y = PF.fused_batch_normalization(x, z, batch_stat=False)
    for name, value in (("mean", 0.3), ("var", 2.0), ("beta", -0.2), ("gamma", 1.5)):
        nn.get_parameters(grad_only=False)[f"bn/{name}"].d = value
    (apart,) = unfuse([y])
    types = [f.info.type_name for f in functions_of([apart])]
    assert types == ["BatchNormalization", *(["Add2"] if joined else []), "ReLU"]
    y.forward()
    apart.forward()
    np.testing.assert_array_equal(apart.d, y.d)
    normalised = (x.d - 0.3) / np.sqrt(2.0 + 1e-5) * 1.5 - 0.2
    np.testing.assert_allclose(apart.d, np.maximum(normalised + (z.d if z else 0), 0), atol=1e-5)


def test_a_graph_without_fused_functions_comes_back_itself():
    y = residual(numbers(2, 3, 8, 8))
    assert unfuse([y]) == [y]
