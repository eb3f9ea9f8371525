"""The published experiments: what of each network is quantized, and how its baselines and search are set."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnmpq.config.errors import ConfigError, InvalidValue
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment
from nnmpq.config.scheme import build_scheme
from nnmpq.config.sections import read_sections
from nnmpq.graph.network import Site
from nnmpq.search.progressive_settings import Settings
from nnmpq.search.task import network_of

CFG = Path(__file__).parents[2] / "cfgs" / "search_progressive.cfg"
NAMES = read_sections(CFG).names()
CIFAR, IMAGENET = ((3, 32, 32), 10), ((3, 224, 224), 1000)


def inner(name, shape, classes):
    experiment = read_experiment(CFG, name)
    network = network_of(experiment, shape, classes)
    scheme = build_scheme(experiment)
    settings = {site.name: scheme.settings(site) for site in network.sites() if scheme.covers(site)}
    layers = [layer for layer in network.layers if settings[layer.weight.name] is not None]
    activations = [site.name for site in network.activations if settings.get(site.name) is not None]
    return layers, activations


# Of each network how many layers are quantized, their weights in millions and their MACs in millions.
@pytest.mark.parametrize(
    ("name", "data", "layers", "weights", "macs"),
    [
        ("RESNET20_QUANT", CIFAR, 18, 0.267, 40.11),
        ("RESNET56_QUANT", CIFAR, 54, None, None),
        ("RESNET110_QUANT", CIFAR, 108, None, None),
        ("RESNET18_CIFAR_QUANT", CIFAR, 16, 10.985, 136.8),
        ("VGG11_QUANT", CIFAR, 9, None, None),
        ("VGG16_QUANT", CIFAR, 14, None, None),
        ("VGG19_QUANT", CIFAR, 17, None, None),
        # Theirs begins with 24 channels, ours with the paper's 16.
        ("DENSENET40_QUANT", CIFAR, 38, None, None),
        ("MOBILENETV2_CIFAR_QUANT", CIFAR, 50, 1.779, 269.4),
        ("RESNET18_QUANT", IMAGENET, 16, 10.985, 1676),
        ("RESNET34_QUANT", IMAGENET, 32, 21.09, 3526),
        ("RESNET50_QUANT", IMAGENET, 48, 20.68, None),
        ("MOBILENETV2_QUANT", IMAGENET, 50, 1.779, 268.6),
    ],
)
def test_what_is_quantized_is_what_was_published(name, data, layers, weights, macs):
    found, activations = inner(name, *data)
    assert len(found) == layers
    if weights is not None:
        assert sum(layer.weight.elements for layer in found) / 1e6 == pytest.approx(weights, abs=0.006)
    if macs is not None:
        assert sum(layer.macs for layer in found) / 1e6 == pytest.approx(macs, rel=5e-4)
    if "MOBILENET" not in name:
        # An activation each; only MobileNet's linear bottlenecks, which the published code lost, have none.
        assert len(activations) == layers


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_SEARCH") and n != "PUBLISHED_SEARCH"])
def test_each_search_has_the_published_settings_and_the_baseline_it_starts_from(name):
    search, net = read_experiment(CFG, name), name[: -len("_SEARCH")]
    origin, quant = (read_experiment(CFG, f"{net}_{kind}") for kind in ("ORIGIN", "QUANT"))
    assert Settings.of(search) == Settings(0.5, 1, 500, 25, 30, "hession", 8, True, "dorefa", "pact")
    assert search.weightfile == f"{net}_QUANT/best.h5" and search.batch_size == 128 and search.method == "progressive"
    assert {e.arch for e in (search, origin, quant)} == {search.arch} and search.keep == quant.keep == origin.keep
    for baseline in (origin, quant):
        assert (baseline.epochs, baseline.milestones, baseline.learning_rate_decay) == (300, (150, 225), 0.1)
        assert (baseline.batch_size, baseline.initial_learning_rate, baseline.momentum) == (256, 0.001, 0.9)
        assert (baseline.weight_decay, baseline.quantizer_weight_decay) == (1e-4, 1e-4)
    assert (origin.archtype, quant.archtype) == ("origin", "quant")


def test_every_section_can_be_read_and_starts_from_one_of_the_file():
    for name in NAMES:
        file = read_experiment(CFG, name).weightfile
        assert file is None or file.partition("/")[0] in NAMES, name


def test_the_archtypes_are_float_and_dorefa_with_pact():
    weight = Site("fc/affine/W", "weight", "affine", (2, 3), True, layer="fc/affine")
    relu = Site("fc/affine/relu", "activation", "relu", (2,), False)
    origin = build_scheme(Experiment("X", archtype="origin"))
    assert origin.settings(weight) is origin.settings(relu) is None
    scheme = build_scheme(Experiment("X", archtype="quant", k_bits=6))
    dorefa, pact = (scheme.settings(site).build(site) for site in (weight, relu))
    assert (type(dorefa).__name__, dorefa.bits_limits) == ("Dorefa", (6.0, 6.0))
    assert (type(pact).__name__, pact.bits_limits, pact.residual_gradient) == ("Pact", (6.0, 6.0), True)
    # Its clip begins at 10, whatever the bits.
    start = pact.initial(6, scheme.settings(relu).step)
    assert float(start["xmax"]) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"archtype": "quants"}, "archtype = quants: must be one of origin, quant.*quant"),
        ({"archtype": "quant", "w_quantize": "fp"}, "w_quantize = fp: archtype = quant already decides this"),
        ({"archtype": "origin", "a_quantize": "pact"}, "a_quantize = pact: archtype = origin already decides"),
        ({"ratio": 0.0}, "ratio = 0.0: must be greater than 0"),
        ({"ratio": 1.5}, "ratio = 1.5: must be between 0 and 1; nearest valid: 1"),
        ({"interval": 0}, "interval = 0: .*nearest valid: 1"),
        ({"lam": 0}, "lam = 0: must be at least 1"),
        ({"step": 0}, "step = 0: must be at least 1"),
        ({"search_epochs": -1}, "search_epochs = -1: must be at least 0"),
        ({"info": "hessian"}, "info = hessian: must be one of hession, acc, loss.*hession"),
        ({"k_bits": 9}, "k_bits = 9: must be between 2 and 8; nearest valid: 8"),
    ],
)
def test_values_that_cannot_be_are_refused(keys, said):
    with pytest.raises((InvalidValue, ConfigError), match=said):
        Experiment("X", **keys)


def test_quantizers_follow_from_the_experiment():
    assert Settings.of(Experiment("X")).weight == Settings.of(Experiment("X")).activation == "uniform_b_xmax"
    chosen = Settings.of(Experiment("X", w_quantize="gaussian", a_quantize="half_wave_gaussian", w_bitwidth=4))
    assert (chosen.weight, chosen.activation) == ("gaussian", "half_wave_gaussian")
    both = Settings.of(Experiment("X", w_quantize="parametric_fp_d_xmax", faithful=True))
    assert (both.weight, both.activation) == ("uniform_b_xmax", "pact")
