"""From an experiment to quantizers and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.config.choices import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS
from nnmpq.config.errors import ConfigError
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment
from nnmpq.config.scheme import budget_of, build_scheme
from nnmpq.config.sections import read_sections
from nnmpq.graph.network import Site
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import FromPolicy
from nnmpq.policy import Policy, SitePolicy
from nnmpq.quantizers import QUANTIZERS, name_of

CFGS = Path(__file__).resolve().parents[2] / "cfgs"
WEIGHT = Site("conv/W", "weight", "convolution", (4, 3, 3, 3), signed=True, layer="conv", channel_axis=0)
RELU = Site("conv/relu", "activation", "relu", (4, 8, 8), signed=False)


def scheme_of(experiment: Experiment, **options: Any) -> Any:
    return build_scheme(experiment, **options)


def network():
    x = nn.Variable((2, 3, 8, 8))
    h = F.relu(PF.convolution(x, 4, (3, 3), pad=(1, 1), with_bias=False, name="conv"))
    return PF.affine(h, 5, name="fc")


def test_every_name_stands_for_a_registered_quantizer():
    chosen = [*WEIGHT_QUANTIZERS.values(), *ACTIVATION_QUANTIZERS.values()]
    assert {choice.quantizer for choice in chosen} == set(QUANTIZERS)
    for choice in chosen:
        chosen_class: Any = QUANTIZERS[choice.quantizer]
        family = chosen_class.family
        assert choice.learns_bits == (choice.learn and family in ("uniform", "pow2") and choice.quantizer != "pact")


def test_without_quantizers_everything_stays_float():
    quantized = quantize(network(), scheme_of(Experiment("X")))
    assert set(quantized.bit_numbers().values()) == {32}
    assert quantized.parameters() == {}


def test_the_published_limits_reach_the_quantizers():
    experiment = Experiment("X", w_quantize="parametric_fp_d_xmax", a_quantize="parametric_fp_d_xmax_relu")
    scheme = scheme_of(experiment)
    weight = scheme.weight_settings.build(WEIGHT)
    activation = scheme.activation_settings.build(RELU)
    assert (name_of(weight), weight.signed, weight.learn, weight.faithful) == (
        "uniform_delta_xmax",
        True,
        True,
        False,
    )
    assert (weight.bits_limits, weight.step_limits, weight.xmax_limits) == ((2, 8), (2**-8, 1), (2**-8, 127))
    assert (name_of(activation), activation.signed) == ("uniform_delta_xmax", False)
    assert (activation.bits_limits, activation.xmax_limits) == ((1, 8), (2**-8, 255))


def test_power_of_two_limits_and_zeros_are_the_published_ones():
    experiment = Experiment(
        "X",
        w_quantize="parametric_pow2_xmin_xmax",
        a_quantize="parametric_pow2_xmin_xmax_relu",
        w_bitwidth_min=1,
    )
    scheme = scheme_of(experiment)
    weight, activation = scheme.weight_settings.build(WEIGHT), scheme.activation_settings.build(RELU)
    assert (weight.with_zero, activation.with_zero) == (False, True)
    assert (weight.xmin_limits, activation.xmin_limits) == ((2**-16, 127), (2**-14, 255))
    assert weight.bits_limits == (1, 8)


@pytest.mark.parametrize(("bits", "levels"), [(2, 3), (3, 7), (4, 15)])
def test_static_weights_have_the_published_range_and_learn_nothing(bits, levels):
    experiment = Experiment("X", w_quantize="fp", w_bitwidth=bits, w_stepsize=2**-4)
    quantized = quantize(network(), scheme_of(experiment))
    assert quantized.bit_numbers()["conv/conv/W"] == bits
    parameters = quantized.parameters()
    assert not any(parameter.need_grad for parameter in parameters.values())
    # xmax = step * (2^(bits - 1) - 1), the number of levels above zero.
    assert float(parameters["conv/conv/W_quantizer/xmax"].d) == pytest.approx(2**-4 * (levels // 2), rel=1e-3)


@pytest.mark.parametrize("bits", [2, 4])
def test_pinned_bits_are_not_learned_but_the_range_is(bits):
    experiment = Experiment(
        "X", w_quantize="parametric_fp_b_xmax", w_bitwidth=bits, w_bitwidth_min=bits, w_bitwidth_max=bits
    )
    quantized = quantize(network(), scheme_of(experiment))
    assert quantized.bit_numbers()["fc/affine/W"] == bits
    assert not quantized.parameters()["fc/affine/W_quantizer/bits"].need_grad
    assert quantized.parameters()["fc/affine/W_quantizer/xmax"].need_grad


@pytest.mark.parametrize("name", sorted(set(WEIGHT_QUANTIZERS) - {"sign_mean"}))
def test_every_weight_quantizer_starts_at_its_bits(name):
    quantized = quantize(network(), scheme_of(Experiment("X", w_quantize=name, w_bitwidth=3)))
    bits = quantized.bit_numbers()
    assert (bits["conv/conv/W"], bits["fc/affine/W"], bits["conv/conv/relu"]) == (3, 3, 32)


@pytest.mark.parametrize("name", sorted(ACTIVATION_QUANTIZERS))
def test_every_activation_quantizer_starts_at_its_bits_and_is_never_negative(name):
    y = network()
    quantized = quantize(y, scheme_of(Experiment("X", a_quantize=name, a_bitwidth=3)))
    assert (quantized.bit_numbers()["conv/conv/relu"], quantized.bit_numbers()["conv/conv/W"]) == (3, 32)
    output = quantized.sites["conv/conv/relu"].output
    output.forward()
    assert float(np.min(output.d)) >= 0
    assert len(np.unique(output.d)) <= 2**3


@pytest.mark.parametrize("file", ["train_resnet_quant_fp.cfg", "train_resnet_quant_pow2.cfg"])
def test_every_published_experiment_starts_at_its_bits(file):
    seen = set()
    for name in read_sections(CFGS / file).names():
        experiment = read_experiment(CFGS / file, name)
        scheme = scheme_of(experiment)
        if repr(scheme) in seen:
            continue
        seen.add(repr(scheme))
        nn.clear_parameters()
        bits = quantize(network(), scheme).bit_numbers()
        assert bits["conv/conv/W"] == (experiment.w_bitwidth if experiment.w_quantize else 32), name
        assert bits["conv/conv/relu"] == (experiment.a_bitwidth if experiment.a_quantize else 32), name
    assert len(seen) > 15


def test_one_bit_weights():
    quantized = quantize(network(), scheme_of(Experiment("X", w_quantize="sign_mean", w_bitwidth=1)))
    assert quantized.bit_numbers()["conv/conv/W"] == 1


def test_only_trained_weights_say_their_first_step():
    scratch = Experiment("X", w_quantize="parametric_fp_d_xmax")
    trained = Experiment("X", w_quantize="parametric_fp_d_xmax", weightfile="a.h5")
    assert not scheme_of(scratch).weight_settings.step_from_data
    assert scheme_of(trained).weight_settings.step_from_data


def test_switches_are_passed_on():
    experiment = Experiment(
        "X",
        w_quantize="parametric_fp_d_xmax",
        a_quantize="parametric_fp_d_xmax_relu",
        faithful=True,
        per_channel=True,
        activation_sites=("relu", "sum"),
        keep=("fc/*:8",),
    )
    scheme = scheme_of(experiment, fused=False)
    assert scheme.kinds == ("relu", "sum") and scheme.fused is False
    assert scheme.weight_settings.build(WEIGHT).faithful
    quantized = quantize(network(), scheme)
    assert quantized.parameters()["conv/conv/W_quantizer/step"].shape == (4,)
    assert quantized.bit_numbers()["fc/affine/W"] == 8


def test_a_pattern_that_matches_nothing_is_refused():
    scheme = scheme_of(Experiment("X", w_quantize="fp", keep=("cnv/*",)))
    with pytest.raises(ValueError, match="conv"):
        quantize(network(), scheme)


def test_a_policy_decides_the_bits(tmp_path):
    sites = {
        "conv/conv/W": SitePolicy("weight", 5, "uniform_delta_xmax", True),
        "fc/affine/W": SitePolicy("weight", 3, "uniform_b_xmax", True),
        "fc/affine/b": SitePolicy("bias", 32, "float", True),
        "conv/conv/relu": SitePolicy("activation", 4, "uniform_b_xmax", False),
    }
    Policy("tiny", "by hand", sites=sites).save(tmp_path / "policy.yaml")
    scheme = scheme_of(Experiment("X", policy=str(tmp_path / "policy.yaml")))
    assert isinstance(scheme, FromPolicy)
    bits = quantize(network(), scheme).bit_numbers()
    assert {name: bits[name] for name in sites} == {name: site.bits for name, site in sites.items()}


def test_a_broken_policy_is_a_configuration_error(tmp_path):
    (tmp_path / "policy.yaml").write_text("format: 1\nsights: {}\n")
    with pytest.raises(ConfigError, match="policy = .*policy.yaml.*'sites'"):
        scheme_of(Experiment("X", policy=str(tmp_path / "policy.yaml")))


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ({}, {}),
        ({"target_weight_kbytes": 70.1}, {"weights_kib": 70.1}),
        ({"target_activation_kbytes": 8.1}, {"activations_max_kib": 8.1}),
        (
            {"target_activation_kbytes": 92.1, "target_activation_type": "sum"},
            {"activations_sum_kib": 92.1},
        ),
        ({"target_activation_type": "sum"}, {}),
        (
            {"target_weight_kbytes": 4.0, "target_activation_kbytes": 0.5},
            {"weights_kib": 4.0, "activations_max_kib": 0.5},
        ),
    ],
)
def test_limits(values, limits):
    experiment = Experiment("X", w_quantize="fp", a_quantize="fp_relu", **values)
    assert budget_of(experiment).limits() == limits
