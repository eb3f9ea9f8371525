"""Calibrated ranges: the KL divergence against its definition spelled out, and quantizers that start with them."""

from __future__ import annotations

import math

import attrs
import nnabla as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.graph.network import ACTIVATION
from nnmpq.graph.schemes import Fixed, FromPolicy, Parametric, SiteSettings
from nnmpq.graph.settings import pinned
from nnmpq.policy import Policy
from nnmpq.search.calibrate import calibrate, kl_range, range_of
from nnmpq.search.task import network_of, policy_sites
from nnmpq.training import train
from nnmpq.training.graphs import build_evaluation
from tests.training.tiny import data, experiment


def divergence(counts: list[int], kept: int, levels: int) -> float:
    """KL(P || Q) of a histogram cut off at `kept` bins, one bin after the other."""
    p = [float(c) for c in counts[:kept]]
    p[-1] += sum(counts[kept:])
    q = [0.0] * kept
    for level in range(levels):
        members = [i for i in range(kept) if i * levels // kept == level]
        filled = [i for i in members if counts[i]]
        for i in filled:
            q[i] = sum(counts[j] for j in members) / len(filled)
    if any(a and not b for a, b in zip(p, q)):
        return math.inf
    return sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q) if a)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 4, 8]), st.integers(30, 500), st.sampled_from([1.0, 3.0, 12.0]))
def test_the_range_has_the_least_divergence(seed: int, levels: int, count: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(size=count)) * np.where(rng.random(count) < 0.02, tail, 1.0)
    found = kl_range(np.append(x, np.zeros(50)), levels)
    bins = max(math.ceil(math.sqrt(count)), levels)
    counts = [0] * bins
    for number in x:
        counts[min(int(number / (x.max() / bins)), bins - 1)] += 1
    by_kept = {kept: divergence(counts, kept, levels) for kept in range(levels, bins + 1)}
    kept = round(found / (x.max() / bins))
    assert found == pytest.approx(kept * x.max() / bins) and kept in by_kept
    assert by_kept[kept] <= min(by_kept.values()) + 1e-9


def test_what_is_spread_evenly_is_kept_and_an_outlier_is_cut() -> None:
    even = np.linspace(0.001, 2.0, 4096)
    assert kl_range(even, 4) == pytest.approx(2.0, rel=0.05)
    bulk = np.abs(np.random.default_rng(1).normal(size=20000))
    assert kl_range(np.append(bulk, 60.0), 8) < 6 < 60 == np.append(bulk, 60.0).max()
    assert kl_range(np.array([0.0, 3.0, 3.0]), 2) == pytest.approx(3.0)


@pytest.mark.parametrize("bits", [5, 6, 8])
def test_wide_quantizers_cut_nothing(bits: int) -> None:
    x = np.append(np.random.default_rng(0).normal(size=1000), -40.0).astype(np.float32)
    assert range_of(x, bits, signed=True) == 40.0
    assert range_of(x, bits, signed=False) == pytest.approx(float(x.max()))
    assert range_of(x, bits, signed=True, most=6.0) == 6.0
    assert range_of(x, 4, signed=True) == kl_range(np.abs(x), 8)
    assert range_of(x, 4, signed=False) == kl_range(np.maximum(x, 0), 16)
    assert range_of(np.zeros(9), 2, signed=True) == 0.0


def weights(name: str) -> np.ndarray:
    return np.array(nn.get_parameters()[name].d, np.float32)


