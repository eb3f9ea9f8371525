"""EdMIPS against the published numbers and against formulas written out in numpy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nnabla as nn
import numpy as np
import pytest

from nnmpq.budget import Budget
from nnmpq.config.reader import read_experiment
from nnmpq.cost import cost
from nnmpq.data import load
from nnmpq.graph.network import Network
from nnmpq.search import edmips
from nnmpq.search.complexity import from_published, published_size, relative_complexity, searched_layers
from nnmpq.search.differentiable import build_objective
from nnmpq.search.mixtures import decide, expected_bits, largest_shares, log_shares, mixtures, unlikeliness
from nnmpq.search.run import mean_bits_inner
from nnmpq.search.task import SearchTask, network_of
from nnmpq.training.machine import Machine
from tests.search.searching import experiment, run, trail
from tests.search.small import network as made_up

CFG = Path(__file__).parents[2] / "cfgs" / "search_edmips.cfg"
# Published cd; first quantized layer's size and the sum over it, in the published units; lambda.
PUBLISHED = {
    "EDMIPS_RESNET18": (0.00335, 19, 115.6, 14.667, 0.0491),
    "EDMIPS_RESNET50": (0.00015, 52, 12.85, 309.0, 0.0463),
    "EDMIPS_GOOGLENET": (0.00045, 56, 12.85, 113.95, 0.0513),
    "EDMIPS_INCEPTION_V3": (0.0015, 93, 204.6, 28.17, 0.0423),
}
W18 = [1, 1, 1, 1, 3, 2, 4, 2, 1, 3, 2, 4, 2, 1, 3, 2, 4, 2, 2]
A18 = [2, 2, 2, 2, 2, 2, 4, 2, 2, 3, 3, 3, 2, 2, 3, 3, 3, 2, 2]


@cache
def published(name: str) -> Network:
    side = 299 if "INCEPTION" in name else 224
    return network_of(read_experiment(CFG, name), (3, side, side), 1000)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_weight_in_our_units(name):
    cd, count, first, ratio, weight = PUBLISHED[name]
    chosen, net = read_experiment(CFG, name), published(name)
    assert chosen.cd == cd and chosen.weight_widths == (1, 2, 3, 4) and chosen.activation_widths == (2, 3, 4)
    mixed = {
        site.name for site in net.sites() if site.role == "weight" and site.layer not in ("conv1/conv", "fc/affine")
    }
    layers = searched_layers(net, mixed)
    assert len(layers) == count == len(net.layers) - 2
    assert published_size(layers[0]) / 1e6 == pytest.approx(first, rel=5e-4)
    assert from_published(cd, layers) / cd == pytest.approx(ratio, rel=5e-4)
    assert from_published(cd, layers) == pytest.approx(weight, abs=6e-5)


def test_the_published_allocation_of_resnet18():
    net = published("EDMIPS_RESNET18")
    layers = net.layers[1:-1]
    bits = {layer.weight.name: w for layer, w in zip(layers, W18)}
    # A projection reads what its block's first convolution reads: here each has the published width.
    operations = sum(layer.macs * w * a for layer, w, a in zip(layers, W18, A18))
    assert operations / 1e6 == pytest.approx(6730.8, abs=0.05)
    uniform = {**{name: 2 for name in bits}, **{site.name: 2 for site in net.activations if site.kind == "relu"}}
    used = cost(net, uniform)
    assert used.bitops_inner / 1e9 == pytest.approx(6.782, abs=6e-4)
    assert mean_bits_inner(net, used) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "name,operations,bit",
    [
        ("EDMIPS_RESNET18", 6.731, 1.992),
        ("EDMIPS_RESNET50", 15.992, 2.007),
        ("EDMIPS_GOOGLENET", 5.821, 1.994),
        ("EDMIPS_INCEPTION_V3", 22.633, 1.982),
    ],
)
def test_the_readmes_bits_are_roots_of_bitops_a_mac(name, operations, bit):
    macs = sum(layer.macs for layer in published(name).layers[1:-1])
    used = cost(published(name), {})
    counted = type(used)(**{**{f: 0 for f in used.__slots__ if f != "__weakref__"}, "bitops_inner": operations * 1e9})
    assert mean_bits_inner(published(name), counted) == pytest.approx((operations * 1e9 / macs) ** 0.5)
    # The published code counts Inception-V3's unpadded layers 1.25 % too large.
    assert mean_bits_inner(published(name), counted) == pytest.approx(bit, abs=0.014 if "V3" in name else 6e-4)


def task(tmp_path, accelerate=True, limits=None, **changes):
    data = load("digits", validation_images=40, train_images=160, test_images=40)
    machine = Machine(accelerate=accelerate)
    return SearchTask(experiment("edmips", **changes), data, Budget(**(limits or {})), tmp_path, machine=machine)


@pytest.mark.parametrize("accelerate", [True, False])
def test_the_gradient_of_the_complexity_is_the_closed_form(accelerate, tmp_path):
    chosen = task(tmp_path, accelerate, complexity_weight=0.7, entropy_weight=0.0)
    graph, _ = build_objective(chosen, chosen.experiment, edmips.objective(chosen))
    sites, net = mixtures(graph.quantized), graph.quantized.network
    random = np.random.default_rng(3)
    for site in sites.values():
        site.parameters["alpha"].d = random.normal(0, 1, site.parameters["alpha"].shape)
    graph.images.d, graph.labels.d = random.normal(size=graph.images.shape), 0
    p = {n: np.exp(list(log_shares(s).values())) for n, s in sites.items()}
    b = {n: np.array(s.quantizer.candidates, float) for n, s in sites.items()}
    e = {n: float(p[n] @ b[n]) for n in sites}
    macs = sum(layer.macs for layer in net.layers)
    expected = sum(layer.macs * e[layer.weight.name] * e[str(layer.input)] for layer in net.layers) / macs
    graph.loss.forward()
    assert float(graph.penalties["complexity"].d) == pytest.approx(0.7 * expected, rel=1e-5)
    assert expected_bits(graph.quantized)["input"] == pytest.approx(e["input"], rel=1e-6)
    # The term alone, away from the cross entropy.
    for v in nn.get_parameters().values():
        v.g = 0
    graph.penalties["complexity"].forward()
    graph.penalties["complexity"].backward()
    for layer in net.layers:
        name = layer.weight.name
        slope = 0.7 * layer.macs / macs * e[str(layer.input)] * p[name] * (b[name] - e[name])
        np.testing.assert_allclose(sites[name].parameters["alpha"].g, slope, rtol=2e-4, atol=1e-8)


def test_relative_complexity_needs_a_layer():
    net = made_up([10], [5], [(0,)])
    with pytest.raises(ValueError, match="nothing has a complexity"):
        relative_complexity(net, (), {})


def test_shares_decisions_and_likelihood(tmp_path):
    chosen = task(tmp_path, weight_widths=(2, 4), activation_widths=(2, 4))
    graph, _ = build_objective(chosen, chosen.experiment, edmips.objective(chosen))
    quantized = graph.quantized
    alpha = mixtures(quantized)["fc/affine/W"].parameters["alpha"]
    alpha.d = [0.0, 200.0]
    # A share that float32 cannot hold still has its logarithm.
    assert unlikeliness(quantized)["fc/affine/W"] == {2: pytest.approx(200.0), 4: pytest.approx(0.0)}
    assert largest_shares(quantized)["fc/affine/W"] == 4
    wanted = {name: 2 for name in mixtures(quantized)}
    decide(quantized, wanted)
    assert largest_shares(quantized) == wanted
    assert {n: expected_bits(quantized)[n] for n in wanted} == {n: 2.0 for n in wanted}


def test_without_limits_the_policy_is_the_largest_shares_at_the_published_quantizers(tmp_path):
    changes = {"weight_widths": (1, 2, 3, 4), "activation_widths": (2, 3, 4), "activation_sites": ("relu",)}
    published_keys = {"weight_candidate": "gaussian", "activation_candidate": "half_wave_gaussian", "keep": ("fc/*",)}
    # Under this much pressure the cheapest widths win everywhere.
    policy = run("edmips", tmp_path, complexity_weight=50.0, alpha_learning_rate=0.3, **changes, **published_keys)
    sites = policy.sites
    assert (sites["conv1/conv/W"].bits, sites["conv1/conv/W"].quantizer) == (1, "gaussian")
    assert (sites["conv1/conv/relu"].bits, sites["conv1/conv/relu"].quantizer) == (2, "half_wave_gaussian")
    assert (sites["fc/affine/W"].bits, sites["fc/affine/W"].quantizer) == (32, "float")
    header, *rows = trail(tmp_path)
    last = dict(zip(header, rows[-1]))
    assert {"mixture_error", "argmax_error", "mixture_bitops_inner", "argmax_bitops_inner"} <= last.keys()
    assert int(last["images"]) == 2 * 160
