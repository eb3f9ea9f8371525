"""PyTorch's side against formulas in numpy and against nnmpq's own networks; needs an interpreter with PyTorch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from benchmarks.nnabla_worker import NETWORKS, SCHEMES
from benchmarks.peer_process import ROOT, environment
from nnmpq.graph.quantize import quantize
from nnmpq.models import build

VARIABLE = "NNMPQ_TORCH_PYTHON"
pytestmark = [
    pytest.mark.skipif(
        VARIABLE not in os.environ, reason=f"{VARIABLE} names no interpreter that has PyTorch and numpy"
    ),
    pytest.mark.timeout(300),
]
STEP, XMAX, SCALE = 0.3, 1.9, 0.25
# Published: steps by bits of the half-wave Gaussian quantizer, and of the Gaussian one in deviations.
ACTIVATION_STEPS, WEIGHT_STEPS = {2: 0.538, 3: 0.3217, 4: 0.185}, {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.336}
SIZES = {"resnet20": 16, "mobilenet_v2": 64}


def numbers() -> dict[str, Any]:
    random = np.random.RandomState(7)
    x, g = random.randn(2, 4, 5, 6).astype(np.float32) * 2, random.randn(2, 4, 5, 6).astype(np.float32)
    weight, weight_g = random.randn(5, 3, 3, 3).astype(np.float32), random.randn(5, 3, 3, 3).astype(np.float32)
    return {
        "x": x,
        "g": g,
        "step": np.float32(STEP),
        "xmax": np.float32(XMAX),
        "scale": SCALE,
        "strengths": np.float32([0.5, -0.3, 0.1]),
        "weight": 0.2 * weight + 0.05,
        "weight_g": weight_g,
        "weight_strengths": np.float32([0.2, 0.7, -0.4, 0.0]),
    }


def network_loss(name: str, given: dict[str, Any]) -> tuple[float, np.ndarray]:
    """nnabla's loss and first gradient; the weights and data go to `given`."""
    random, model, size = np.random.RandomState(3), NETWORKS[name], SIZES[name]
    images = random.randn(4, 3, size, size).astype(np.float32)
    labels = random.randint(0, model.classes, (4, 1))
    x, label = nn.Variable.from_numpy_array(images), nn.Variable.from_numpy_array(labels)
    with nn.parameter_scope(name):
        loss = F.mean(F.softmax_cross_entropy(build(model.name, x, model.classes, seed=5), label))
        parameters = nn.get_parameters()
    weights = [variable for key, variable in parameters.items() if key.endswith("/W")]
    for index, variable in enumerate(weights):
        given[f"{name} {index}"] = np.array(variable.d)
    given[f"{name} bias"] = np.array(parameters["fc/affine/b"].d)
    given[f"{name} images"], given[f"{name} labels"] = images, labels.ravel().astype(np.int64)
    for variable in parameters.values():
        variable.g = 0
    loss.forward()
    loss.backward()
    return float(loss.d), np.array(weights[0].g)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What went in, what PyTorch made of it, and nnabla's losses."""
    folder: Path = tmp_path_factory.mktemp("torch")
    given = numbers()
    with nn.auto_forward(False):
        ours = {name: network_loss(name, given) for name in NETWORKS}
    nn.clear_parameters()
    np.savez(folder / "in.npz", **given)
    command = [os.environ[VARIABLE], "-m", "tests.benchmarks.torch_outputs", "in.npz", "out.npz"]
    command[-2:] = [str(folder / name) for name in command[-2:]]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(1, os.environ), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return given, dict(np.load(folder / "out.npz")), ours


@pytest.mark.parametrize("form", ["fused", "composed"])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("signed", [False, True])
def test_learned_step_is_the_formula(computed: Any, form: str, layout: str, signed: bool) -> None:
    given, found, _ = computed
    x, g = given["x"].astype(float), given["g"].astype(float)
    low = -XMAX if signed else 0.0
    clipped = np.clip(x, low, XMAX)
    y = STEP * np.rint(clipped / STEP)
    expected = {
        "y": y,
        "x": g * ((x > low) & (x < XMAX)),
        "step": SCALE * np.sum(g * (y - clipped)) / STEP,
        "xmax": SCALE * (np.sum(g[x >= XMAX]) - (np.sum(g[x <= low]) if signed else 0.0)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"{form} {layout} {signed} {name}"], value, rtol=2e-5, atol=2e-5, err_msg=name)


