"""Mixtures go through the pass: the fused core in either layout, and the ones written by hand from F.affine."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.cost import bitops
from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.functions import functions_of
from nnmpq.graph.mixture import Mixture
from nnmpq.graph.quantize import quantize
from tests.graph.accelerate.comparing import compare, leaf


@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 7, 2)])
@pytest.mark.parametrize("sign", [True, False])
@pytest.mark.parametrize("fine", [True, False])
def test_fixed_point_is_nnablas(shape: tuple[int, ...], sign: bool, fine: bool) -> None:
    def build() -> tuple[nn.Variable, dict[str, nn.Variable]]:
        x = leaf(shape, scale=0.9)
        return F.fixed_point_quantize(x, sign=sign, n=3, delta=0.21, ste_fine_grained=fine), {"x": x}

    fast = compare(build)
    assert "FixedPoint" in {f.info.type_name for f in functions_of(fast.outputs)}


def test_fixed_point_at_the_ends_of_its_range() -> None:
    """Exactly at an end, at half a step and far outside: what nnabla does there."""

    def build() -> tuple[nn.Variable, dict[str, nn.Variable]]:
        x = leaf((9,))
        x.d = np.array([0.0, -0.25, 0.25, 0.75, 1.5, 1.75, 2.0, 50.0, -50.0])
        return F.fixed_point_quantize(x, sign=False, n=2, delta=0.5, ste_fine_grained=True), {"x": x}

    compare(build)


def test_rows_are_joined_and_mixed() -> None:
    def build() -> tuple[nn.Variable, dict[str, nn.Variable]]:
        a, b, p = leaf((1, 60), 1), leaf((2, 60), 2), leaf((1, 3), 3)
        mixed = F.affine(F.softmax(p, axis=1), F.concatenate(a, b, F.relu(a), axis=0)[:3])
        return mixed, {"a": a, "b": b, "p": p}

    fast = compare(build)
    assert "ConcatenateRows" in {f.info.type_name for f in functions_of(fast.outputs)}


def _network(batch: int) -> tuple[nn.Variable, nn.Variable]:
    x = nn.Variable((batch, 3, 9, 9))
    h = PF.convolution(x, 8, (3, 3), pad=(1, 1), with_bias=False, name="first")
    h = F.relu(PF.batch_normalization(h, name="first/bn"))
    h = PF.convolution(h, 8, (3, 3), pad=(1, 1), stride=(2, 2), with_bias=False, name="second")
    h = F.relu(PF.batch_normalization(h, name="second/bn"))
    return x, PF.affine(F.average_pooling(h, (5, 5)), 4, name="last")


@pytest.mark.parametrize("weight", ["gaussian", "uniform_b_xmax"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_network_of_mixtures_trains_alike(weight: str, fused: bool) -> None:
    """Outputs, gradients of weights, shares and ranges, and the expected BitOps, plain and accelerated."""
    nn.clear_parameters()
    np.random.seed(5)
    bits = (1, 2, 4) if weight == "gaussian" else (2, 4)
    activation = "half_wave_gaussian" if weight == "gaussian" else "uniform_b_xmax"
    x, y = _network(5)
    # Candidates far apart: a share's gradient is the difference of theirs, and must keep its digits.
    network = quantize(y, Mixture(bits, (1, 4), weight, activation, keep=("last/*",), fused=fused))
    loss = F.add2(
        F.mean(F.softmax_cross_entropy(network.output, nn.Variable.from_numpy_array(np.arange(5)[:, None] % 4))),
        F.mul_scalar(bitops(network.network, network.bits()), 1e-5),
    )
    loss.persistent = True
    x.d = np.random.randn(*x.shape)
    fast = accelerate([loss]).outputs[0]
    found = []
    start = {name: v.d.copy() for name, v in nn.get_parameters(grad_only=False).items()}
    for candidate in (loss, fast):
        for name, v in nn.get_parameters(grad_only=False).items():
            v.d, v.g = start[name], 0
        candidate.forward(clear_no_need_grad=True)
        candidate.backward(clear_buffer=True)
        found.append({name: v.g.copy() for name, v in nn.get_parameters().items()} | {"loss": np.array(candidate.d)})
    assert any(name.endswith("_quantizer/alpha") for name in found[0])
    for name, expected in found[0].items():
        scale = np.abs(expected).max() + 1e-12
        np.testing.assert_allclose(found[1][name] / scale, expected / scale, atol=1e-5, err_msg=name)


def test_the_core_keeps_to_channel_last() -> None:
    nn.clear_parameters()
    _, y = _network(2)
    fast = accelerate([quantize(y, Mixture(keep=("last/*",))).output])
    names = [f.info.type_name for f in functions_of(fast.outputs)]
    # One way in and one way out: the mixtures in between take the layout that they find.
    assert names.count("ChannelsLast") == 1 and names.count("ChannelsFirst") <= 1
    assert names.count("MixtureCore") == 4


def test_a_product_of_two_maps_stays_channel_last() -> None:
    def build() -> tuple[nn.Variable, dict[str, nn.Variable]]:
        x, w = leaf((2, 4, 5, 5), 1), leaf((4, 4, 1, 1), 2)
        a = F.convolution(x, w)
        return F.convolution(F.mul2(a, F.sub2(x, a)), w), {"x": x, "w": w}

    fast = compare(build)
    names = [f.info.type_name for f in functions_of(fast.outputs)]
    assert names[:5] == ["ChannelsLast", "Convolution", "Sub2", "Mul2", "Convolution"]