def test_weights_by_themselves_and_activations_of_the_float_network() -> None:
    keys, images = experiment(batch_size=40), data()
    network = network_of(keys, images.shape, images.classes)
    bits = {s.name: 8 if s.kind == "affine" else 3 for s in network.sites() if s.role == "weight"}
    bits.update({s.name: 8 for s in network.activations if s.kind == "relu"})
    bits["res2/layer1/basicblock1/conv/relu"] = 2
    quantizers = {name: "pact" if network.site(name).role == ACTIVATION else "haq" for name in bits}
    policy = Policy("resnet_digits", sites=policy_sites(network, bits, quantizers))
    graph = build_evaluation(keys, images, FromPolicy(policy), accelerate=True)
    found = calibrate(keys, images, graph, images=160)
    # A bias has no bits here: only what is quantized gets a range.
    assert found.keys() == bits.keys()
    assert found["fc/affine/W"] == pytest.approx(np.abs(weights("fc/affine/W")).max(), rel=1e-6)
    for name in ("conv1/conv/W", "res3/layer1/basicblock1/conv/W"):
        assert found[name] == pytest.approx(kl_range(np.abs(weights(name)), 4), rel=1e-6)
        assert found[name] == pytest.approx(float(nn.get_parameters(grad_only=False)[f"{name}_quantizer/xmax"].d))
    # The largest ReLU of the first layer, from the layer written out in numpy: zeros around, then statistics.
    pixels = (images.train.images[:160].astype(np.float64) - images.offset) / images.scale
    padded = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h = np.zeros((160, 16, 8, 8))
    for i in range(3):
        for j in range(3):
            h += np.einsum("nchw,kc->nkhw", padded[:, :, i : i + 8, j : j + 8], weights("conv1/conv/W")[:, :, i, j])
    # Fresh statistics: mean 0, variance 1, eps 1e-5, scale 1.
    assert found["conv1/conv/relu"] == pytest.approx(h.max() / np.sqrt(1 + 1e-5), rel=1e-4)
    small = calibrate(attrs.evolve(keys, faithful=True), images, graph, images=160)
    assert max(small[name] for name in small if network.site(name).role == ACTIVATION) <= 6.0 + 1e-4


def test_ranges_a_channel_and_quantizers_without_one() -> None:
    keys, images = experiment(batch_size=40), data()
    scheme = Parametric(
        weight=attrs.evolve(pinned(6), per_channel=True),
        activation=SiteSettings("half_wave_gaussian", 2, options={"bits_limits": (2.0, 2.0)}),
    )
    graph = build_evaluation(keys, images, scheme)
    found = calibrate(keys, images, graph)
    assert not any(name.endswith("relu") for name in found) and "conv1/conv/W" in found
    w = weights("res1/layer1/basicblock1/conv/W")
    largest = np.abs(w).max((1, 2, 3))
    # The step is the power of two nearest to range / 31; the range follows it.
    step = 2.0 ** np.floor(np.log2(largest / 31) + 0.5)
    grid = graph.quantized.sites["res1/layer1/basicblock1/conv/W"].grid()
    np.testing.assert_allclose(grid.step, step, rtol=1e-6)
    # Zeros have no range: biases start at 0 and keep what they had.
    assert "fc/affine/b" not in found or np.any(weights("fc/affine/b"))


def test_training_starts_from_calibrated_ranges(tmp_path) -> None:
    """With a rate of next to nothing the ranges after an epoch are those of the start."""
    images = data()
    plain = experiment(epochs=1, milestones=(), augmentation="none")
    train(plain, images, tmp_path / "float", quiet=True)
    policy = tmp_path / "policy.yaml"
    network = network_of(plain, images.shape, images.classes)
    sites = {s.name: 4 for s in network.sites() if s.kind in ("convolution", "relu")}
    Policy("resnet_digits", sites=policy_sites(network, sites)).save(policy)
    common = {"policy": str(policy), "weightfile": str(tmp_path / "float" / "best.h5"), "epochs": 1, "milestones": ()}
    ranges = []
    for calibrated in (True, False):
        keys = experiment(**common, calibrate=calibrated, initial_learning_rate=1e-9, augmentation="none")
        train(keys, images, tmp_path / str(calibrated), quiet=True)
        ranges.append({n: float(v.d) for n, v in nn.get_parameters(grad_only=False).items() if n.endswith("/xmax")})
    assert ranges[0].keys() == ranges[1].keys() and ranges[0] != ranges[1]
    nn.clear_parameters()
    nn.load_parameters(common["weightfile"])
    graph = build_evaluation(plain, images, Fixed(4, 4, keep=("fc/*",)))
    wanted = calibrate(attrs.evolve(plain, batch_size=32), images, graph)
    for name in ("conv1/conv/W", "res3/layer1/basicblock2/conv/W", "conv1/conv/relu"):
        snapped = 2.0 ** math.floor(
            math.log2(ranges[0][f"{name}_quantizer/xmax"] / (7 if name[-1] == "W" else 15)) + 0.5
        )
        assert snapped * (7 if name[-1] == "W" else 15) == pytest.approx(wanted[name], rel=1e-4)
