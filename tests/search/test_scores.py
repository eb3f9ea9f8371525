"""Scores against closed forms, on a network of two affine layers; and what holds for all of them."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.budget import Budget
from nnmpq.config.experiment import Experiment
from nnmpq.data import load
from nnmpq.search.scores import SCORES, ScoreGraphs, hutchinson, measure
from nnmpq.search.scores.derivatives import without_depthwise
from nnmpq.search.scores.kl import divergence
from nnmpq.search.scores.learned_step import LEARNING_RATE
from nnmpq.search.scores.ranges import best_grid
from nnmpq.search.table import TableError
from nnmpq.search.task import SearchTask
from tests.search.affine import SITES, Numbers, task


def uniform(x, step, bits, signed):
    """Rounding half away from zero onto the grid, cut off at its ends."""
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    codes = np.sign(x) * np.floor(np.abs(x) / step + 0.5)
    return step * np.clip(codes, -high if signed else 0, high)


def least_error(x, bits, signed):
    """Of all powers of two from 2^-20 to 2^10 as step."""
    steps = 2.0 ** np.arange(-20, 11)
    errors = [np.sum((uniform(x, step, bits, signed) - x) ** 2) for step in steps]
    return steps[int(np.argmin(errors))], min(errors)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_the_best_grid_is_the_best_of_all_powers_of_two(bits, signed):
    x = np.random.default_rng(bits).standard_t(3, size=3000).astype(np.float32) * 0.07
    x = x if signed else np.maximum(x, 0)
    grid = best_grid(x, bits, signed=signed)
    error = np.sum((grid.quantize(x).astype(np.float64) - x) ** 2)
    if signed and bits == 1:
        assert error == pytest.approx(np.sum((np.where(x < 0, -1, 1) * np.mean(np.abs(x)) - x) ** 2), rel=1e-5)
    else:
        step, least = least_error(x.astype(np.float64), bits, signed)
        assert float(grid.step) == step and error == pytest.approx(least, rel=1e-5)


def test_each_channel_has_its_own_best_grid():
    x = np.random.default_rng(0).normal(size=(7, 3, 40)).astype(np.float32) * np.array([0.01, 1, 30])[:, None]
    grid = best_grid(x.astype(np.float32), 4, signed=True, channel_axis=1)
    assert grid.step.tolist() == [least_error(x[:, c].astype(np.float64), 4, True)[0] for c in range(3)]
    expected = np.stack([uniform(x[:, c], grid.step[c], 4, True) for c in range(3)], axis=1)
    np.testing.assert_allclose(grid.quantize(x.astype(np.float32)), expected, rtol=1e-6)


def test_a_tensor_of_zeros_loses_nothing():
    assert best_grid(np.zeros(5, np.float32), 4, signed=True).quantize(np.zeros(5)).tolist() == [0.0] * 5


def test_snr_is_noise_over_signal(monkeypatch, tmp_path):
    graphs = ScoreGraphs.build(problem := task(monkeypatch, tmp_path))
    net, loss = Numbers.of(graphs), SCORES["snr"](problem, graphs)
    for name, x in (("a/affine/W", net.wa), ("b/affine/b", net.bb)):
        for bits in (2, 3, 5):
            assert loss[name][bits] == pytest.approx(least_error(x, bits, True)[1] / np.sum(x**2), rel=1e-5)
    # Of an activation a sample of all images' numbers stands for them.
    h = net.hidden()
    for bits in (2, 4):
        assert loss["a/affine/relu"][bits] == pytest.approx(least_error(h, bits, False)[1] / np.sum(h**2), rel=0.3)


def test_divergence_is_the_sum_of_p_log_p_over_q():
    rng = np.random.default_rng(1)
    y, z = rng.normal(size=(2, 6, 4)) * 3
    p, q = (np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in (y, z))
    assert divergence(y, z) == pytest.approx(np.mean(np.sum(p * np.log(p / q), axis=1)), rel=1e-9)
    assert divergence(y, y + 700.0) == 0.0


def test_kl_quantizes_one_site_at_a_time(monkeypatch, tmp_path):
    graphs = ScoreGraphs.build(problem := task(monkeypatch, tmp_path))
    net, loss = Numbers.of(graphs), SCORES["kl"](problem, graphs)
    y, h = net.logits(), net.hidden()
    for bits in (2, 3, 5):
        weight = uniform(net.wb, least_error(net.wb, bits, True)[0], bits, True)
        assert loss["b/affine/W"][bits] == pytest.approx(divergence(y, h @ weight + net.bb), rel=1e-3, abs=1e-6)
        weight = uniform(net.wa, least_error(net.wa, bits, True)[0], bits, True)
        moved = np.maximum(net.x @ weight + net.ba, 0)
        assert loss["a/affine/W"][bits] == pytest.approx(divergence(y, net.logits(moved)), rel=1e-3, abs=1e-6)
    for bits in (2, 4):
        moved = uniform(h, float(graphs.grid("a/affine/relu", bits).step), bits, False)
        assert loss["a/affine/relu"][bits] == pytest.approx(divergence(y, net.logits(moved)), rel=1e-2, abs=1e-6)


@pytest.mark.parametrize(("name", "term", "factor"), [("gradient", np.abs, 1.0), ("fisher", np.square, 0.5)])
def test_first_order_scores_are_sums_of_gradients_and_errors(monkeypatch, tmp_path, name, term, factor):
    graphs = ScoreGraphs.build(problem := task(monkeypatch, tmp_path, images=13))
    net, loss = Numbers.of(graphs), SCORES[name](problem, graphs)
    assert len(net.x) == 13
    numbers = dict(zip(SITES, (net.wa, net.ba, net.wb, net.bb, net.hidden())))
    for site, g in net.gradients().items():
        for bits in loss[site]:
            step = float(graphs.grid(site, bits).step)
            error = uniform(numbers[site], step, bits, site != "a/affine/relu") - numbers[site]
            expected = factor * np.sum(term(g) * term(error)) / 13
            assert loss[site][bits] == pytest.approx(expected, rel=1e-4, abs=1e-9), (site, bits)


def test_large_activations_are_represented_by_some_elements(monkeypatch, tmp_path):
    """With 2 of 5 elements the sum is scaled up: near the sum over all, and not it."""
    problem = task(monkeypatch, tmp_path, images=200)
    graphs = ScoreGraphs.build(problem)
    whole = SCORES["fisher"](problem, graphs)["a/affine/relu"][2]
    monkeypatch.setattr("nnmpq.search.scores.first_order.ELEMENTS", 2)
    part = SCORES["fisher"](problem, graphs)["a/affine/relu"][2]
    assert part != whole and 0.2 * whole < part < 5 * whole


def test_traces_are_those_of_the_hessian(monkeypatch, tmp_path):
    problem = task(monkeypatch, tmp_path, images=16)
    graphs = ScoreGraphs.build(problem)
    found = hutchinson.traces(problem, graphs, probes=300)
    for site, expected in Numbers.of(graphs).traces().items():
        trace = found[site]
        width = trace.high - trace.low
        assert 0 < width < 0.7 * expected, site
        assert abs(trace.mean - expected) < width, site
        assert trace.low < trace.mean < trace.high and trace.probes == 300


def test_the_interval_holds_the_trace_as_often_as_it_says(monkeypatch, tmp_path):
    """40 seeds: of a 95 % interval 38 are expected, fewer than 32 come once in 2000 times."""
    problem = task(monkeypatch, tmp_path, images=8, keys={"keep": ("a/*",)})
    graphs = ScoreGraphs.build(problem)
    expected = Numbers.of(graphs).traces()["b/affine/W"]
    object.__setattr__(problem, "seed", 0)
    held = 0
    for seed in range(40):
        object.__setattr__(problem, "seed", seed)
        found = hutchinson.traces(problem, graphs, probes=12)["b/affine/W"]
        held += found.low <= expected <= found.high
    assert 32 <= held


def test_hutchinson_is_half_the_trace_times_the_mean_squared_error(monkeypatch, tmp_path):
    rows: list = []
    graphs = ScoreGraphs.build(problem := task(monkeypatch, tmp_path, images=16, report=rows.append))
    loss = SCORES["hutchinson"](problem, graphs)
    net = Numbers.of(graphs)
    trace = hutchinson.traces(problem, graphs)["b/affine/W"].mean
    for bits in (2, 3, 5):
        error = least_error(net.wb, bits, True)[1] / net.wb.size
        assert loss["b/affine/W"][bits] == pytest.approx(0.5 * abs(trace) * error, rel=1e-4)
    lines = (tmp_path / "traces.csv").read_text().splitlines()
    assert lines[0] == "site,mean,low,high,probes" and len(lines) == 1 + len(SITES)
    # 16 images for the ranges, then a batch of 8 for weights, biases and activations each.
    assert [row["images"] for row in rows[:64]] == [16 + 24 * (i + 1) for i in range(64)]


def test_one_probe_has_no_interval(monkeypatch, tmp_path):
    problem = task(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match="probes = 1"):
        hutchinson.traces(problem, ScoreGraphs.build(problem), probes=1)


def test_the_first_learned_step_follows_the_published_gradient(monkeypatch, tmp_path):
    """One update of the only quantized site: dL/ds = sum g (Q - w) / s inside, +-Q_b outside, over sqrt(N Q_b)."""
    keys = {"keep": ("a/*", "b/affine/b")}
    problem = task(monkeypatch, tmp_path, images=8, keys=keys, steps=1, weight_widths=(3,))
    graphs = ScoreGraphs.build(problem)
    assert list(graphs.widths) == ["b/affine/W"]
    found = SCORES["learned_step"](problem, graphs)["b/affine/W"][3]
    net = Numbers.of(graphs)
    step, high = least_error(net.wb, 3, True)[0], 3
    quantized = uniform(net.wb, step, 3, True)
    y = net.hidden() @ quantized + net.bb
    p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    g = net.hidden().T @ (p - net.t) / len(net.x)
    outside = np.abs(net.wb) > high * step
    slope = np.sum(g * np.where(outside, np.sign(net.wb) * high, (quantized - net.wb) / step))
    scaled = np.clip(slope / np.sqrt(net.wb.size * high), -step, step)
    assert found != step
    assert found == pytest.approx(step - LEARNING_RATE * scaled, rel=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_every_score(monkeypatch, tmp_path, name):
    """It has every site and width, twice the same, falls with the bits, and leaves the parameters alone."""
    problem = task(monkeypatch, tmp_path, score=name, steps=5, weight_widths=(1, 2, 4, 8), activation_widths=(1, 4, 8))
    before = {key: np.array(v.d) for key, v in nn.get_parameters(grad_only=False).items()}
    table = measure(problem)
    after = nn.get_parameters(grad_only=False)
    assert before.keys() == after.keys()
    assert [key for key in before if not np.array_equal(before[key], after[key].d)] == []
    assert set(table.loss) == set(SITES) and table.score == name and table.images == 24
    assert list(table.loss["a/affine/W"]) == [1, 2, 4, 8] and list(table.loss["a/affine/b"]) == [2, 4, 8]
    assert list(table.loss["a/affine/relu"]) == [1, 4, 8]
    assert measure(problem).loss == table.loss
    for site, loss in table.loss.items():
        assert loss[8] < loss[4] and loss[8] < loss[min(loss)], site


def test_an_unknown_score_names_the_nearest(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="score = fischer: the nearest is 'fisher'"):
        measure(task(monkeypatch, tmp_path, score="fischer"))


def test_a_weight_that_is_not_finite_is_named(monkeypatch, tmp_path):
    problem = task(monkeypatch, tmp_path)
    weight = nn.get_parameters()["b/affine/W"]
    numbers = np.array(weight.d)
    numbers[0, 0] = np.nan
    weight.d = numbers
    with pytest.raises(TableError, match=r"b/affine/W: 1 of 50 numbers are not finite"):
        measure(problem)


def test_images_are_drawn_with_the_classes_in_equal_shares(monkeypatch, tmp_path):
    graphs = ScoreGraphs.build(task(monkeypatch, tmp_path, images=100))
    labels = np.concatenate([labels[:valid, 0] for _, labels, valid in graphs.batches])
    counts = np.bincount(labels, minlength=10)
    assert graphs.images == 100 == len(labels) and counts.min() >= 9 and counts.max() <= 11


def test_quantizing_is_undone_even_after_an_error(monkeypatch, tmp_path):
    graphs = ScoreGraphs.build(task(monkeypatch, tmp_path))
    reference = graphs.logits()
    with pytest.raises(RuntimeError), graphs.quantized({"b/affine/W": 2, "a/affine/relu": 2}):
        assert not np.allclose(graphs.logits(), reference, atol=1e-3)
        raise RuntimeError
    np.testing.assert_array_equal(graphs.logits(), reference)
    np.testing.assert_allclose(reference, Numbers.of(graphs).logits(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", SCORES)
def test_every_score_of_a_network_with_normalization_and_shortcuts(tmp_path, name):
    experiment = Experiment(
        "X", arch="resnet_digits", dataset="digits", batch_size=8, activation_sites=("relu", "input")
    )
    options = {"score": name, "score_images": 12, "steps": 3, "weight_widths": (2, 8), "activation_widths": (2, 8)}
    problem = SearchTask(experiment, load("digits", validation_images=200), Budget(), tmp_path, **options)
    loss = measure(problem).loss
    assert len(loss) == 8 + 1 + 7 + 1 and "input" in loss and "fc/affine/b" in loss
    assert all(own[8] < own[2] for own in loss.values())


def test_depthwise_convolutions_have_second_derivatives_as_grouped_ones():
    rng = np.random.default_rng(0)
    x, w = (nn.Variable.from_numpy_array(rng.normal(size=shape)) for shape in ((2, 3, 6, 6), (3, 3, 3)))
    b = nn.Variable.from_numpy_array(rng.normal(size=3))
    for v in (x, w, b):
        v.need_grad = True
    y = F.depthwise_convolution(x, w, b, pad=(1, 0), stride=(2, 1))
    (z,) = without_depthwise([F.sum(F.sin(y))])
    plain, gradients = F.sum(F.sin(y)), []
    for v in (z, plain):
        w.g = 0
        v.forward()
        v.backward()
        gradients.append(np.array(w.g))
    assert float(z.d) == pytest.approx(float(plain.d), rel=1e-5)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-4)
    # The second derivative along u against a difference of the gradients.
    (g,) = nn.grad([z], [w])
    u = rng.normal(size=w.shape).astype(np.float32)
    along = F.sum(F.mul2(g, nn.Variable.from_numpy_array(u)))
    w.g = 0
    along.forward()
    along.backward()
    found, start, ends = np.array(w.g), np.array(w.d), []
    for sign in (1, -1):
        w.d = start + sign * 1e-2 * u
        w.g = 0
        plain.forward()
        plain.backward()
        ends.append(np.array(w.g))
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-2, rtol=2e-2, atol=2e-2)
