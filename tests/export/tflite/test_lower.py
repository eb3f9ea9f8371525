from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.export.integer.lower import lower as lower_integer
from nnmpq.export.integer.program import ExportError, Tensor
from nnmpq.export.integer.saved import run as run_program
from nnmpq.export.tflite import graph as ops
from nnmpq.export.tflite.graph import Graph
from nnmpq.export.tflite.layers import logits_tensor
from nnmpq.export.tflite.lower import lower
from nnmpq.export.tflite.simulate import run
from nnmpq.export.tflite.state import container_bits, place_of, quantized
from tests.export.networks import normalised, pixels, prepare
from tests.export.networks import quantized as network


def graph_of(build, **settings) -> tuple[Graph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The graph, and the numbers of the program and of the graph on images."""
    program = lower_integer(network(build, **settings), prepare)
    images = pixels(8)
    wanted = run_program(program, images)
    made = lower(program, logits_tensor(program.tensors[program.output], -8.0, 8.0))
    found = {name: made.numbers(name, stored) for name, stored in run(made, images).items()}
    return made, wanted, found


def kinds(made: Graph) -> list[str]:
    return [type(operation).__name__ for operation in made.operations]


def stem(x: nn.Variable, channels: int = 4) -> nn.Variable:
    return F.relu(PF.convolution(x, channels, (3, 3), pad=(1, 1), name="stem"))


def test_sums_and_differences_are_exact() -> None:
    for join, subtract in ((F.add2, False), (F.sub2, True)):

        def build(x: nn.Variable, join=join) -> nn.Variable:
            a = stem(x)
            b = F.relu(PF.convolution(a, 4, (1, 1), name="b"))
            return PF.affine(F.relu(join(a, b)), 3, name="head")

        made, wanted, found = graph_of(build, weight_bits=2)
        added = next(op for op in made.operations if isinstance(op, ops.Add))
        assert added.subtract is subtract and added.relu
        left, right = (found[name] for name in added.inputs)
        steps = [made.tensors[name].scale for name in (*added.inputs, added.output)]
        total = (left * steps[0] + (-1 if subtract else 1) * right * steps[1]) / steps[2]
        # Halves away from zero, as trained.
        highest = 127 - made.tensors[added.output].zero
        np.testing.assert_array_equal(found[added.output], np.clip(np.floor(total + 0.5), 0, highest))


def test_pooling_subsampling_and_padding_only_move_numbers() -> None:
    def build(x: nn.Variable) -> nn.Variable:
        h = stem(x)
        h = F.max_pooling(h, (3, 3), (2, 2), pad=(1, 1), ignore_border=False)
        h = F.pad(F.average_pooling(h, (1, 1), (2, 2)), (1, 2, 0, 0, 0, 0))
        return PF.affine(h, 3, name="head")

    made, wanted, found = graph_of(build)
    assert kinds(made)[-5:-1] == ["Pad", "MaxPool", "MaxPool", "Pad"]
    source = found["stem/conv/relu"]
    stretched = np.pad(source, [(0, 0), (0, 0), (1, 2), (1, 2)], constant_values=-1)
    pooled = np.lib.stride_tricks.sliding_window_view(stretched, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((4, 5))  # type: ignore[call-overload]
    last = made.operations[-1].input
    np.testing.assert_array_equal(found[last], np.pad(pooled[:, :, ::2, ::2], [(0, 0), (1, 2), (0, 0), (0, 0)]))
    assert set(wanted["stem/conv/relu"].ravel()) > {0, 1, 2}


@pytest.mark.parametrize(("window", "kind"), [((12, 12), "Convolution"), ((3, 3), "Convolution")])
def test_average_pooling_is_exact_where_ones_are_small(window: tuple[int, int], kind: str) -> None:
    def build(x: nn.Variable) -> nn.Variable:
        return PF.affine(F.average_pooling(stem(x), window), 3, name="head")

    made, wanted, found = graph_of(build, weight_bits=2)
    pool = next(op for op in made.operations if op.output == "stem/conv/pool")
    assert type(pool).__name__ == kind and not pool.counted
    sums = F.average_pooling(nn.Variable.from_numpy_array(found["stem/conv/relu"].astype(np.float32)), window)
    sums.forward()
    scale = made.tensors["stem/conv/relu"].scale / made.tensors["stem/conv/pool"].scale
    rounded = np.floor(sums.d * scale + 0.5)
    assert np.mean(found["stem/conv/pool"] != np.clip(rounded, 0, 15)) < 0.01


def test_large_maps_are_averaged_by_mean() -> None:
    def build(x: nn.Variable) -> nn.Variable:
        return PF.affine(F.global_average_pooling(stem(x, 48)), 3, name="head")

    made, wanted, found = graph_of(build)
    assert kinds(made)[-2:] == ["Mean", "Convolution"]
    exact = found["stem/conv/relu"].mean((2, 3), keepdims=True) * (
        made.tensors["stem/conv/relu"].scale / made.tensors["stem/conv/pool"].scale
    )
    assert np.abs(found["stem/conv/pool"] - np.clip(exact, 0, 15)).max() <= 0.52


def test_signed_levels_end_at_their_lowest() -> None:
    def build(x: nn.Variable) -> nn.Variable:
        h = stem(x)
        return PF.affine(
            F.relu(F.add2(h, normalised(PF.convolution(h, 4, (1, 1), name="b"), "b") * 6.0)), 3, name="head"
        )

    made, wanted, found = graph_of(build)
    branch = made.tensors["b/conv/branch"]
    clip = next(op for op in made.operations if isinstance(op, ops.Maximum) and op.output == branch.name)
    assert branch.zero == 127 - 7 and clip.value == branch.zero - 7
    assert found[clip.input].min() < -7 == found[branch.name].min()


def test_what_has_no_form_is_refused_by_name() -> None:
    def three(x: nn.Variable) -> nn.Variable:
        h = stem(x)
        return PF.affine(F.relu(F.add_n(h, h, h)), 3, name="head")

    def scaled(x: nn.Variable) -> nn.Variable:
        h = stem(x)
        return PF.affine(F.relu(normalised(F.add2(h, h), "after")), 3, name="head")

    def raw(x: nn.Variable) -> nn.Variable:
        h = F.max_pooling(PF.convolution(stem(x), 4, (1, 1), with_bias=False, name="b"), (2, 2))
        return PF.affine(F.relu(normalised(h, "after")), 3, name="head")

    with pytest.raises(ExportError, match=r"a sum of 3 with nothing behind it has no form there; export --to c99"):
        graph_of(three)
    with pytest.raises(ExportError, match=r"a sum of 2 with a scale or a batch normalization behind it"):
        graph_of(scaled)
    with pytest.raises(ExportError, match=r"b/conv/sum: sums of 32 bits have no place"):
        graph_of(raw)
    with pytest.raises(ExportError, match=r"activations that are powers of two have no form"):
        graph_of(lambda x: PF.affine(stem(x), 3, name="head"), activation="pow2_xmin_xmax")
    with pytest.raises(ExportError, match=r"stem/conv: weights from -128 to 128 steps do not fit in INT8"):
        graph_of(lambda x: PF.affine(stem(x), 3, name="head"), weight="pow2_xmin_xmax")


def test_grids_that_int8_does_not_hold_are_refused() -> None:
    for low, high in ((0, 256), (-128, 128), (-300, -20)):
        with pytest.raises(ExportError, match=rf"t: numbers from {low} to {high} do not fit in INT8"):
            quantized(Tensor("t", (1, 1, 1), low, high, 1.0, 8, True))
    assert quantized(Tensor("t", (1, 1, 1), 0, 255, 1.0, 8, True)).zero == -128
    weights = np.array([-128, 5]).reshape(2, 1, 1, 1)
    assert container_bits(weights, 1, np.array([1, -1]), "w") == 8
    with pytest.raises(ExportError, match=r"w: weights from -5 to 128 steps do not fit in INT8"):
        container_bits(-weights, 1, np.array([1, 1]), "w")


@pytest.mark.parametrize("length", range(5, 12))
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pad"), [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 2), (5, 3, 1, 0)]
)
def test_windows_begin_where_they_began(length: int, kernel: int, stride: int, dilation: int, pad: int) -> None:
    reach = dilation * (kernel - 1) + 1
    written = (length + 2 * pad - reach) // stride + 1
    sizes = ((length, length), (written, written))
    place, widths = place_of((kernel,) * 2, (stride,) * 2, (dilation,) * 2, (pad,) * 2, sizes)
    padded = length + sum(widths[0])
    if place.same:
        # The format's rule: as many windows as strides fit, what is missing split, the smaller half before.
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        assert -(-length // stride) == written and total // 2 == pad and widths == ((0, 0), (0, 0))
    else:
        assert (padded - reach) // stride + 1 == written and widths[0][0] == pad
