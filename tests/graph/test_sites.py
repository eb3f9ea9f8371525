"""Which tensors are sites, in graphs of every shape."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import pytest

from nnmpq.graph.rewrite import RewriteError
from nnmpq.graph.trace import trace
from nnmpq.models import build
from tests.graph.networks import foreign, plain, residual, varied


def image(*shape: int) -> nn.Variable:
    return nn.Variable(shape or (2, 3, 8, 8))


def conv(x: nn.Variable, name: str) -> nn.Variable:
    return PF.convolution(x, 3, (1, 1), name=name)


def names(y) -> list[str]:
    return [site.name for site in trace(y).activations]


@pytest.mark.parametrize("layers", [20, 32])
def test_resnets_have_a_branch_a_block_and_one_pooled_map(layers):
    activations = trace(build("resnet", image(1, 3, 32, 32), 10, num_layers=layers)).activations
    kinds = [site.kind for site in activations]
    blocks = (layers - 2) // 2
    expected = {"input": 1, "relu": 2 * blocks + 1, "branch": blocks, "pool": 1}
    assert {kind: kinds.count(kind) for kind in kinds} == expected
    assert all(site.signed == (site.kind in ("input", "branch")) for site in activations)


@pytest.mark.parametrize("network", [plain, residual, varied])
def test_training_and_evaluation_graphs_have_the_same_names_and_shapes(network):
    assert trace(network(image(), test=False)) == trace(network(image(), test=True))


def test_a_foreign_file_gives_the_same_network(tmp_path):
    here = trace(varied(image(), test=True))
    _, y = foreign(tmp_path)
    assert trace(y) == here
    assert here.layer("gate/conv").inputs == ("up/deconv/relu", "stem/conv/relu")
    assert [(s.name.split("/")[-1], s.signed) for s in here.activations] == [
        ("input", True),
        ("relu", False),
        ("relu", False),
        ("sum", False),
        ("relu", False),
        ("nonlinearity", False),
        ("pool", False),
    ]


@pytest.mark.parametrize(
    ("join", "signed"),
    [
        (lambda a, b: F.add2(a, b), False),
        (lambda a, b: F.add_n(a, b), False),
        (lambda a, b: F.mul2(a, b), False),
        (lambda a, b: F.sub2(a, b), True),
        (lambda a, b: F.add2(a, F.tanh(b)), True),
        (lambda a, b: F.add2(a, F.max_pooling(b, (1, 1))), False),
        (lambda a, b: F.add2(a, F.mul_scalar(b, -2.0)), True),
        (lambda a, b: F.add2(a, F.mul_scalar(b, 2.0)), False),
    ],
)
def test_a_sum_is_signed_unless_no_operand_is(join, signed):
    x = image()
    total = join(F.relu(conv(x, "a")), F.relu(conv(x, "b")))
    assert trace(conv(total, "c")).site("b/conv/sum").signed is signed
    assert "sum" not in {site.kind for site in trace(conv(F.relu(total), "c")).activations}


@pytest.mark.parametrize(
    "scaled",
    [
        lambda h: F.add2(h, F.constant(1.0, h.shape)),
        lambda h: F.mul2(h, F.broadcast(nn.parameter.get_parameter_or_create("scale", (1, 1, 1, 1)), h.shape)),
        lambda h: F.sub2(h, nn.Variable((1, 3, 1, 1))),
        lambda h: F.mul_scalar(h, 3.0),
    ],
)
def test_scaling_by_a_parameter_or_constant_joins_nothing(scaled):
    sites = {s.name: s.kind for s in trace(conv(scaled(conv(image(), "a")), "b")).activations}
    assert sites == {"input": "input", "a/conv/linear": "linear"}


@pytest.mark.parametrize(
    "prepared",
    [
        lambda x: x / 127.5 - 1.0,
        lambda x: F.mul_scalar(F.sub2(x, nn.Variable((1, 3, 1, 1))), 0.5),
        lambda x: F.pad(x, (1, 1, 1, 1)),
    ],
)
def test_arithmetic_on_the_input_is_preparation(prepared):
    assert names(conv(F.relu(conv(prepared(image()), "a")), "b")) == ["input", "a/conv/relu"]


def test_two_inputs_have_two_names():
    y = F.add2(conv(image(), "a"), conv(image(), "b"))
    assert names(F.relu(conv(y, "c")))[:2] == ["input", "input_2"]


@pytest.mark.parametrize(
    "clipped", [F.relu6, lambda x: F.minimum_scalar(F.relu(x), 6.0), lambda x: F.clip_by_value(x, 0.0, 6.0)]
)
def test_a_clip_that_starts_at_zero_is_one_relu_site(clipped):
    network = trace(conv(clipped(conv(image(), "a")), "b"))
    found = [(s.name, s.kind, s.signed) for s in network.activations]
    assert found == [("input", "input", True), ("a/conv/relu", "relu", False)]


def test_a_relu_is_a_site_even_where_nothing_that_counts_reads_it():
    assert names(F.log(F.relu(conv(image(), "a")))) == ["input", "a/conv/relu"]


def test_the_output_is_no_site_unless_a_layer_reads_it_too():
    assert names(F.relu(conv(image(), "a"))) == ["input"]
    feature = F.relu(conv(image(), "b"))
    assert names([feature, conv(feature, "c")]) == ["input", "b/conv/relu"]


def test_nonlinearities_and_plain_outputs():
    h = F.leaky_relu(conv(image(), "a"))
    h = conv(F.sigmoid(conv(h, "b")), "c")
    assert {s.name: s.signed for s in trace(conv(h, "d")).activations} == {
        "input": True,
        "a/conv/nonlinearity": True,
        "b/conv/nonlinearity": False,
        "c/conv/linear": True,
    }


def test_constants_beside_activations_are_skipped():
    h = F.relu(conv(image(), "a"))
    layer = trace(conv(F.concatenate(h, F.constant(0.0, h.shape), axis=1), "b")).layer("b/conv")
    assert layer.inputs == ("a/conv/relu",)


def test_parameters_outside_of_the_scope_still_get_names():
    w, v = nn.Variable((3, 4), need_grad=True), nn.Variable((4, 2), need_grad=True)
    w.name = "loaded/W"
    y = F.affine(F.relu(F.affine(image(2, 3), w)), v)
    assert [layer.weight.name for layer in trace(y).layers] == ["loaded/W", "affine_2/W"]
    assert names(y) == ["input", "loaded/relu"]


def test_two_weights_in_one_scope_are_two_layers():
    one = nn.parameter.get_parameter_or_create("cell/W", (3, 3))
    two = nn.parameter.get_parameter_or_create("cell/U", (3, 3))
    network = trace(F.affine(F.relu(F.affine(image(2, 3), one)), two))
    assert [layer.name for layer in network.layers] == ["cell", "cell/U"]


def test_a_weight_computed_from_a_parameter_is_named_after_it():
    y = PF.convolution(image(), 4, (3, 3), name="a", apply_w=lambda w: F.weight_standardization(w, 0))
    assert trace(y).layers[0].weight.name == "a/conv/W"


def test_a_matrix_product_of_two_activations_is_no_layer():
    y = F.affine(F.relu(image(2, 3)), F.transpose(F.tanh(image(2, 3)), (1, 0)))
    assert trace(y).layers == ()


def test_a_fused_batch_normalization_is_looked_into():
    a, b = conv(image(), "a"), conv(image(), "b")
    y = conv(PF.fused_batch_normalization(b, a), "c")
    assert {"b/conv/branch", "a/conv/branch", "a/conv/relu"} < set(names(y))


def test_a_fused_convolution_is_refused_by_name():
    y = F.fused_convolution(image(), nn.parameter.get_parameter_or_create("W", (4, 3, 3, 3)))
    with pytest.raises(RewriteError, match="FusedConvolution"):
        trace(y)
