"""Blocks in several precisions: what they share, what they own, and that a sample gets the path it chose."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.dynamic.decide import Decision, greedy, sampled, straight_through, take
from nnmpq.dynamic.energy import PUBLISHED, energy_per_mac
from nnmpq.dynamic.network import DynamicSettings, build_dynamic, drop_unread
from nnmpq.dynamic.paths import at_precision
from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.models import build
from nnmpq.onednn.library import missing
from tests.dynamic.small import COSTS, at_price, choices, network, published_scheme


def test_all_on_the_wide_path_is_the_uniform_network() -> None:
    made = network(decide=at_price(-1e6))
    made.output.forward()
    logits = nn.Variable(made.images.shape)
    logits.d = made.images.d
    # Fresh normalization is the same in every precision: the ordinary pass gives what the wide paths give.
    y = build("preact_resnet", logits, 4, test=True, num_layers=20, width_multiplier=0.25, seed=0)
    keep = ("conv1/conv/W", "fc/*", "res3/block3/conv2/conv/relu")
    uniform = quantize(y, at_precision(published_scheme(keep), 4)).output
    uniform.forward()
    assert (choices(made) == 1).all()
    np.testing.assert_array_equal(made.output.d, uniform.d)


def test_precisions_share_weights_and_own_normalization() -> None:
    made = network()
    drop_unread([made.output])
    names = nn.get_parameters(grad_only=False)
    assert sum(name.endswith("res2/block1/conv1/conv/W") for name in names) == 1
    for bits in (1, 4):
        assert f"precision{bits}/res2/block1/conv1/bn/gamma" in names
    assert "res2/block1/conv1/bn/gamma" not in names
    low, high = made.blocks[3].paths
    assert low.quantized.bit_numbers()["res2/block1/conv1/conv/W"] == 1
    assert high.quantized.bit_numbers()["res2/block1/conv1/conv/W"] == 4
    assert {q.bit_number() for q in high.quantized.sites.values()} == {4}
    assert {q.bit_number() for q in low.quantized.sites.values()} == {1}


def test_training_moves_shared_weights_from_both_paths_and_each_paths_own_normalization() -> None:
    numbers = nn.Variable((6, 1))
    numbers.d = np.linspace(0, 0.99, 6)[:, None]
    made = network(decide=lambda b, x: sampled(x, numbers, 0.02, F.constant(1, (1, 1))), test=False)
    drop_unread([made.output])
    loss = F.sum(F.mul2(made.output, made.output))
    loss.forward()
    for parameter in nn.get_parameters().values():
        parameter.g = 0
    loss.backward()
    for name in ("precision1/res1/block2/conv2/bn/gamma", "precision4/res1/block2/conv2/bn/gamma", "conv1/conv/W"):
        assert np.abs(nn.get_parameters()[name].g).sum() > 0, name
    # Gates read a detached map and act without gradient: nothing teaches them here.
    assert not any(np.abs(v.g).any() for name, v in nn.get_parameters().items() if "/gate/" in name)


def test_the_weight_gradient_is_the_sum_over_precisions() -> None:
    found = []
    for price in (-1e6, 1e6, None):
        which = {-1e6: [[0.0, 1.0]], 1e6: [[1.0, 0.0]], None: [[0.5, 0.5]]}[price]
        weights = nn.Variable.from_numpy_array(np.array(which * 6, np.float32))
        made = network(decide=lambda b, x, w=weights: Decision(w, w, w))
        first = made.blocks[0]
        low, high = (path.on(first.block.entry) for path in first.paths)
        loss = F.sum(take([low, high], Decision(weights, weights, weights)))
        loss.forward()
        w = nn.get_parameters()["res1/block1/conv1/conv/W"]
        w.g = 0
        loss.backward()
        found.append(w.g.copy())
    np.testing.assert_allclose(found[2], (found[0] + found[1]) / 2, atol=1e-4)


@pytest.mark.parametrize("pre_gate", [False, True])
@pytest.mark.parametrize("channels", [0, 3])
def test_gates_have_the_published_form(pre_gate: bool, channels: int) -> None:
    made = network(pre_gate=pre_gate, gate_channel=channels)
    seen = [block.block.entry if pre_gate else block.block.exit for block in made.blocks]
    for block, x in zip(made.blocks, seen):
        width = channels or x.shape[1]
        layers = block.gate.quantized.network.layers
        assert [layer.weight.shape for layer in layers] == [
            *([(channels, x.shape[1], 1, 1)] if channels else []),
            (width, width, 3, 3),
            (width, 2),
        ]
        half = -(-x.shape[2] // 2)
        assert layers[-2].output_shape == (width, half, half)


def test_a_gate_costs_an_eighth_of_its_block_and_counts_in_the_size() -> None:
    nn.clear_parameters()
    y = build("preact_resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20, test=True)
    made = build_dynamic(y, DynamicSettings(published_scheme(), quantize_gate_input=False), at_price(), test=True)
    account = made.account(PUBLISHED)
    # Published: gates of ResNet-20 have 146.5 k parameters and 5.31 M MACs, blocks 267,264 and 40.108 M.
    assert sum(gate.macs for gate in account.gates) == pytest.approx(5.31e6, rel=1e-3)
    assert sum(paths[1].macs for paths in account.paths) == pytest.approx(40.108e6, rel=1e-4)
    # 4 bits throughout, but for the classifier of 16 * 2 weights, which reads a mean that is no grid.
    look, decide = made.blocks[1].gate.quantized.network.layers
    assert account.gates[1].energy == pytest.approx(look.macs + energy_per_mac(PUBLISHED, 4, 32) * decide.macs)
    size = made.size()
    assert size["blocks"] == pytest.approx(267264 * 4 / 8192)
    # Weights at 4 bits; each of the nine gates has two biases that stay float.
    assert size["gates"] == pytest.approx(146.5e3 * 4 / 8192, rel=2e-2)
    assert size["stem_and_tail"] == pytest.approx(1082 * 32 / 8192)
    assert size["total"] == pytest.approx(sum(v for k, v in size.items() if k != "total"))


def test_kept_tensors_of_one_precision_stay_float_there_alone() -> None:
    made = network(keep=("precision1/conv1/conv/relu",))
    low, high = made.blocks[0].paths
    assert low.sites()["precision1/conv1/conv/relu"].bit_number() == 32
    assert high.sites()["precision4/conv1/conv/relu"].bit_number() == 4


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="precision2/conv1.*nearest is 'precision[14]/"):
        network(keep=("precision2/conv1/conv/relu",))


@pytest.mark.parametrize("precisions", [(4,), (4, 1), (1, 1)])
def test_precisions_must_ascend(precisions: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the narrowest first"):
        DynamicSettings(published_scheme(), precisions)


def test_a_one_bit_path_of_uniform_weights_takes_sign_times_mean() -> None:
    scheme = Parametric(weight=SiteSettings("uniform_delta_xmax"), activation=SiteSettings("uniform_delta_xmax"))
    one, four = at_precision(scheme, 1), at_precision(scheme, 4)
    assert one.weight_settings is not None and one.weight_settings.quantizer == "sign_mean"
    assert four.weight_settings is not None and four.weight_settings.quantizer == "uniform_b_xmax"
    assert at_precision(scheme, 32).weight_settings is None


def test_three_precisions_are_chosen_from() -> None:
    numbers = nn.Variable((6, 1))
    numbers.d = np.array([[0.1], [0.2], [0.4], [0.5], [0.7], [0.9]])
    made = network(precisions=(1, 2, 4), decide=lambda b, x: sampled(x, numbers, 0.02, F.constant(1, (1, 1))))
    np.testing.assert_array_equal(choices(made), np.repeat([[0], [0], [1], [1], [2], [2]], 9, axis=1))


def test_straight_through_gives_the_gate_the_gradient_of_its_probability() -> None:
    rng = np.random.RandomState(0)
    logits = nn.Variable((4, 2), need_grad=True)
    logits.d = rng.randn(4, 2)
    paths = [nn.Variable.from_numpy_array(rng.randn(4, 3, 2, 2).astype(np.float32)) for _ in range(2)]
    zero = F.constant(0, (1, 1))
    decision = straight_through(logits, COSTS, zero, nn.Variable((4, 1)), zero)
    y = take(paths, decision)
    slope = rng.randn(4, 3, 2, 2).astype(np.float32)
    loss = F.sum(F.mul2(y, nn.Variable.from_numpy_array(slope)))
    loss.forward()
    wide = logits.d[:, 1] > logits.d[:, 0]
    np.testing.assert_array_equal(y.d, np.where(wide[:, None, None, None], paths[1].d, paths[0].d))
    logits.g = 0
    loss.backward()
    p = 1 / (1 + np.exp(logits.d[:, 0] - logits.d[:, 1]))
    difference = (slope * (paths[1].d - paths[0].d)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(logits.g[:, 1], difference * p * (1 - p), rtol=1e-4, atol=1e-6)


def test_ties_take_the_narrow_path_and_a_price_moves_the_border() -> None:
    x = nn.Variable.from_numpy_array(np.array([[0.0, 0.0], [0.0, 0.9], [0.0, 1.1]], np.float32))
    for price, expected in ((0.0, [0, 1, 1]), (1.0, [0, 0, 1]), (-1.0, [1, 1, 1])):
        decision = greedy(x, COSTS, F.constant(price, (1, 1)))
        decision.chosen.forward()
        assert decision.chosen.d.argmax(axis=1).tolist() == expected


def test_draws_follow_the_probabilities_and_the_floor() -> None:
    count = 20000
    x = nn.Variable.from_numpy_array(np.tile(np.array([[50.0, 0.0]], np.float32), (count, 1)))
    numbers = nn.Variable.from_numpy_array(np.random.RandomState(0).rand(count, 1).astype(np.float32))
    decision = sampled(x, numbers, 0.02, F.constant(0, (1, 1)))
    F.sink(decision.chosen, decision.probabilities).forward()
    assert decision.chosen.d[:, 1].mean() == pytest.approx(0.02, abs=0.004)
    np.testing.assert_allclose(decision.probabilities.d[0], [0.98, 0.02], atol=1e-6)
    lot = sampled(x, numbers, 0.02, F.constant(1, (1, 1)))
    lot.chosen.forward()
    assert lot.chosen.d[:, 1].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.skipif(bool(missing()), reason="oneDNN is not installed")
def test_accelerated_it_computes_the_same() -> None:
    made = network()
    made.output.persistent = True
    made.output.forward()
    fast = accelerate([made.output]).outputs[0]
    fast.forward()
    np.testing.assert_allclose(fast.d, made.output.d, atol=1e-4)
