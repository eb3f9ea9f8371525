"""Whole networks against plain nnabla: outputs, all gradients, running statistics."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.functions import functions_of
from nnmpq.graph.rewrite import rewrite
from nnmpq.models.resnet import resnet
from nnmpq.onednn.convolution import convolution_plan
from nnmpq.quantizers.uniform_core import fused
from tests.graph.accelerate.comparing import differences, one_step
from tests.graph.accelerate.conditioning import compare_networks, scattered, settle, total_of
from tests.graph.accelerate.networks import NETWORKS, preactivated, transposed

SLOW = {"Convolution", "BatchNormalization", "ReLU", "ReLU6", "Add2", "MaxPooling", "Concatenate", "Affine"}


def image(batch: int = 4, size: int = 12) -> nn.Variable:
    return nn.Variable((batch, 3, size, size), need_grad=True)


def left_plain(outputs) -> set[str]:
    """Type names of functions of nnabla's own that the pass should have replaced; its own share some names."""
    return {f.info.type_name for f in functions_of(outputs) if f.info.type_name in SLOW and f.info.args}


@pytest.mark.parametrize("test", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, test):
    x = image()
    y = NETWORKS[name](x, test)
    scattered()
    fast = compare_networks(x, [y])
    names = [f.info.type_name for f in functions_of(fast.outputs[1:])]
    assert "Normalise" in names and not {"BatchNormalization", "ReLU", "ReLU6", "MaxPooling"} & set(names)
    # One border in, and none out: what the classes read is one pixel or a row.
    assert names.count("ChannelsLast") == 1 and names.count("ChannelsFirst") <= 1


@pytest.mark.parametrize("shortcut", ["", "b", "c"])
def test_resnet_20(shortcut):
    x = image(4, 16)
    y = resnet(x, 10, blocks=3, shortcut_type=shortcut, rng=np.random.RandomState(1))
    scattered()
    compare_networks(x, [y], conditioned=False)


def test_resnet_20_with_smooth_nonlinearities():
    """All layers and gradients at once, without a single edge."""
    x = image(4, 16)
    y = resnet(x, 10, blocks=3, rng=np.random.RandomState(1))
    (smooth,), _ = rewrite([y], lambda f, v: [F.softplus(*v)] if f.info.type_name == "ReLU" else None)
    scattered()
    fast = compare_networks(x, [smooth], conditioned=False)
    names = [f.info.type_name for f in functions_of(fast.outputs[1:])]
    assert names.count("Convolution") == 19 and names.count("SoftPlus") == 19 and names.count("Normalise") == 19


def test_several_outputs():
    x = image(2, 8)
    outputs = transposed(x)
    scattered()
    fast = compare_networks(x, outputs)
    assert [y.shape for y in fast.outputs[1:]] == [(2, 5), (2, 3, 8, 8)]


STEPS = {2: 0.25, 4: 0.0625}


def two_paths(x: nn.Variable) -> nn.Variable:
    """Two paths read one weight at 2 and at 4 bits, each with a normalization of its own."""
    h = F.relu(PF.batch_normalization(PF.convolution(x, 8, (3, 3), pad=(1, 1), with_bias=False, name="stem")))
    w = nn.parameter.get_parameter_or_create("shared/W", (8, 8, 3, 3), np.random.randn(8, 8, 3, 3) * 0.2)
    paths = []
    for bits, step in STEPS.items():
        xmax = step * (2 ** (bits - 1) - 1)
        own_step, own_xmax = (
            nn.parameter.get_parameter_or_create(f"{key}{bits}", (), np.array(value))
            for key, value in (("step", step), ("xmax", xmax))
        )
        z = F.convolution(h, fused(w, own_step, own_xmax, True, None), pad=(1, 1))
        paths.append(PF.batch_normalization(z, name=f"path{bits}"))
    gate = nn.parameter.get_parameter_or_create("gate", (1, 1, 1, 1), np.full((1, 1, 1, 1), 0.3))
    y = F.relu(F.add2(F.mul2(paths[0], gate), paths[1]))
    return PF.affine(F.global_average_pooling(y), 4)


