"""Which quantizer each site gets."""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.graph.network import Layer, Network, Site
from nnmpq.graph.schemes import Fixed, Float, FromPolicy, Parametric, SiteSettings
from nnmpq.policy import Policy, PolicyError, SitePolicy
from nnmpq.quantizers import QUANTIZERS

WEIGHT = Site("fc/W", "weight", "affine", (3, 4), signed=True, layer="fc", channel_axis=1)
BIAS = Site("fc/b", "bias", "affine", (4,), signed=True, layer="fc")
INPUT = Site("input", "activation", "input", (3,), signed=True)
RELU = Site("fc/relu", "activation", "relu", (4,), signed=False)
SUM = Site("fc/sum", "activation", "sum", (4,), signed=True)
NETWORK = Network([Layer("fc", "affine", WEIGHT, BIAS, 12, "input", (3,), (4,))], [INPUT, RELU, SUM])
UNIFORM = SiteSettings("uniform_delta_xmax")


def parameter(site: Site, scale: float = 1.0) -> nn.Variable:
    values = np.random.RandomState(0).uniform(-1, 1, site.shape) * scale
    return nn.parameter.get_parameter_or_create(site.name, site.shape, values.astype(np.float32))


def activation(site: Site) -> nn.Variable:
    x = nn.Variable((5, *site.shape), need_grad=True)
    x.d = np.random.RandomState(1).randn(*x.shape).astype(np.float32)
    return x


def value(quantized, name: str) -> float:
    return float(quantized.parameters[name].d)


def test_the_first_step_of_a_weight_and_its_bias_come_from_the_weight():
    w, b = parameter(WEIGHT), parameter(BIAS, 100.0)
    largest = float(np.abs(w.d).max())
    exact = largest / 7
    scheme = Parametric(weight=UNIFORM)
    first, bias = scheme.weight(WEIGHT, w), scheme.weight(BIAS, b)
    expected = 2.0 ** np.floor(np.log2(exact))
    for quantized in (first, bias):
        assert value(quantized, "step") == pytest.approx(expected, rel=1e-3)
        assert value(quantized, "xmax") == pytest.approx(7 * expected, rel=1e-3)


def test_without_numbers_to_go_by_the_setting_is_the_first_step():
    zero = nn.parameter.get_parameter_or_create("fc/W", (3, 4), np.zeros((3, 4), np.float32))
    settings = SiteSettings("uniform_delta_xmax", step=2.0**-5)
    assert value(Parametric(weight=settings).weight(WEIGHT, zero), "step") == pytest.approx(2**-5, rel=1e-3)
    nn.clear_parameters()
    settings = SiteSettings("uniform_delta_xmax", step=2.0**-5, step_from_data=False)
    assert value(Parametric(weight=settings).weight(WEIGHT, parameter(WEIGHT)), "step") == pytest.approx(
        2**-5, rel=1e-3
    )
    nn.clear_parameters()
    # The layer's weight is not in the scope, so it cannot say its bias' first step.
    bias = nn.Variable.from_numpy_array(np.ones(4, np.float32))
    settings = SiteSettings("uniform_delta_xmax", step=2.0**-5)
    assert value(Parametric(weight=settings).weight(BIAS, bias), "step") == pytest.approx(2**-5, rel=1e-3)


def test_a_learned_step_is_not_started_again():
    w = parameter(WEIGHT)
    scheme = Parametric(weight=UNIFORM)
    scheme.weight(WEIGHT, w)
    nn.get_parameters(grad_only=False)["fc/W_quantizer/step"].d = 0.375
    w.d = 1000
    assert value(scheme.weight(WEIGHT, w), "step") == 0.375


def test_a_channel_has_a_step_of_its_own():
    w = parameter(WEIGHT)
    w.d = np.array([[1, 0.1, 0, 4], [0.5, -0.2, 0, 0], [0, 0, 0, 0]], np.float32)
    settings = SiteSettings("uniform_delta_xmax", per_channel=True)
    step = Parametric(weight=settings).weight(WEIGHT, w).parameters["step"]
    # 2^floor(log2(m / 7)); the channel of zeros starts at the setting's step.
    np.testing.assert_allclose(step.d, [2**-3, 2**-6, 2**-3, 2**-1], rtol=2e-3)


