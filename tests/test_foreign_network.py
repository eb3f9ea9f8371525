"""A network that nnmpq did not build: traced, quantized, trained, baked, saved and loaded again."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np
import pytest
from nnabla.utils.nnp_graph import NnpLoader

from nnmpq.cost import cost
from nnmpq.export.nnp import grids_of, read_manifest, save_nnp
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.graph.trace import trace
from tests.networks import SHAPE, foreign, save_foreign

CLASSES = 4
KINDS = ("input", "relu", "sum", "pool")


def scheme(weight: str, activation: str) -> Parametric:
    return Parametric(weight=SiteSettings(weight, bits=4), activation=SiteSettings(activation, bits=4), kinds=KINDS)


def built(batch: int, chosen: Parametric, test: bool) -> tuple[nn.Variable, QuantizedNetwork]:
    x = nn.Variable((batch, *SHAPE))
    return x, quantize(foreign(x, test), chosen)


def batch_of(rng: np.random.RandomState, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the quarter with a bright spot."""
    labels = rng.randint(0, CLASSES, (size, 1))
    images = 0.3 * rng.randn(size, *SHAPE).astype(np.float32)
    for image, label in zip(images, labels[:, 0]):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[:, row : row + 4, column : column + 4] += 1.0
    return images, labels


def train(chosen: Parametric, steps: int = 12) -> tuple[list[float], QuantizedNetwork]:
    x, quantized = built(16, chosen, test=False)
    labels = nn.Variable((16, 1))
    loss = F.mean(F.softmax_cross_entropy(quantized.output, labels))
    solver = S.Adam(0.01)
    solver.set_parameters(nn.get_parameters())
    rng, losses = np.random.RandomState(0), []
    for _ in range(steps):
        x.d, labels.d = batch_of(rng, 16)
        loss.forward()
        losses.append(float(loss.d))
        solver.zero_grad()
        loss.backward()
        solver.update()
        for site in quantized.sites.values():
            if site.quantizer is not None:
                for name, value in site.quantizer.constrain(site.values()).items():
                    site.parameters[name].d = value
    return losses, quantized


def evaluated(x: nn.Variable, y: nn.Variable, images: np.ndarray) -> np.ndarray:
    x.d = images
    y.forward()
    return np.array(y.d)


QUANTIZERS = [("uniform_delta_xmax", "uniform_delta_xmax"), ("pow2_xmin_xmax", "uniform_b_xmax")]


@pytest.mark.parametrize("weight, activation", QUANTIZERS)
def test_from_float_graph_to_loaded_file(tmp_path: Path, weight, activation):
    chosen = scheme(weight, activation)
    losses, trained = train(chosen)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    _, quantized = built(7, chosen, test=True)
    assert quantized.bit_numbers() == trained.bit_numbers()
    policy = quantized.policy(name="foreign", method="learned", seed=0)
    save_nnp(tmp_path / "m.nnp", quantized, policy)
    for size in (1, 3, 7):
        images, _ = batch_of(np.random.RandomState(size), size)
        x, again = built(size, chosen, test=True)
        expected = evaluated(x, again.output, images)
        with nn.parameter_scope("", OrderedDict()):
            network = NnpLoader(str(tmp_path / "m.nnp")).get_network("main", batch_size=size)
            found = evaluated(network.inputs["x"], network.outputs["y"], images)
        np.testing.assert_array_equal(found, expected)
        assert np.unique(expected).size > CLASSES // 2
    found_policy, numbers = read_manifest(tmp_path / "m.nnp")
    assert found_policy == policy
    grids = grids_of(numbers)
    with nn.parameter_scope("", OrderedDict()):
        nn.load_parameters(str(tmp_path / "m.nnp"))
        stored = {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}
    weights = [name for name, site in policy.sites.items() if site.role == "weight"]
    assert len(weights) == 7
    for name in weights:
        np.testing.assert_array_equal(grids[name].decode(numbers[f"{name}:codes"]), stored[name])


def test_traced_layers_and_cost_by_hand():
    """Weights: stem 8x3x9, depthwise 8x9, 1x1 8x8, strided 8x8x9, deconvolution 8x4x4, grouped 8x6x9, affine 8x4."""
    network = trace(foreign(nn.Variable((1, *SHAPE)), True))
    counts = {layer.name.split("/")[0]: (layer.weight.elements, layer.macs) for layer in network.layers}
    assert counts == {
        "stem": (216, 216 * 64),
        "depth": (72, 72 * 64),
        "project": (64, 64 * 64),
        "down": (576, 576 * 16),
        "up": (128, 128 * 16),
        "merge": (432, 432 * 64),
        "head": (32, 32),
    }
    biases = 8 + 8 + 8 + 8 + 4 + 8 + 4
    bits = {site.name: 4 for site in network.sites() if site.role != "activation"}
    assert cost(network, bits).weights_kib == (1520 + biases) * 4 / 8192


def test_a_users_own_file_is_quantized_and_saved(tmp_path: Path):
    """Loaded by nnabla, its parameters in the current scope."""
    save_foreign(tmp_path / "user.nnp", batch=4)
    nn.clear_parameters()
    loaded = NnpLoader(str(tmp_path / "user.nnp")).get_network("net", batch_size=5)
    (x,), (y,) = loaded.inputs.values(), loaded.outputs.values()
    quantized = quantize(y, scheme("uniform_delta_xmax", "uniform_delta_xmax"))
    images, _ = batch_of(np.random.RandomState(1), 5)
    expected = evaluated(x, quantized.output, images)
    save_nnp(tmp_path / "m.nnp", quantized, quantized.policy())
    with nn.parameter_scope("", OrderedDict()):
        network = NnpLoader(str(tmp_path / "m.nnp")).get_network("main", batch_size=5)
        assert list(network.inputs) == ["x"]
        found = evaluated(network.inputs["x"], network.outputs["y"], images)
    np.testing.assert_array_equal(found, expected)