def softmax(strengths: np.ndarray) -> np.ndarray:
    powers = np.exp(strengths.astype(float))
    return powers / powers.sum()


def through_softmax(p: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    return p * (gradients - np.dot(p, gradients))


@pytest.mark.parametrize("form", ["fused", "composed"])
def test_activation_mixture_is_the_formula(computed: Any, form: str) -> None:
    given, found, _ = computed
    x, g, p = given["x"].astype(float), given["g"].astype(float), softmax(given["strengths"])
    limits = [(2**bits - 1) * step for bits, step in ACTIVATION_STEPS.items()]
    rows = [s * np.rint(np.clip(x, 0, limit) / s) for s, limit in zip(ACTIVATION_STEPS.values(), limits)]
    inside = sum(share * ((x > 0) & (x < limit)) for share, limit in zip(p, limits))
    of_shares = np.array([np.sum(g * row) for row in rows])
    expected = {"y": np.tensordot(p, rows, 1), "x": g * inside, "strengths": through_softmax(p, of_shares)}
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"{form} {name}"], value, rtol=2e-5, atol=2e-5, err_msg=name)


def test_weight_mixture_is_the_formula(computed: Any) -> None:
    given, found, _ = computed
    w, g, p = given["weight"].astype(float), given["weight_g"].astype(float), softmax(given["weight_strengths"])
    rows = []
    for bits, unit in WEIGHT_STEPS.items():
        step, most = unit * np.std(w, ddof=1), 2 ** (bits - 1) - 0.5
        rows.append(step * np.clip(np.rint(w / step + 0.5) - 0.5, -most, most))
    of_shares = np.array([np.sum(g * row) for row in rows])
    expected = {"y": np.tensordot(p, rows, 1), "x": g, "strengths": through_softmax(p, of_shares)}
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"weight {name}"], value, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(("name", "parameters"), [("resnet20", 269_722), ("mobilenet_v2", 3_504_872)])
def test_networks_are_nnmpqs(computed: Any, name: str, parameters: int) -> None:
    _, found, ours = computed
    loss, gradient = ours[name]
    assert found[f"{name} parameters"] == parameters
    np.testing.assert_allclose(found[f"{name} loss"], loss, rtol=1e-5)
    # Normalising over the few pixels of the last maps makes much of rounding: of MobileNetV2's largest, half a percent.
    np.testing.assert_allclose(found[f"{name} gradient"], gradient, rtol=0, atol=1e-2 * np.abs(gradient).max())


# Steps and ranges: of 20 weights and 19 activations; vectors of a mixture: of 18 weights and 18 activations.
@pytest.mark.parametrize(("kind", "own"), [("float", 0), ("quantized", 78), ("mixture", 36)])
def test_training_moves_every_parameter(computed: Any, kind: str, own: int) -> None:
    _, found, _ = computed
    losses = found[f"{kind} losses"]
    assert np.all(np.isfinite(losses)) and losses[-1] < 0.7 * losses[0]
    assert found[f"{kind} own"] == own
    assert found[f"{kind} still"] == 0
    assert found[f"{kind} smallest"] > 0


@pytest.mark.parametrize("kind", ["float", "quantized", "mixture"])
def test_the_layout_in_memory_changes_no_result(computed: Any, kind: str) -> None:
    first, second = computed[1][f"{kind} by layout"]
    # A sum in another order may round to another level.
    np.testing.assert_allclose(second, first, rtol=1e-5 if kind == "float" else 1e-2)


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_as_many_sites_are_quantized_and_mixed_as_in_nnmpq(computed: Any, name: str) -> None:
    _, found, _ = computed
    model, size = NETWORKS[name], SIZES[name]
    for kind in ("quantized", "mixture"):
        with nn.parameter_scope(kind):
            y = build(model.name, nn.Variable((1, 3, size, size)), model.classes, seed=1)
            sites = quantize(y, SCHEMES[kind](model.unmixed)).sites
        own = [site for site, quantized in sites.items() if quantized.quantizer is not None]
        weights = sum(site.endswith("/W") for site in own)
        activations = sum(site.endswith("/relu") for site in own)
        if kind == "quantized":
            assert (found[f"{name} quantized weights"], found[f"{name} quantizers"]) == (weights, weights + activations)
        else:
            assert (found[f"{name} mixed weights"], found[f"{name} mixed activations"]) == (weights, activations)
