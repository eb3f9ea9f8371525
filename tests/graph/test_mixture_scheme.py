"""The scheme of a differentiable search: what it puts where, and the policy that comes of it."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.cost import bitops
from nnmpq.graph.mixture import Mixture
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import FromPolicy


def _graph() -> tuple[nn.Variable, nn.Variable]:
    nn.clear_parameters()
    np.random.seed(0)
    x = nn.Variable((2, 3, 8, 8))
    h = F.relu(PF.convolution(x, 6, (3, 3), pad=(1, 1), name="first"))
    h = F.relu(PF.convolution(h, 6, (3, 3), pad=(1, 1), name="second"))
    return x, PF.affine(h, 2, name="last")


def test_sites_get_mixtures_float_or_fixed_bits() -> None:
    _, y = _graph()
    network = quantize(y, Mixture(keep=("first/*", "last/*:8")))
    names = {name: quantized.quantizer_name for name, quantized in network.sites.items()}
    assert names["first/conv/W"] == names["first/conv/b"] == names["second/conv/b"] == "float"
    assert names["second/conv/W"] == "gaussian" and names["second/conv/relu"] == "half_wave_gaussian"
    assert names["last/affine/W"] == names["last/affine/b"] == "uniform_b_xmax"
    assert network.bit_numbers()["last/affine/W"] == 8
    alphas = [name for name in network.parameters() if name.endswith("/alpha")]
    assert {name.split("_quantizer")[0] for name in alphas} == {"second/conv/W", "second/conv/relu"}
    # "first/*" keeps the activation "first/conv/relu" float too.
    assert names["first/conv/relu"] == "float"


def test_bits_are_expected_ones_and_the_policy_takes_the_largest_share() -> None:
    _, y = _graph()
    network = quantize(y, Mixture((1, 2, 4), (2, 3), keep=("first/conv/W", "last/*")))
    parameters = network.parameters()
    parameters["second/conv/W_quantizer/alpha"].d = np.log([0.2, 0.5, 0.3])
    parameters["second/conv/relu_quantizer/alpha"].d = np.log([0.1, 0.9])
    bits = network.bits()["second/conv/W"]
    bits.forward()
    assert float(bits.d) == pytest.approx(0.2 * 1 + 0.5 * 2 + 0.3 * 4, rel=1e-5)
    policy = network.policy(name="small", method="edmips")
    assert policy.sites["second/conv/W"].bits == 2 and policy.sites["second/conv/W"].quantizer == "gaussian"
    assert policy.sites["second/conv/relu"].bits == 3
    again = quantize(y, FromPolicy(policy))
    assert again.bit_numbers() == network.bit_numbers()


def test_the_penalty_moves_shares_to_cheaper_widths() -> None:
    """Gradient descent on BitOps alone ends at the narrowest candidates."""
    _, y = _graph()
    network = quantize(y, Mixture(keep=("first/conv/W", "last/*")))
    total = bitops(network.network, network.bits())
    alphas = {name: v for name, v in nn.get_parameters().items() if name.endswith("/alpha")}
    for _ in range(60):
        total.forward()
        for v in alphas.values():
            v.g = 0
        total.backward()
        for v in alphas.values():
            v.d = v.d - 0.5 * v.g / (np.abs(v.g).max() + 1e-12)
    assert network.bit_numbers()["second/conv/W"] == 1 and network.bit_numbers()["second/conv/relu"] == 2
    assert all(float(v.d[0]) > float(v.d[1:].max()) for v in alphas.values())


def test_bad_settings_end_before_a_graph_is_built() -> None:
    with pytest.raises(ValueError, match="no mixture of 'half_wave'; the nearest is 'half_wave_gaussian'"):
        Mixture(activation="half_wave")
    with pytest.raises(ValueError, match="ascending widths"):
        Mixture(weight_bits=(4, 2))
    _, y = _graph()
    with pytest.raises(ValueError, match="fits no site"):
        quantize(y, Mixture(keep=("nowhere/*",)))
