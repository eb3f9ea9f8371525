"""Defaults and rules of an experiment."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq import data
from nnmpq.config import choices
from nnmpq.config.choices import (
    ACTIVATION_QUANTIZERS,
    ACTIVATION_SITES,
    ARCHITECTURES,
    AUGMENTATIONS,
    BOX_DATASETS,
    DATASETS,
    FILE_DATASETS,
    WEIGHT_QUANTIZERS,
)
from nnmpq.config.errors import ConfigError, InvalidValue
from nnmpq.config.experiment import Experiment
from nnmpq.config.keys import scale_milestones
from nnmpq.data.colour import COLOURS
from nnmpq.data.usual import USUAL
from nnmpq.graph.network import ACTIVATION_KINDS
from nnmpq.models import BLOCKS, MODELS, SHORTCUTS
from nnmpq.models.layers import STEMS
from nnmpq.models.mobilenet_v1 import STRIDES
from nnmpq.models.preact_resnet import DEPTHS
from nnmpq.models.preact_resnet import SHORTCUTS as PREACTIVATION_SHORTCUTS

# The defaults of the published tool, key by key; its three compulsory keys as in the [DEFAULT] of its files.
PUBLISHED_DEFAULTS = {
    "num_layers": 20,
    "shortcut_type": "",
    "initial_learning_rate": 0.1,
    "optimizer": None,
    "weightfile": None,
    "w_quantize": None,
    "a_quantize": None,
    "w_stepsize": 0.125,
    "a_stepsize": 0.125,
    "w_stepsize_min": 0.00390625,
    "w_stepsize_max": 1.0,
    "a_stepsize_min": 0.00390625,
    "a_stepsize_max": 1.0,
    "w_xmin_min": 1 / 65536,
    "w_xmin_max": 127.0,
    "a_xmin_min": 1 / 16384,
    "a_xmin_max": 255.0,
    "w_xmax_min": 0.00390625,
    "w_xmax_max": 127.0,
    "a_xmax_min": 0.00390625,
    "a_xmax_max": 255.0,
    "w_bitwidth": 4,
    "w_bitwidth_min": 2,
    "w_bitwidth_max": 8,
    "a_bitwidth": 4,
    "a_bitwidth_min": 1,
    "a_bitwidth_max": 8,
    "target_weight_kbytes": -1.0,
    "target_activation_kbytes": -1.0,
    "target_activation_type": "max",
    "initial_cost_lambda2": 0.1,
    "initial_cost_lambda3": 0.1,
    "scale_layer": False,
}


@pytest.mark.parametrize("key", sorted(PUBLISHED_DEFAULTS))
def test_defaults_are_the_published_ones(key):
    assert getattr(Experiment("X"), key) == PUBLISHED_DEFAULTS[key]


def test_what_was_fixed_in_the_published_code_is_the_default():
    experiment = Experiment("X")
    assert (experiment.epochs, experiment.milestones, experiment.learning_rate_decay) == (160, (80, 120), 0.1)
    assert (experiment.batch_size, experiment.weight_decay, experiment.momentum) == (128, 2e-4, 0.9)
    assert (experiment.seed, experiment.dataset, experiment.augmentation) == (313, "cifar10", "crop_flip")


def test_an_experiment_does_not_change():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Experiment("X").epochs = 3


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("epochs", 0, "at least 1; nearest valid: 1"),
        ("epochs", "6", "not a whole number"),
        ("epochs", True, "not a whole number"),
        ("batch_size", 0, "at least 1"),
        ("initial_learning_rate", 0.0, "greater than 0"),
        ("initial_learning_rate", float("nan"), "not a number"),
        ("learning_rate_decay", 1.5, "between 0 and 1; nearest valid: 1"),
        ("momentum", 1.0, "less than 1"),
        ("weight_decay", -1e-4, "at least 0"),
        ("seed", -1, "between 0 and"),
        ("optimizer", "adm", "momentum, adam; nearest valid: adam"),
        ("arch", "resnet20", "nearest valid: resnet50"),
        ("dataset", "cifar", "nearest valid: cifar10"),
        ("augmentation", "crop-flip", "nearest valid: crop_flip"),
        ("shortcut_type", "d", r"one of \(empty\), b, c"),
        ("num_layers", 21, "20, 32, 44, 56, 110; nearest valid: 20"),
        ("num_layers", 100, "nearest valid: 110"),
        ("target_activation_type", "total", "max, sum; nearest valid: "),
        ("target_weight_kbytes", 0.0, "-1 for no limit; nearest valid: -1"),
        ("target_activation_kbytes", -8.0, "-1 for no limit; nearest valid: -1"),
        ("w_bitwidth", 17, "between 1 and 16; nearest valid: 16"),
        ("w_stepsize_min", 0.0, "greater than 0"),
        ("faithful", 1, "not a boolean"),
        ("activation_sites", ("relu", "sums"), "nearest valid: sum"),
        ("keep", ("fc:99",), "nearest valid: fc:8"),
        ("keep", (":8",), r"nearest valid: \*:8"),
        ("data_dir", "two\nlines", "not a text"),
        ("w_quantize", "parametric_fp_dxmax", "nearest valid: parametric_fp_d_xmax"),
        (
            "w_quantize",
            "parametric_fp_d_xmax_relu",
            "quantizes activations.*nearest valid: parametric_fp_d_xmax$",
        ),
        ("w_quantize", "pact", "quantizes activations"),
        ("a_quantize", "pow2", "quantizes weights.*nearest valid: pow2_relu"),
        ("a_quantize", "dorefa", "quantizes weights"),
        ("a_quantize", "fp_rel", "nearest valid: fp_relu"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_would_be_right(key, value, reason):
    with pytest.raises(InvalidValue, match=reason) as caught:
        Experiment("X", **{key: value})
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key} = ")


@pytest.mark.parametrize(
    ("values", "key", "reason"),
    [
        (
            {"w_xmax_min": 2.0, "w_xmax_max": 1.0},
            "w_xmax_min",
            "greater than w_xmax_max = 1; nearest valid: 1",
        ),
        ({"a_bitwidth_min": 5, "a_bitwidth_max": 4}, "a_bitwidth_min", "greater than a_bitwidth_max = 4"),
        ({"a_stepsize": 2.0}, "a_stepsize", "nearest valid: 1 "),
        (
            {"arch": "mobilenet_v2", "num_layers": 44},
            "num_layers",
            "arch = mobilenet_v2 does not take it; leave it out, or take one of resnet, preact_resnet$",
        ),
        ({"stem": "cifar"}, "stem", "arch = resnet does not take it.*resnet18.*mobilenet_v2$"),
        ({"arch": "vgg11", "auxiliary": True}, "auxiliary", "take one of googlenet, inception_v3$"),
        ({"arch": "densenet40", "hidden": (64,)}, "hidden", "arch = densenet40 .* vgg11, vgg16, vgg19$"),
        ({"arch": "mobilenet_v1", "stem": "cifar_pooled"}, "stem", "one of imagenet, cifar; nearest valid: cifar .*v1"),
        ({"arch": "preact_resnet", "shortcut_type": "b"}, "shortcut_type", "subsample, conv.* .arch = preact_resnet"),
        ({"arch": "preact_resnet", "num_layers": 51}, "num_layers", "110, 182; nearest valid: 56 "),
        ({"arch": "googlenet", "policy": "p.yaml", "auxiliary": True}, "auxiliary", "knows no auxiliary heads"),
        ({"w_quantize": "fp", "w_bitwidth": 1}, "w_bitwidth", "signed and uniform and needs 2 bits"),
        (
            {"w_quantize": "parametric_fp_d_xmax", "w_bitwidth_min": 1},
            "w_bitwidth_min",
            "signed and uniform and needs 2 bits; nearest valid: 2",
        ),
        ({"w_quantize": "parametric_fp_b_xmax", "w_bitwidth": 9}, "w_bitwidth", "nearest valid: 8"),
        (
            {"a_quantize": "parametric_fp_b_xmax_relu", "a_bitwidth": 3, "a_bitwidth_min": 4},
            "a_bitwidth",
            ": 4",
        ),
        ({"w_quantize": "pow2", "w_bitwidth": 9}, "w_bitwidth", "at most 8 bits; nearest valid: 8"),
        ({"w_quantize": "sign_mean"}, "w_bitwidth", "has 1 bit; nearest valid: 1"),
        ({"policy": "p.yaml", "w_quantize": "fp"}, "w_quantize", "policy = p.yaml already decides"),
        ({"policy": "p.yaml", "a_quantize": "fp_relu"}, "a_quantize", "policy = p.yaml already decides"),
        ({"policy": "p.yaml", "target_weight_kbytes": 5.0}, "target_weight_kbytes", "fixes the bits"),
        ({"target_weight_kbytes": 70.1}, "target_weight_kbytes", "set w_quantize.*parametric_fp_d_xmax"),
        (
            {"target_activation_kbytes": 8.1, "w_quantize": "fp"},
            "target_activation_kbytes",
            "set a_quantize.*parametric_fp_d_xmax_relu",
        ),
        ({"milestones": (120, 80)}, "milestones", "increasing; nearest valid: 80, 120"),
        ({"milestones": (0, 80)}, "milestones", "nearest valid: 80"),
        (
            {"milestones": (80, 120), "epochs": 100},
            "milestones",
            "120 never comes in epochs = 100; nearest valid: 80",
        ),
    ],
)
def test_keys_must_fit_together(values, key, reason):
    with pytest.raises(InvalidValue, match=reason) as caught:
        Experiment("X", **values)
    assert caught.value.key == key


@pytest.mark.parametrize(
    "values",
    [
        {"w_quantize": "pow2", "w_bitwidth": 1},
        {"w_quantize": "parametric_pow2_xmin_xmax", "w_bitwidth_min": 1},
        {"a_quantize": "parametric_fp_d_xmax_relu", "a_bitwidth": 1},
        {"w_quantize": "fp", "w_bitwidth": 2, "w_bitwidth_min": 1},
        {"w_quantize": "sign_mean", "w_bitwidth": 1},
        {"w_quantize": "parametric_fp_b_xmax", "w_bitwidth": 2, "w_bitwidth_min": 2, "w_bitwidth_max": 2},
        {"arch": "resnet_digits", "shortcut_type": "b"},
        {"arch": "preact_resnet", "num_layers": 182, "width_multiplier": 4.0, "shortcut_type": "conv"},
        {"arch": "mobilenet_v2", "stem": "cifar", "width_multiplier": 0.35, "scale_layer": True},
        {"arch": "resnet18", "stem": "cifar_pooled"},
        {"arch": "googlenet", "preactivation": False, "auxiliary": True},
        {"arch": "vgg16", "hidden": ()},
        {"policy": "p.yaml"},
        {"keep": ("conv1", "fc*:8", "*/b:16")},
    ],
)
def test_what_fits_together_is_accepted(values):
    experiment = Experiment("X", **values)
    assert {key: getattr(experiment, key) for key in values} == values


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a]", "-x", "a b", ".x"])
def test_a_name_must_be_that_of_a_folder(name):
    with pytest.raises(ConfigError, match="also names a folder"):
        Experiment(name)


@pytest.mark.parametrize(
    ("epochs", "milestones"),
    [(160, (80, 120)), (6, (3, 5)), (30, (15, 23)), (2, (1,)), (1, ()), (320, (160, 240))],
)
def test_milestones_follow_the_length_of_the_run(epochs, milestones):
    assert Experiment("X", epochs=epochs).milestones == milestones


@given(st.lists(st.integers(1, 300), unique=True, max_size=5), st.integers(1, 400), st.integers(1, 400))
def test_moved_milestones_are_always_valid(milestones, epochs, new_epochs):
    moved = scale_milestones(tuple(sorted(milestones)), epochs, new_epochs)
    assert Experiment("X", epochs=new_epochs, milestones=moved).milestones == moved
    assert len(moved) <= len(milestones)


def test_the_words_are_those_that_the_other_parts_know():
    assert ACTIVATION_SITES == ACTIVATION_KINDS
    assert list(ARCHITECTURES) == list(MODELS)
    assert set(DATASETS) == set(data.DATASETS)
    assert ARCHITECTURES["resnet"]["num_layers"] == tuple(BLOCKS)
    assert ARCHITECTURES["resnet"]["shortcut_type"] == ARCHITECTURES["resnet_digits"]["shortcut_type"] == SHORTCUTS
    assert ARCHITECTURES["preact_resnet"]["num_layers"] == DEPTHS
    assert ARCHITECTURES["preact_resnet"]["shortcut_type"] == PREACTIVATION_SHORTCUTS
    assert ARCHITECTURES["resnet18"]["stem"] == tuple(STEMS)
    assert ARCHITECTURES["mobilenet_v2"]["stem"] == tuple(STRIDES)
    assert set(AUGMENTATIONS) == set(data.AUGMENTATIONS)
    assert set(FILE_DATASETS) == set(USUAL) and set(BOX_DATASETS) == {name for name in USUAL if USUAL[name].boxes}
    assert set(choices.COLOURS) == set(COLOURS)


def test_every_published_quantizer_has_a_name_for_both_roles():
    published = ["fp", "pow2"]
    published += [f"parametric_fp_{which}" for which in ("b_xmax", "d_xmax", "d_b")]
    published += [f"parametric_pow2_{which}" for which in ("b_xmax", "b_xmin", "xmin_xmax")]
    for name in published:
        weight, activation = WEIGHT_QUANTIZERS[name], ACTIVATION_QUANTIZERS[f"{name}_relu"]
        assert weight == activation
        assert weight.learn == name.startswith("parametric")
        assert weight.quantizer.startswith("pow2" if "pow2" in name else "uniform")
