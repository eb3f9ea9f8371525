from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.export.integer import interpret
from nnmpq.export.integer.lower import lower
from nnmpq.export.integer.moves import common_multipliers
from nnmpq.export.integer.program import Concatenate, Convolve, ExportError, Requantiser
from nnmpq.export.integer.saved import as_saved, run
from nnmpq.export.trained import Trained
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed, FromPolicy
from tests.export.networks import KINDS, prepare, quantized, small, trained

SETTINGS = {
    "uniform": {},
    "power of two": {"weight": "pow2_xmin_xmax", "activation": "pow2_xmin_xmax"},
    "8 bits": {"weight_bits": 8, "activation_bits": 8},
    "one step a channel": {"per_channel": True, "weight_bits": 3},
    "2 bits": {"weight": "uniform_b_xmax", "weight_bits": 2, "activation": "uniform_b_xmax", "activation_bits": 2},
    "1 bit": {"build": small, "weight": "sign_mean", "weight_bits": 1},
    "power of two, uniform": {"build": small, "weight": "pow2_b_xmax", "weight_bits": 3, "activation_bits": 6},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_level_is_the_trained_networks(settings: dict) -> None:
    network = trained(**settings)
    program = network.program()
    values = run(program, network.images)
    wanted, logits = network.run()
    assert {tensor.name for tensor in program.sites} == set(wanted)
    alive = 0
    for tensor in program.sites:
        levels = wanted[tensor.name]
        found = (values[tensor.name] * tensor.step).astype(np.float32).reshape(levels.shape)
        np.testing.assert_array_equal(found, levels, err_msg=tensor.name)
        alive += len(np.unique(levels)) > 2
    # A test of tensors that are zero everywhere would say nothing.
    assert alive >= len(wanted) - 1
    numbers = interpret.logits(as_saved(program), values)
    np.testing.assert_allclose(numbers, logits, rtol=0, atol=2.0**-20 * np.abs(logits).max())


@pytest.mark.parametrize(
    ("weight", "bits", "activation"), [("gaussian", 3, "half_wave_gaussian"), ("dorefa", 3, "pact")]
)
def test_steps_that_are_no_powers_of_two_differ_at_ties_alone(weight: str, bits: int, activation: str) -> None:
    network = trained(build=small, weight=weight, weight_bits=bits, activation=activation, keep=("input:8",))
    program = network.program()
    values = run(program, network.images)
    wanted, logits = network.run()
    # One tensor at a time: a level that differs may move others further on.
    first = [tensor for tensor in program.sites if tensor.name in ("input", "a/conv/relu")]
    for tensor in first:
        apart = np.abs(values[tensor.name] - wanted[tensor.name] / np.float64(tensor.step))
        assert np.mean(apart > 0.5) < 1e-3 and apart.max() < 1.5
    numbers = interpret.logits(as_saved(program), values)
    assert np.mean(numbers.argmax(1) == logits.argmax(1)) == 1


def test_concatenated_branches_share_a_step() -> None:
    network = quantized()
    program = lower(network, prepare)
    joined = next(op for op in program.operations if isinstance(op, Concatenate))
    assert len(joined.inputs) == 3
    values = run(program, np.full((1, 3, 12, 12), 77, np.uint8))
    parts = [values[name] * program.tensors[name].step for name in joined.inputs]
    whole = values[joined.output] * program.tensors[joined.output].step
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)


def test_a_mean_and_a_scale_are_folded_into_the_pixels() -> None:
    network = quantized(small)
    program = lower(network, prepare)
    images = np.arange(256, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 12, 12), np.uint8)
    found = run(program, images)["input"] * program.tensors["input"].step
    grid = network.sites["input"].grid()
    np.testing.assert_array_equal(found.astype(np.float32), grid.quantize(prepare(images)))


def test_preparation_inside_the_graph_is_folded_too() -> None:
    nn.clear_parameters()
    x = nn.Variable((2, 1, 6, 6))
    y = F.relu(PF.convolution(F.mul_scalar(F.add_scalar(x, -127.5), 1 / 127.5), 4, (3, 3), name="a"))
    network = quantize(PF.affine(y, 3, name="b"), Fixed(4, 4, kinds=KINDS))
    taken = Trained("prepared", network, network.policy(), lambda p: p.astype(np.float32), _noise(8, (1, 6, 6)))
    program = taken.program()
    wanted, _ = taken.run()
    assert len(np.unique(wanted["input"])) > 5
    found = run(program, taken.images)["input"] * program.tensors["input"].step
    np.testing.assert_array_equal(found, wanted["input"])


