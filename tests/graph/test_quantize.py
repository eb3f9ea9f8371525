from __future__ import annotations

from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np
import pytest

from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed, Float, FromPolicy, Parametric, SiteSettings, first_step
from nnmpq.policy import PolicyError
from nnmpq.quantizers import QUANTIZERS
from tests.networks import foreign, images, residual

ALL_KINDS = ("input", "relu", "sum", "branch", "pool", "linear", "nonlinearity")
PARAMETRIZATIONS = [name for name in QUANTIZERS if name.startswith(("uniform", "pow2"))]


def scheme(name: str, **options: Any) -> Parametric:
    return Parametric(weight=SiteSettings(name), activation=SiteSettings(name), **options)


@pytest.mark.parametrize("network", [residual, foreign])
def test_float_changes_nothing(network: Any) -> None:
    x = images()
    y = network(x, test=True)
    quantized = quantize(y, Float())
    F.sink(y, quantized.output).forward()
    np.testing.assert_array_equal(y.d, quantized.output.d)
    assert set(quantized.bit_numbers().values()) == {32}
    assert not quantized.parameters()


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
@pytest.mark.parametrize("network", [residual, foreign])
def test_training_moves_weights_and_quantizers(name: str, network: Any) -> None:
    x, t = images(8), nn.Variable((8, 1))
    t.d = np.arange(8).reshape(8, 1) % 4
    chosen = scheme(name, kinds=ALL_KINDS)
    training = quantize(network(x), chosen)
    evaluation = quantize(network(x, test=True), chosen)
    names = set(nn.get_parameters(grad_only=False))
    assert set(training.parameters()) <= names
    assert list(training.sites) == list(evaluation.sites)
    loss = F.mean(F.softmax_cross_entropy(training.output, t))
    solver = S.Momentum(0.05)
    solver.set_parameters(nn.get_parameters())
    before = {k: v.d.copy() for k, v in nn.get_parameters().items()}
    losses = []
    for _ in range(8):
        solver.zero_grad()
        loss.forward(clear_no_need_grad=True)
        loss.backward(clear_buffer=True)
        losses.append(float(loss.d))
        solver.update()
    assert losses[-1] < losses[0]
    moved = [k for k, v in nn.get_parameters().items() if not np.array_equal(before[k], v.d)]
    assert any("_quantizer/" in k for k in moved) and any(k.endswith("/W") for k in moved)
    for key, v in evaluation.parameters().items():
        np.testing.assert_array_equal(v.d, training.parameters()[key].d)
    evaluation.output.forward()
    assert np.isfinite(evaluation.output.d).all()


def test_what_flows_on_is_on_the_grid() -> None:
    quantized = quantize(foreign(images(), test=True), scheme("uniform_delta_xmax", kinds=ALL_KINDS))
    quantized.output.forward(clear_buffer=False)
    for name, site in quantized.sites.items():
        values = site.output.d
        np.testing.assert_array_equal(site.grid().quantize(values), values, err_msg=name)
        if not quantized.network.site(name).signed:
            assert values.min() >= 0, name


def test_the_first_step_spans_the_weights() -> None:
    rng = np.random.RandomState(0)
    for bits in (2, 4, 5, 8):
        w = rng.randn(1000) * 0.3
        step = first_step(w, bits)
        ratio = np.abs(w).max() / (2 ** (bits - 1) - 1) / step
        assert (1 <= ratio < 2) if bits <= 4 else (0.5 < ratio <= 1)
        assert np.log2(step) == round(np.log2(step))


def test_parameters_that_exist_are_kept() -> None:
    y = residual(images())
    quantize(y, scheme("uniform_delta_xmax"))
    nn.get_parameters()["first/conv/W_quantizer/step"].d = 0.0625
    again = quantize(y, scheme("uniform_delta_xmax"))
    assert float(again.sites["first/conv/W"].values()["step"]) == 0.0625


def test_a_bias_starts_from_its_weight() -> None:
    y = residual(images())
    nn.get_parameters()["last/affine/b"].d = 100.0
    sites = quantize(y, scheme("uniform_delta_xmax")).sites
    np.testing.assert_array_equal(sites["last/affine/b"].values()["step"], sites["last/affine/W"].values()["step"])


def test_per_channel_weights() -> None:
    settings = SiteSettings("uniform_delta_xmax", per_channel=True)
    quantized = quantize(foreign(images()), Parametric(weight=settings))
    for layer in quantized.network.layers:
        step = quantized.sites[layer.weight.name].values()["step"]
        axis = layer.weight.channel_axis
        assert axis is not None and step.shape == (layer.weight.shape[axis],)
    quantized.output.forward()
    assert np.isfinite(quantized.output.d).all()


def test_kept_sites() -> None:
    y = residual(images())
    bits = quantize(y, scheme("uniform_delta_xmax", keep=("first/*:8", "last/affine"))).bit_numbers()
    assert bits["first/conv/W"] == bits["first/conv/relu"] == 8
    assert bits["last/affine/W"] == bits["last/affine/b"] == 32
    assert bits["second/conv/W"] == 4
    with pytest.raises(ValueError, match="first/conv"):
        quantize(y, scheme("uniform_delta_xmax", keep=("frist/*",)))
    with pytest.raises(ValueError, match="bits from 1 to 16"):
        quantize(y, scheme("uniform_delta_xmax", keep=("first/*:many",)))


@pytest.mark.parametrize("weight_bits,activation_bits", [(2, 3), (8, 1), (3, None)])
def test_fixed_bits_stay(weight_bits: int, activation_bits: int | None) -> None:
    quantized = quantize(residual(images()), Fixed(weight_bits, activation_bits))
    bits = quantized.bit_numbers()
    assert bits["first/conv/W"] == weight_bits
    assert bits["first/conv/relu"] == (activation_bits or 32)
    assert not any(name.endswith("/bits") for name in nn.get_parameters())


def test_a_policy_comes_back_with_its_bits() -> None:
    y = residual(images())
    first = quantize(y, scheme("uniform_delta_xmax"))
    nn.get_parameters()["first/conv/W_quantizer/step"].d = 2.0**-6
    policy = first.policy(name="residual")
    nn.clear_parameters()
    y = residual(images())
    again = quantize(y, FromPolicy(policy))
    assert again.bit_numbers() == first.bit_numbers()
    with pytest.raises(PolicyError, match="has no bits for stem/conv/W"):
        quantize(foreign(images()), FromPolicy(policy))