@pytest.mark.parametrize(("bits", "top"), [(4, 1.875), (6, 7.875)])
def test_activations_start_at_the_published_range(bits, top):
    scheme = Parametric(activation=SiteSettings("uniform_delta_xmax", bits=bits))
    quantized = scheme.activation(RELU, activation(RELU))
    assert value(quantized, "step") == pytest.approx(2**-3, rel=1e-3)
    assert value(quantized, "xmax") == pytest.approx(top, rel=1e-3)
    assert quantized.bit_number() == bits


def test_an_unsigned_quantizer_stands_for_the_relu_and_a_signed_one_does_not():
    scheme = Parametric(activation=SiteSettings("uniform_b_xmax"), kinds=("relu", "sum"))
    relu, total = scheme.activation(RELU, activation(RELU)), scheme.activation(SUM, activation(SUM))
    relu.output.forward()
    total.output.forward()
    assert relu.output.d.min() == 0 and total.output.d.min() < 0
    assert relu.grid().levels() == 16 and total.grid().levels() == 15


def test_what_a_scheme_covers():
    default, wide = Parametric(weight=UNIFORM), Parametric(kinds=("input", "sum"))
    assert [site.name for site in NETWORK.sites() if default.covers(site)] == ["fc/W", "fc/b", "fc/relu"]
    assert [site.name for site in NETWORK.sites() if wide.covers(site)] == ["fc/W", "fc/b", "input", "fc/sum"]
    kept = Parametric(keep=("input:8", "fc/sum"))
    assert kept.covers(INPUT) and not kept.covers(SUM)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kinds"):
        Parametric(kinds=("rleu",))


def test_kept_sites_stay_float_or_get_their_bits_for_good():
    settings = SiteSettings("pow2_xmin_xmax")
    scheme = Parametric(weight=settings, activation=settings, keep=("fc/W", "fc/b:8", "fc/relu:8"))
    w = parameter(WEIGHT)
    assert scheme.weight(WEIGHT, w).output is w
    bias = scheme.weight(BIAS, parameter(BIAS))
    assert (bias.bit_number(), bias.quantizer.learned("bits"), bias.quantizer.learned("xmax")) == (8, False, True)
    relu = scheme.activation(RELU, activation(RELU))
    assert relu.bit_number() == 8
    # 8 bits are spent on resolution, not on a range of 32.
    assert value(relu, "xmax") == pytest.approx(2.0, rel=0.01)


def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="fx/W.*'fc/W'"):
        Parametric(keep=("fx/W",)).check(NETWORK)
    Parametric(keep=("fc/*:8",)).check(NETWORK)


def test_float_changes_nothing_and_counts_32_bits():
    scheme = Float(kinds=("relu", "sum"))
    w, x = parameter(WEIGHT), activation(SUM)
    assert scheme.weight(WEIGHT, w).output is w
    assert scheme.activation(SUM, x).output is x
    relu = scheme.activation(RELU, activation(RELU))
    relu.output.forward()
    np.testing.assert_array_equal(relu.output.d, np.maximum(activation(RELU).d, 0))
    assert relu.bits == 32


@pytest.mark.parametrize("name", ["uniform_b_xmax", "uniform_delta_b", "pow2_b_xmax", "pow2_b_xmin"])
@pytest.mark.parametrize("bits", [2, 5])
def test_fixed_bits_are_not_learned(name, bits):
    scheme = Fixed(bits, bits, quantizer=name)
    for quantized in (
        scheme.weight(WEIGHT, parameter(WEIGHT)),
        scheme.activation(RELU, activation(RELU)),
    ):
        assert quantized.bit_number() == bits
        assert {key for key, v in quantized.parameters.items() if not v.need_grad} == {"bits"}


def test_fixed_leaves_float_what_gets_no_bits():
    scheme = Fixed(None, 3)
    assert scheme.weight(WEIGHT, parameter(WEIGHT)).bits == 32
    assert scheme.activation(RELU, activation(RELU)).bit_number() == 3


