"""What each architecture takes of an experiment, and auxiliary heads in training."""

from __future__ import annotations

import inspect

import nnabla as nn
import numpy as np
import pytest

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import build_scheme
from nnmpq.cost import weights_kib
from nnmpq.data import DataSet, Split
from nnmpq.models import MODELS, build
from nnmpq.training.graphs import build_evaluation, build_training


def made_up(side: int = 32, classes: int = 5) -> DataSet:
    numbers = np.random.RandomState(0)
    split = Split(numbers.randint(0, 256, (4, 3, side, side)).astype(np.uint8), np.arange(4).astype(np.int32) % classes)
    return DataSet("made up", classes, split, split, split, 127.5, 1 / 127.5)


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_every_key_of_an_architecture_is_an_option_of_its_network(arch: str) -> None:
    model = MODELS[arch]
    own = set(inspect.signature(model).parameters) | set(inspect.signature(build).parameters)
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(model).parameters.values()):
        from nnmpq.models import resnet

        own |= set(inspect.signature(resnet).parameters)
    defaults = Experiment("X", arch=arch)
    for key in ARCHITECTURES[arch]:
        assert key in own
        assert hasattr(defaults, key)


@pytest.mark.parametrize(
    ("arch", "options", "scope"),
    [
        ("resnet18", {"stem": "cifar", "width_multiplier": 0.125}, "res4/block2/conv2/conv/W"),
        ("mobilenet_v2", {"stem": "cifar", "width_multiplier": 0.35, "scale_layer": True}, "fc/scale_layer"),
        ("preact_resnet", {"shortcut_type": "conv", "width_multiplier": 0.25}, "res2/block1/shortcut/conv/W"),
        ("vgg11", {"hidden": (), "width_multiplier": 0.125}, "conv5_2/conv/W"),
        ("densenet40", {"scale_layer": True}, "block3/layer12/conv/W"),
    ],
)
def test_an_experiment_builds_its_network(arch: str, options: dict, scope: str) -> None:
    experiment = Experiment("X", arch=arch, batch_size=2, w_quantize="parametric_fp_d_xmax", **options)
    scheme = build_scheme(experiment)
    training = build_training(experiment, made_up(), scheme)
    names = set(nn.get_parameters(grad_only=False))
    assert scope in names
    evaluation = build_evaluation(experiment, made_up(), scheme)
    assert set(nn.get_parameters(grad_only=False)) == names
    assert training.logits.shape == evaluation.logits.shape == (2, 5)


QUANTIZED = {
    "w_quantize": "parametric_fp_d_xmax",
    "a_quantize": "parametric_fp_d_xmax_relu",
    "target_weight_kbytes": 1000.0,
}


@pytest.mark.parametrize(
    ("arch", "weight", "heads", "keys"), [("googlenet", 0.3, 2, QUANTIZED), ("inception_v3", 0.4, 1, {})]
)
def test_auxiliary_heads_help_training_and_cost_nothing(arch: str, weight: float, heads: int, keys: dict) -> None:
    experiment = Experiment("X", arch=arch, auxiliary=True, batch_size=2, **keys)
    data = made_up(64)
    training = build_training(experiment, data, build_scheme(experiment))
    evaluation = build_evaluation(experiment, data, build_scheme(experiment))
    outputs = training.quantized.outputs
    assert len(outputs) == heads + 1 and len(evaluation.quantized.outputs) == 1
    training.images.d = np.random.RandomState(1).randn(*training.images.shape)
    training.labels.d = [[1], [3]]
    nn.forward_all([training.loss, training.cross_entropy, *outputs, *training.penalties.values()])

    def cross_entropy(logits: np.ndarray) -> float:
        shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        return float(-np.log(shifted[[0, 1], [1, 3]] / shifted.sum(axis=1)).mean())

    found = [cross_entropy(output.d) for output in outputs]
    assert float(training.cross_entropy.d) == pytest.approx(found[0], rel=1e-4)
    added = sum(float(term.d) for term in training.penalties.values())
    assert (added > 0) == bool(keys)
    assert float(training.loss.d) == pytest.approx(found[0] + weight * sum(found[1:]) + added, rel=1e-4)
    # The evaluated network is what costs; the heads' quantizers are learned beside it.
    assert training.quantized.network.layers == evaluation.quantized.network.layers
    extra = set(training.quantized.sites) - set(evaluation.quantized.sites)
    assert extra and all(name.startswith("auxiliary") for name in extra)
    assert set(evaluation.quantized.sites) <= set(training.quantized.sites)
    bits = evaluation.quantized.bit_numbers()
    assert weights_kib(training.quantized.network, training.quantized.bit_numbers()) == pytest.approx(
        weights_kib(evaluation.quantized.network, bits)
    )
