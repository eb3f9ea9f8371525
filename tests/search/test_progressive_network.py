"""The network with run-time bits, and what its candidates are judged by."""

from __future__ import annotations

import math

import attrs
import nnabla as nn
import nnabla.solvers as S
import numpy as np
import pytest

from nnmpq.graph.schemes import FromPolicy
from nnmpq.graph.settings import FLOAT_BITS
from nnmpq.search.progressive_network import RuntimeNetwork, adam_score, l1_score
from nnmpq.search.progressive_settings import Settings
from nnmpq.search.progressive_start import load_start
from nnmpq.search.progressive_tuning import LARGEST_NORM, cosine_rate, search_solvers
from nnmpq.search.task import make_policy
from nnmpq.training.errors import TrainingError
from nnmpq.training.graphs import build_training
from tests.search.progressive import digits, experiment, make_task, trained

KEEP = ("conv1/conv", "fc/affine")


@pytest.fixture(scope="module")
def weightfile(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("float") / "best.h5")


@pytest.fixture(scope="module")
def quantfile(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("quant") / "best.h5", archtype="quant", keep=KEEP)


def runtime(tmp_path, path, **keys) -> RuntimeNetwork:
    task = make_task(tmp_path, path, **keys)
    return load_start(task, Settings.of(task.experiment))


@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_the_published_score_is_what_adams_first_step_moves(size):
    rng = np.random.default_rng(0)
    start, g = rng.normal(size=400).astype(np.float32), (size * rng.normal(size=400)).astype(np.float32)
    norm = float(np.linalg.norm(g))
    clipped = g * min(1.0, 5.0 / norm)
    w = nn.Variable.from_numpy_array(start).apply(need_grad=True)
    solver = S.Adam(alpha=1e-3)
    solver.set_parameters({"w": w})
    w.g = clipped
    solver.update()
    v = solver.get_states()["w"].pstate["var"].d
    moved = np.sum((np.sqrt(v) + 1e-7) * (start - w.d).astype(np.float64) ** 2)
    # Measured before: both agree to .3 %; float32 weights round the step, small gradients feel epsilon.
    assert adam_score(g) == pytest.approx(moved, rel=5e-3)
    assert adam_score(g) == pytest.approx(1e-6 * (math.sqrt(1e-3) * np.sum(np.abs(clipped)) + 1e-7 * 400), rel=5e-3)


def test_clipping_leaves_a_large_gradients_score_as_it_is():
    g = np.random.default_rng(1).normal(size=100)
    assert adam_score(1e3 * g) == pytest.approx(adam_score(1e5 * g))
    assert l1_score(1e5 * g) == pytest.approx(1e5 * np.sum(np.abs(g)))


@pytest.mark.parametrize("kind", ["uniform", "published"])
def test_bits_that_are_set_are_those_of_a_graph_built_with_them(tmp_path, weightfile, quantfile, kind):
    keys = {"archtype": "quant", "keep": KEEP} if kind == "published" else {}
    net = runtime(tmp_path, quantfile if keys else weightfile, **keys)
    before = net.training.loss
    rng = np.random.default_rng(2)
    bits = {name: int(rng.integers(2, 9)) for name in net.widths}
    net.apply(bits, {})
    net.training.images.d, net.training.labels.d = net.images, net.labels
    net.training.loss.forward()
    losses = [float(net.training.loss.d)]
    assert {name: site.bit_number() for name, site in net.sites.items()} == bits
    # A graph built now, whose bits are fixed, as the policy's training has them.
    own = experiment(**keys)
    task = make_task(tmp_path, None, **keys)
    quantizers = {name: site.quantizer_name for name, site in net.sites.items()}
    policy = make_policy(task, net.network, bits, "progressive", quantizers)
    again = build_training(own, net.data, FromPolicy(policy), accelerate=True)
    again.images.d, again.labels.d = net.images, net.labels
    again.loss.forward()
    losses.append(float(again.loss.d))
    assert losses[0] == losses[1] and net.training.loss is before
    net.apply(net.start, {})
    net.training.loss.forward()
    assert abs(float(net.training.loss.d) - losses[0]) > 1e-3


def test_no_solver_and_no_gradient_has_the_bits(tmp_path, weightfile):
    net = runtime(tmp_path, weightfile)
    moved = search_solvers(experiment(), net.learnable()).groups
    names = {name for group in moved.values() for name in group.solver.get_parameters()}
    assert not [name for name in {*names, *nn.get_parameters()} if name.endswith("/bits")]
    assert {name for name in names if name.endswith("_quantizer/xmax")} == {
        f"{name}_quantizer/xmax" for name in net.widths
    }
    assert "conv1/conv/W" in names and len(net.widths) == 16