def test_two_precisions_of_one_weight():
    x = image(2, 8)
    y = two_paths(x)
    # Numbers at which nnabla's variance, mean(z^2) - mean(z)^2, keeps digits enough for the comparison.
    scattered(10)
    for f in functions_of([y]):
        if f.info.type_name == "UniformQuantizerCore":
            # A normalization cancels a weight's scale, and most of this gradient; the next test has it in float64.
            f.inputs[1].need_grad = False
    compare_networks(x, [y])


def test_step_gradients_of_a_shared_weight_against_float64():
    """Straight through the rounding: d loss / d step is the derivative along (Q(w) - clip(w)) / step."""
    x = image(4, 12)
    loss, seen = total_of([two_paths(x)])
    scattered()
    leaves = {"input": x, **nn.get_parameters(grad_only=False)}
    settle(x, loss, seen, leaves)
    p = {name: v.d.astype(np.float64) for name, v in leaves.items()}

    def convolved(h, w):
        padded = np.pad(h, ((0, 0), (0, 0), (1, 1), (1, 1)))
        rows, columns = h.shape[2:]
        taps = ((i, j, padded[:, :, i : i + rows, j : j + columns]) for i in range(3) for j in range(3))
        return sum(np.einsum("nchw,oc->nohw", seen, w[:, :, i, j]) for i, j, seen in taps)

    def normalised(z, name):
        centred = z - z.mean((0, 2, 3), keepdims=True)
        scale = p[f"{name}gamma"] / np.sqrt(z.var((0, 2, 3), keepdims=True) + 1e-5)
        return centred * scale + p[f"{name}beta"]

    def float64_loss(move):
        h = np.maximum(normalised(convolved(p["input"], p["stem/conv/W"]), "bn/"), 0)
        paths = []
        for bits, step in STEPS.items():
            xmax = step * (2 ** (bits - 1) - 1)
            clipped = np.clip(p["shared/W"], -xmax, xmax)
            rounded = np.sign(clipped) * np.floor(np.abs(clipped) / step + 0.5) * step
            w = rounded + move.get(bits, 0.0) * (rounded - clipped) / step
            paths.append(normalised(convolved(h, w), f"path{bits}/bn/"))
        y = np.maximum(paths[0] * p["gate"] + paths[1], 0).mean((2, 3)) @ p["affine/W"] + p["affine/b"]
        return np.sum(y * np.random.RandomState(99).randn(4, 4).astype(np.float32)) + 1e-3 * np.sum(y)

    found = one_step(accelerate([loss, *seen]).outputs[0], [], leaves)
    for bits in STEPS:
        expected = (float64_loss({bits: 1e-6}) - float64_loss({bits: -1e-6})) / 2e-6
        assert float(found[f"gradient of step{bits}"]) == pytest.approx(expected, rel=1e-5)


def test_a_mixture_of_widths():
    """Candidates of a weight, flattened and added up by one product with their shares."""
    x = image(2, 8)
    h = F.relu(PF.batch_normalization(PF.convolution(x, 8, (3, 3), pad=(1, 1), with_bias=False, name="stem")))
    w = nn.parameter.get_parameter_or_create("W", (8, 8, 3, 3), np.random.randn(8, 8, 3, 3) * 0.2)
    alpha = nn.parameter.get_parameter_or_create("alpha", (1, 3), np.array([[0.1, -0.3, 0.2]]))
    candidates = []
    for bits in (1, 2, 3):
        step = nn.Variable.from_numpy_array(np.float32(0.4 / 2**bits))
        xmax = nn.Variable.from_numpy_array(np.float32(0.4 / 2**bits * (2**bits - 1)))
        candidates.append(F.reshape(fused(w, step, xmax, True, None), (1, w.size), inplace=False))
    mixed = F.affine(F.softmax(alpha, axis=1), F.concatenate(*candidates, axis=0))
    z = F.convolution(h, F.reshape(mixed, w.shape), pad=(1, 1))
    y = PF.affine(F.relu(PF.batch_normalization(z, name="mixed")), 4)
    scattered()
    fast = compare_networks(x, [y])
    assert sum(f.info.type_name == "Affine" for f in functions_of(fast.outputs[1:])) == 2


