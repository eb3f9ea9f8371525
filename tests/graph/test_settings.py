"""First steps, settings of a site, and patterns for exceptions."""

from __future__ import annotations

import numpy as np
import pytest

from nnmpq.graph.network import Layer, Network, Site
from nnmpq.graph.settings import Patterns, SiteSettings, first_step, pinned, start_step
from nnmpq.quantizers import QUANTIZERS, name_of

WEIGHT = Site("conv/W", "weight", "convolution", (4, 3, 3, 3), signed=True, layer="conv", channel_axis=0)
BIAS = Site("conv/b", "bias", "convolution", (4,), signed=True, layer="conv")
RELU = Site("conv/relu", "activation", "relu", (4, 8, 8), signed=False)
SUM = Site("conv/sum", "activation", "sum", (4, 8, 8), signed=True)
WEIGHT_ONLY = ("gaussian", "dorefa", "sign_mean", "haq")
ACTIVATION_ONLY = ("half_wave_gaussian", "pact")


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("largest", [0.11, 0.5, 0.93, 1.7])
def test_the_first_step_is_the_power_of_two_below_or_above_the_exact_one(bits, largest):
    exact = largest / (2 ** (bits - 1) - 1)
    step = first_step(np.array([[largest, -0.05], [-0.02, 0.01]]), bits)
    assert np.log2(step) == round(float(np.log2(step)))
    if bits <= 4:
        assert step <= exact * (1 + 1e-5) < 2 * step
    else:
        assert exact <= step < 2 * exact


def test_a_first_step_a_channel_looks_at_each_channel_alone():
    w = np.random.RandomState(0).randn(3, 2, 3, 3) * np.array([0.1, 1, 0]).reshape(3, 1, 1, 1)
    steps = first_step(w, 4, axis=0)
    assert steps.shape == (3,)
    assert steps.tolist() == [float(first_step(w[0], 4)), float(first_step(w[1], 4)), 0.0]
    assert first_step(np.moveaxis(w, 0, 1), 4, axis=1).tolist() == steps.tolist()


def test_without_data_the_published_step_is_taken_at_four_bits_and_its_range_at_others():
    assert start_step(4) == 2**-3
    # 2 ** bits steps reach 2, whatever the bits.
    assert {start_step(bits) * 2**bits for bits in range(1, 9)} == {2.0}


def test_limits_are_the_published_ones_of_the_role():
    weight = SiteSettings("uniform_delta_xmax").build(WEIGHT)
    activation = SiteSettings("uniform_delta_xmax").build(RELU)
    assert (weight.bits_limits, weight.step_limits, weight.xmax_limits) == ((2, 8), (2**-8, 1), (2**-8, 127))
    assert (activation.bits_limits, activation.step_limits) == ((1, 8), (2**-8, 1))
    assert activation.xmax_limits == (2**-8, 255)
    assert SiteSettings("pow2_xmin_xmax").build(WEIGHT).xmin_limits == (2**-16, 127)
    assert SiteSettings("pow2_xmin_xmax").build(RELU).xmin_limits == (2**-14, 255)
    own = SiteSettings("uniform_b_xmax", options={"xmax_limits": (0.5, 3.0), "learn": False})
    assert own.build(WEIGHT).xmax_limits == (0.5, 3.0)
    assert not own.build(WEIGHT).learned("xmax")


@pytest.mark.parametrize(
    ("site", "signed", "with_zero"),
    [(WEIGHT, True, False), (BIAS, True, False), (RELU, False, True), (SUM, True, True)],
)
def test_signs_and_zeros(site, signed, with_zero):
    quantizer = SiteSettings("pow2_b_xmax").build(site)
    assert (quantizer.signed, quantizer.with_zero) == (signed, with_zero)


@pytest.mark.parametrize("name", ["uniform_b_xmax", "pow2_b_xmax"])
def test_a_signed_activation_gets_two_bits_at_least(name):
    assert pinned(1, name).build(SUM).bits_limits == (2, 2)
    assert pinned(3, name).build(SUM).bits_limits == (3, 3)
    assert SiteSettings(name).build(SUM).bits_limits == (2, 8)
    assert pinned(1, name).build(RELU).bits_limits == (1, 1)


def test_a_weight_that_cannot_have_its_bits_is_refused():
    with pytest.raises(ValueError, match="2 bits"):
        pinned(1).build(WEIGHT)


def test_channels_are_the_weights_own_matter():
    settings = SiteSettings("uniform_b_xmax", per_channel=True)
    assert settings.build(WEIGHT).channel_axis == 0
    assert settings.build(BIAS).channel_axis is None
    assert settings.build(RELU).channel_axis is None
    assert SiteSettings("uniform_b_xmax").build(WEIGHT).channel_axis is None


@pytest.mark.parametrize("name", QUANTIZERS)
def test_each_quantizer_serves_its_roles(name):
    settings = SiteSettings(name, bits=1 if name == "sign_mean" else 3)
    if name in ACTIVATION_ONLY:
        for site in (WEIGHT, BIAS):
            with pytest.raises(ValueError, match=f"{name} at {site.name}.*activations"):
                settings.for_site(site)
    else:
        assert settings.for_site(WEIGHT) == settings
        assert settings.for_site(BIAS) == (None if name in WEIGHT_ONLY else settings)
    if name in WEIGHT_ONLY:
        with pytest.raises(ValueError, match=f"{name} at {RELU.name}.*weights"):
            settings.for_site(RELU)
    else:
        assert settings.for_site(RELU) == settings
        signed = settings.for_site(SUM)
        assert signed is not None
        expected = "uniform_b_xmax" if name in ACTIVATION_ONLY else name
        assert name_of(signed.build(SUM)) == expected
        assert signed.build(SUM).signed and signed.bits == 3


def test_an_unknown_quantizer_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="uniform_b_xmax"):
        SiteSettings("uniform_b_max")


def network() -> Network:
    layer = Layer("conv", "convolution", WEIGHT, BIAS, 1, "input", (3, 8, 8), (4, 8, 8))
    return Network([layer], [RELU, SUM])


@pytest.mark.parametrize(
    ("pattern", "bits"),
    [
        ("conv", {"conv/W": 32, "conv/b": 32}),
        ("conv:8", {"conv/W": 8, "conv/b": 8}),
        ("conv/*", {"conv/W": 32, "conv/b": 32, "conv/relu": 32, "conv/sum": 32}),
        ("*/relu:6", {"conv/relu": 6}),
        ("conv/[Wb]:16", {"conv/W": 16, "conv/b": 16}),
    ],
)
def test_a_pattern_fits_names_of_sites_and_of_layers(pattern, bits):
    patterns = Patterns((pattern,))
    patterns.check(network())
    found = {site.name: patterns.bits(site) for site in network().sites()}
    assert {name: value for name, value in found.items() if value is not None} == bits


def test_the_first_pattern_that_fits_acts():
    assert Patterns(("conv/W:5", "*:8")).bits(WEIGHT) == 5
    assert Patterns(("conv/W:5", "*:8")).bits(BIAS) == 8


def test_a_pattern_that_fits_nothing_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"cnv/relu: .*'conv/relu'"):
        Patterns(("conv/*", "cnv/relu")).check(network())


@pytest.mark.parametrize("pattern", ["conv:", "conv:eight", "conv:0", "conv:17", ":8", "", "conv:-8"])
def test_a_malformed_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="keep = .*bits from 1 to 16"):
        Patterns((pattern,))


def test_a_single_text_is_not_taken_for_patterns_of_one_letter():
    with pytest.raises(ValueError, match="tuple"):
        Patterns("conv/*")