def test_the_score_is_the_gradients_norm_and_leaves_everything_as_it_was(tmp_path, weightfile):
    net = runtime(tmp_path, weightfile)
    before = {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}
    found = net.score()
    after = {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert net.score() == found
    # The same by hand.
    net.training.images.d, net.training.labels.d = net.images, net.labels
    net.training.loss.forward()
    for v in nn.get_parameters().values():
        v.g = 0
    net.training.loss.backward()
    assert found == pytest.approx(sum(float(np.sum(np.abs(v.g))) for v in nn.get_parameters().values()), rel=1e-5)
    loss = attrs.evolve(net, settings=attrs.evolve(net.settings, info="loss"))
    assert loss.score() == pytest.approx(float(net.training.loss.d), rel=1e-5)


def test_the_calibration_batch_has_all_classes_alike_the_published_one_is_the_first(tmp_path, weightfile, quantfile):
    net = runtime(tmp_path, weightfile)
    counts = np.bincount(net.labels[:, 0], minlength=10)
    assert net.images.shape == (32, 1, 8, 8) and counts.min() >= 2 and counts.max() <= 5
    data = digits(experiment())
    first = runtime(tmp_path, quantfile, faithful=True, keep=KEEP)
    np.testing.assert_array_equal(first.labels[:, 0], data.train.labels[:32])
    np.testing.assert_allclose(first.images, (data.train.images[:32] - data.offset) / data.scale, rtol=1e-6)


def test_ranges_of_a_float_start_are_those_of_least_error(tmp_path, weightfile):
    net = runtime(tmp_path, weightfile)
    for name in ("res1/layer1/basicblock1/conv/W", "conv1/conv/relu"):
        for bits in (2, 4):
            found = net.fitted(name, bits, net.inputs())
            quantizer, x = net.sites[name].quantizer, net.inputs().get(name)
            x = np.array(net.sites[name].source.d) if x is None else np.maximum(x, 0)
            error = np.sum((quantizer.grid(found).quantize(x) - x) ** 2)
            for factor in (0.5, 2.0):
                other = {**found, "xmax": np.float32(factor * found["xmax"])}
                assert error <= np.sum((quantizer.grid(other).quantize(x) - x) ** 2)


def test_published_ranges_come_from_training_alone(tmp_path, quantfile):
    net = runtime(tmp_path, quantfile, archtype="quant", keep=KEEP)
    assert all(net.fitted(name, 3, {}) == {} for name in net.widths)
    assert {site.quantizer_name for site in net.sites.values()} == {"dorefa", "pact"}
    clips = [float(site.parameters["xmax"].d) for site in net.sites.values() if "xmax" in site.parameters]
    # They begin at 10 and have learned since.
    assert len(clips) == 7 and all(0 < clip < 10.5 for clip in clips) and len(set(clips)) > 1


def test_without_training_before_the_published_clip_is_ten(tmp_path, weightfile):
    net = runtime(tmp_path, weightfile, faithful=True, keep=KEEP)
    clips = [site.parameters["xmax"].d for site in net.sites.values() if "xmax" in site.parameters]
    np.testing.assert_allclose(clips, 10.0, rtol=1e-5)


def test_a_site_without_any_width_is_named(tmp_path, weightfile):
    with pytest.raises(TrainingError, match="/W: none of its widths is from 2 to k_bits = 4"):
        runtime(tmp_path, weightfile, k_bits=4, weight_widths=(5, 6, 7, 8))


def test_kept_sites_are_not_searched(tmp_path, weightfile):
    net = runtime(tmp_path, weightfile, keep=("conv1/*:6", "fc/*"))
    assert not [name for name in net.widths if name.startswith(("conv1/", "fc/"))]
    bits = net.evaluation.quantized.bit_numbers()
    assert bits["conv1/conv/W"] == bits["conv1/conv/relu"] == 6 and bits["fc/affine/W"] == FLOAT_BITS


def test_all_gradients_together_have_a_norm_of_five_at_most():
    w, u = (nn.parameter.get_parameter_or_create(name, (4,), initializer=np.zeros(4, np.float32)) for name in "wu")
    for factor in (1.0, 100.0):
        solvers = search_solvers(experiment(), {})
        w.g, u.g = np.full(4, 0.5 * factor), np.full(4, -1.5 * factor)
        norm = factor * math.sqrt(4 * 0.25 + 4 * 2.25)
        solvers.update()
        shrunk = min(1.0, LARGEST_NORM / norm)
        np.testing.assert_allclose(w.g, 0.5 * factor * shrunk, rtol=1e-5)
        np.testing.assert_allclose(u.g, -1.5 * factor * shrunk, rtol=1e-5)
    assert LARGEST_NORM == 5.0


def test_the_rate_falls_as_a_cosine_from_the_published_one():
    rates = [cosine_rate(epoch, 30) for epoch in range(30)]
    assert rates[0] == 1e-3 and rates == sorted(rates, reverse=True)
    assert rates[10] == pytest.approx(0.75e-3) and rates[20] == pytest.approx(0.25e-3) and rates[29] > 0


def test_what_ends_in_a_graph_is_not_loaded_twice(tmp_path, weightfile):
    with pytest.raises(TrainingError, match="cannot be read as parameters"):
        runtime(tmp_path, str(tmp_path / "missing.h5"))