def test_gradients_accumulate_over_steps():
    x = image(2, 8)
    loss, seen = total_of([preactivated(x)])
    scattered()
    leaves = nn.get_parameters()
    fast = accelerate([loss, *seen]).outputs[0]
    found = []
    for each in (loss, fast):
        start = {name: v.d.copy() for name, v in nn.get_parameters(grad_only=False).items()}
        for v in (x, *leaves.values()):
            v.grad.zero()
        for seed in (0, 1):
            x.d = np.random.RandomState(seed).randn(*x.shape)
            each.forward(clear_no_need_grad=True)
            each.backward(clear_buffer=True)
        found.append({name: v.g.copy() for name, v in leaves.items()})
        for name, v in nn.get_parameters(grad_only=False).items():
            v.d = start[name]
    assert differences(*found) == []
    single = one_step(fast, [], dict(leaves))
    assert differences(found[0], {name: single[f"gradient of {name}"] for name in leaves}), "the sum is no last one"


def test_only_wanted_gradients_are_computed():
    """What needs no gradient keeps whatever lies in its gradient."""
    x = nn.Variable((2, 3, 8, 8))
    loss, seen = total_of([preactivated(x)])
    still = next(f for f in functions_of([loss]) if f.info.type_name == "Convolution").inputs[1]
    still.need_grad = False
    (fast, *_) = accelerate([loss, *seen]).outputs
    x.d = np.random.RandomState(0).randn(*x.shape)
    still.g, x.g = 7.0, 7.0
    fast.forward(clear_no_need_grad=True)
    fast.backward(clear_buffer=True)
    assert np.all(still.g == 7.0) and np.all(x.g == 7.0)
    moved = nn.get_parameters()["block1/first/conv/W"]
    assert np.any(moved.g)


def test_training_and_evaluation_graphs_share_parameters():
    x = image(4, 8)
    training, seen = total_of([preactivated(x)])
    evaluation = preactivated(x, test=True)
    scattered()
    step = accelerate([training, *seen]).outputs[0]
    fast = accelerate([evaluation])
    x.d = np.random.RandomState(0).randn(*x.shape)
    before = None
    for _ in range(2):
        step.forward(clear_no_need_grad=True)
        step.backward(clear_buffer=True)
        for v in nn.get_parameters().values():
            v.d = v.d - 1e-3 * v.g
        evaluation.persistent = True
        evaluation.forward(clear_buffer=True)
        with fast.clock.stopped():
            fast.outputs[0].forward(clear_buffer=True)
        assert np.abs(fast.outputs[0].d - evaluation.d).max() <= 1e-5 * np.abs(evaluation.d).max()
        assert before is None or np.abs(fast.outputs[0].d - before).max() > 1e-3
        before = fast.outputs[0].d.copy()


def test_another_batch_size_and_back_uses_what_was_made():
    def check(batch: int) -> int:
        x = image(batch, 8)
        compare_networks(x, [preactivated(x)])
        return convolution_plan.cache_info().misses

    preactivated(image(2, 8))
    scattered()
    first, second = check(4), check(3)
    assert second > first
    assert check(4) == second and check(3) == second


def test_a_graph_follows_its_input_to_another_batch_size():
    """Variables of a built graph may be reshaped; nnabla then sets every function up again."""
    x = image(4, 8)
    y = preactivated(x, test=True)
    scattered()
    (fast,) = accelerate([y]).outputs
    for batch in (4, 2, 4):
        for each in (y, fast):
            x.reset_shape((batch, 3, 8, 8), True)
            x.d = np.random.RandomState(batch).randn(*x.shape)
            each.persistent = True
            each.forward()
        assert fast.shape == y.shape == (batch, 5)
        assert np.abs(fast.d - y.d).max() <= 1e-5 * np.abs(y.d).max()
