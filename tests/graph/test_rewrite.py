from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from nnabla.function import PythonFunction

from nnmpq.graph.quantize import quantize
from nnmpq.graph.rewrite import RewriteError, rewrite
from nnmpq.graph.schemes import Fixed
from nnmpq.graph.trace import trace
from tests.networks import foreign, images, residual


@pytest.mark.parametrize("network", [residual, foreign])
def test_a_copy_computes_the_same_and_shares_parameters(network: Any) -> None:
    x = images()
    y = network(x)
    (copy,), _ = rewrite([y], lambda function, inputs: None)
    results = []
    for output in (y, copy):
        statistics = {k: v.d.copy() for k, v in nn.get_parameters(grad_only=False).items()}
        for v in nn.get_parameters().values():
            v.g = 0
        loss = F.sum(F.sigmoid(output))
        loss.forward()
        loss.backward()
        results.append((output.d.copy(), {k: v.g.copy() for k, v in nn.get_parameters().items()}))
        for k, v in nn.get_parameters(grad_only=False).items():
            v.d = statistics[k]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        np.testing.assert_array_equal(gradient, results[1][1][name], err_msg=name)


class Foreign(PythonFunction):
    """A user's function, of which nnabla keeps no recipe."""

    @property
    def name(self) -> str:
        return "Foreign"

    def min_outputs(self) -> int:
        return 1

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        outputs[0].reset_shape(inputs[0].shape, True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        outputs[0].data.copy_from(inputs[0].data)

    def backward_impl(self, *arguments: Any) -> None:
        pass

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        return False

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        return False


def test_python_functions_are_refused_by_name() -> None:
    y = F.relu(Foreign(nn.get_current_context())(images()))
    assert trace(y).layers == ()
    with pytest.raises(RewriteError, match="'Foreign'"):
        quantize(PF.affine(Foreign(nn.get_current_context())(F.relu(images())), 2, name="a"), Fixed(4, 4))
    assert y.shape == images().shape


def test_a_quantized_graph_is_not_quantized_again() -> None:
    quantized = quantize(residual(images()), Fixed(4, 4))
    with pytest.raises(RewriteError, match="QuantizerCore"):
        quantize(quantized.output, Fixed(4, 4))