def _noise(count: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize(
    ("kinds", "keep", "message"),
    [
        (("relu",), (), r"input: this input is float.*activation_sites = input, relu, .*keep = input:8"),
        (("input", "relu"), (), r"b/conv/branch: this branch is float.*keep = b/conv/branch:8"),
        (("input", "relu", "branch"), (), r"pool: this pool is float"),
        (KINDS, ("a/conv/W",), r"a/conv/W: this weight is float.*keep = a/conv/W:8"),
        (KINDS, ("a/conv/relu:12",), r"a/conv/relu: 12 bits; activations have at most 8"),
        (KINDS, ("a/conv/W:12",), r"a/conv/W: 12 bits; weights of at most 8"),
    ],
)
def test_a_float_site_is_named_with_what_to_set(kinds: tuple, keep: tuple, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        lower(quantized(small, kinds=kinds, keep=keep), prepare)


def _refused(build, message: str) -> None:
    nn.clear_parameters()
    network = quantize(build(nn.Variable((2, 3, 12, 12))), Fixed(4, 4, kinds=(*KINDS, "nonlinearity")))
    with pytest.raises(ExportError, match=message):
        lower(network, prepare)


def test_what_has_no_integer_form_is_refused() -> None:
    def conv(x: nn.Variable, name: str) -> nn.Variable:
        return PF.convolution(x, 4, (3, 3), name=name)

    _refused(lambda x: PF.affine(F.relu(PF.deconvolution(x, 4, (2, 2), name="up")), 2), "up/deconv: a deconvolution")
    _refused(lambda x: F.softmax(PF.affine(F.relu(conv(x, "a")), 2)), "computed by Softmax; a layer's logits")
    _refused(lambda x: F.relu(PF.affine(F.relu(conv(x, "a")), 2)), "clipped")
    _refused(lambda x: PF.affine(F.tanh(conv(x, "a")), 2), "Tanh")
    _refused(
        lambda x: PF.affine(F.relu(PF.batch_normalization(conv(x, "a"), batch_stat=True)), 2), "the batch's statistics"
    )
    _refused(lambda x: PF.affine(F.average_pooling(F.relu(conv(x, "a")), (3, 3), pad=(1, 1), including_pad=False), 2),
             "leaves the padding out")  # fmt: skip


def test_pixels_of_one_value_must_become_one_number() -> None:
    mean_image = np.linspace(0, 1, 144, dtype=np.float32).reshape(1, 1, 12, 12)
    with pytest.raises(ExportError, match="different numbers at different places"):
        lower(quantized(small), lambda images: images / np.float32(255) - mean_image)


def test_weights_are_those_of_the_trained_network() -> None:
    network = quantized(small, weight_bits=3)
    program = lower(network, prepare)
    layer = next(op for op in program.operations if isinstance(op, Convolve) and op.layer == "b/conv")
    site = network.sites["b/conv/W"]
    site.output.forward()
    step = float(site.grid().step)
    np.testing.assert_array_equal(layer.numbers.transpose(0, 3, 1, 2) * step, site.output.d)
    assert layer.bits == site.bit_number() and layer.weights.max() < 2**layer.bits


def test_common_multipliers_of_other_steps_are_close() -> None:
    unit, multiples = common_multipliers([0.3, 0.7], "here")
    assert [m * unit for m in multiples] == pytest.approx([0.3, 0.7], rel=1e-5)
    with pytest.raises(ExportError, match="here: steps .* too far apart"):
        common_multipliers([1.0, 2.0**-30], "here")


def test_requantisers_of_powers_of_two_have_edges_and_values() -> None:
    network = quantized(small, activation="pow2_xmin_xmax")
    made = [op.requantiser for op in lower(network, prepare).operations if isinstance(op, Convolve)]
    powers = [r for r in made if r.values is not None]
    assert powers and all(isinstance(r, Requantiser) for r in powers)
    for r in powers:
        numbers = np.asarray(r.values)
        magnitudes = np.abs(numbers[numbers != 0])
        np.testing.assert_array_equal(magnitudes & (magnitudes - 1), 0)


def test_the_scheme_of_a_policy_goes_through_too() -> None:
    network = quantized(small, weight_bits=4)
    nn.clear_parameters()
    y = small(nn.Variable((4, 3, 12, 12)))
    again = quantize(y, FromPolicy(network.policy()))
    taken = Trained("policy", again, again.policy(), prepare, _noise(8, (3, 12, 12)))
    program = taken.program()
    values, (wanted, _) = run(program, taken.images), taken.run()
    for tensor in program.sites:
        found = (values[tensor.name] * tensor.step).astype(np.float32)
        np.testing.assert_array_equal(found.reshape(wanted[tensor.name].shape), wanted[tensor.name])


def test_sums_between_a_layer_and_its_normalization_are_stored_as_they_are() -> None:
    def preactivated(x: nn.Variable) -> nn.Variable:
        def conv(h: nn.Variable, name: str) -> nn.Variable:
            return PF.convolution(h, 6, (3, 3), pad=(1, 1), with_bias=False, name=name)

        def active(h: nn.Variable, name: str) -> nn.Variable:
            return F.relu(PF.batch_normalization(h, batch_stat=False, name=name))

        # 12 rows, kernel 3, stride 2: the last window hangs over the edge.
        h = F.max_pooling(conv(x, "a"), (3, 3), (2, 2), ignore_border=False)
        h = F.concatenate(h, conv(active(h, "a"), "b"), axis=1)
        h = F.average_pooling(active(h, "b"), (2, 2))
        h = F.concatenate(h, conv(h, "c"), axis=1)
        return PF.affine(active(h, "c"), 4, name="d")

    network = trained(build=preactivated)
    program = network.program()
    values, (wanted, _) = run(program, network.images), network.run()
    assert {"a/conv/sum", "b/conv/sum"} <= set(program.tensors)
    assert not {"a/conv/sum", "b/conv/sum"} & set(wanted)
    for tensor in program.sites:
        found = (values[tensor.name] * tensor.step).astype(np.float32).reshape(wanted[tensor.name].shape)
        np.testing.assert_array_equal(found, wanted[tensor.name], err_msg=tensor.name)