def policy(**changes: SitePolicy) -> Policy:
    sites = {
        "fc/W": SitePolicy("weight", 3, "uniform_delta_xmax", True),
        "fc/b": SitePolicy("bias", 32, "float", True),
        "fc/relu": SitePolicy("activation", 2, "pow2_xmin_xmax", False),
    }
    return Policy("tiny", "by hand", sites={**sites, **{k.replace("_", "/"): v for k, v in changes.items()}})


def test_a_policy_pins_bits_and_leaves_the_range_to_learn():
    scheme = FromPolicy(policy())
    scheme.check(NETWORK)
    w, b, x = parameter(WEIGHT), parameter(BIAS), activation(RELU)
    weight, bias, relu = scheme.weight(WEIGHT, w), scheme.weight(BIAS, b), scheme.activation(RELU, x)
    assert [q.bit_number() for q in (weight, bias, relu)] == [3, 32, 2]
    assert [q.quantizer_name for q in (weight, bias, relu)] == ["uniform_b_xmax", "float", "pow2_b_xmax"]
    assert bias.output is b
    for quantized in (weight, relu):
        assert {k for k, v in quantized.parameters.items() if v.need_grad} == {"xmax"}
    assert [site.name for site in NETWORK.sites() if scheme.covers(site)] == ["fc/W", "fc/b", "fc/relu"]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_policy_takes_every_quantizer(name):
    role, site = ("activation", RELU) if name in ("half_wave_gaussian", "pact") else ("weight", WEIGHT)
    bits = 1 if name == "sign_mean" else 3
    entry = SitePolicy(role, bits, name, site.signed)
    scheme = FromPolicy(Policy("tiny", sites={site.name: entry}))
    place = scheme.activation if role == "activation" else scheme.weight
    quantized = place(site, activation(site) if role == "activation" else parameter(site))
    assert quantized.bit_number() == bits
    assert "bits" not in {k for k, v in quantized.parameters.items() if v.need_grad}


def test_a_policy_starts_all_widths_from_about_one_range():
    tops = []
    for bits in (2, 4, 8):
        nn.clear_parameters()
        entry = SitePolicy("activation", bits, "uniform_b_xmax", False)
        scheme = FromPolicy(policy(fc_relu=entry), step=2.0**-3)
        tops.append(value(scheme.activation(RELU, activation(RELU)), "xmax"))
    # (2^b - 1) * 2^(1 - b).
    np.testing.assert_allclose(tops, [1.5, 1.875, 1.9921875], rtol=1e-3)


def test_a_float_relu_of_a_policy_is_a_relu():
    scheme = FromPolicy(policy(fc_relu=SitePolicy("activation", 32, "float", False)))
    relu = scheme.activation(RELU, activation(RELU))
    assert relu.output.parent.info.type_name == "ReLU"


def test_another_networks_policy_is_refused_with_its_sites():
    with pytest.raises(PolicyError, match="conv/W"):
        FromPolicy(policy(conv_W=SitePolicy("weight", 3, "uniform_b_xmax", True))).check(NETWORK)
    with pytest.raises(PolicyError, match="fc/b"):
        FromPolicy(Policy("tiny", sites={"fc/W": SitePolicy("weight", 3, "uniform_b_xmax", True)})).check(NETWORK)


@pytest.mark.parametrize("scheme", [Parametric(weight=UNIFORM, activation=UNIFORM), FromPolicy(policy())])
def test_switches_reach_the_quantizers(scheme):
    plain = attrs.evolve(scheme, fused=False)
    types: list[str] = []
    plain.weight(WEIGHT, parameter(WEIGHT)).output.visit(lambda f: types.append(f.info.type_name))
    assert all(hasattr(nn.function_bases.F, name) for name in types)
    faithful = FromPolicy(policy(), faithful=True, per_channel=True)
    nn.clear_parameters()
    quantized = faithful.weight(WEIGHT, parameter(WEIGHT))
    assert quantized.quantizer.faithful and quantized.parameters["xmax"].shape == (4,)


def test_a_derived_weight_says_its_first_step_too():
    w = parameter(WEIGHT)
    tenfold = F.mul_scalar(w, 10.0)
    quantized = Parametric(weight=UNIFORM).weight(WEIGHT, tenfold)
    expected = 2.0 ** np.floor(np.log2(10 * float(np.abs(w.d).max()) / 7))
    assert value(quantized, "step") == pytest.approx(min(expected, 1.0), rel=1e-3)
