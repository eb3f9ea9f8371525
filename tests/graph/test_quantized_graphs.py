"""Quantized graphs: what is shared, replaced and kept."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.graph.functions import functions_of
from nnmpq.graph.network import ACTIVATION_KINDS
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed, Float, FromPolicy, Parametric, SiteSettings
from tests.graph.networks import foreign, plain, residual, varied

PARAMETRIZATIONS = [f"uniform_{x}" for x in ("b_xmax", "delta_xmax", "delta_b")]
PARAMETRIZATIONS += [f"pow2_{x}" for x in ("b_xmax", "b_xmin", "xmin_xmax")]


def image(*shape: int) -> nn.Variable:
    x = nn.Variable(shape or (2, 3, 8, 8))
    x.d = np.random.RandomState(0).randn(*x.shape).astype(np.float32)
    return x


def everything(name: str = "uniform_delta_xmax", **options) -> Parametric:
    settings = SiteSettings(name)
    return Parametric(weight=settings, activation=settings, kinds=ACTIVATION_KINDS, **options)


@pytest.mark.parametrize("network", [plain, residual, varied])
def test_the_float_scheme_gives_the_same_numbers_and_gradients(network):
    x = image()
    x.need_grad = True
    y = network(x, test=True)
    quantized = quantize(y, Float(kinds=ACTIVATION_KINDS))
    leaves = {"x": x, **nn.get_parameters()}
    found = []
    for output in (y, quantized.output):
        for variable in leaves.values():
            variable.grad.zero()
        output.forward()
        output.backward(np.random.RandomState(1).randn(*output.shape).astype(np.float32))
        found.append({"y": np.array(output.d), **{name: np.array(v.g) for name, v in leaves.items()}})
    assert len(found[0]) > 5
    for name, expected in found[0].items():
        np.testing.assert_array_equal(found[1][name], expected, err_msg=name)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_a_foreign_file_is_quantized(name, tmp_path):
    x, y = foreign(tmp_path)
    x.d = image().d
    quantized = quantize(y, everything(name))
    assert list(quantized.sites) == [site.name for site in quantized.network.sites()]
    for site_name, site in quantized.sites.items():
        site.output.forward()
        np.testing.assert_array_equal(site.grid().quantize(site.output.d), site.output.d, err_msg=site_name)
    learned = quantized.parameters()
    for variable in learned.values():
        variable.grad.zero()
    quantized.output.forward()
    quantized.output.backward()
    assert all(np.isfinite(v.g).all() for v in learned.values())
    # The first quantizer of all learns too, though no gradient goes to the image.
    assert any(np.any(v.g != 0) for v in quantized.sites["input"].parameters.values())


@pytest.mark.parametrize("network", [plain, residual, varied])
def test_training_and_evaluation_graphs_share_everything(network):
    training = quantize(network(image(), test=False), everything())
    before = set(nn.get_parameters(grad_only=False))
    evaluation = quantize(network(image(), test=True), everything())
    assert set(nn.get_parameters(grad_only=False)) == before
    assert training.network == evaluation.network
    ours, theirs = training.parameters(), evaluation.parameters()
    assert ours and set(ours) == set(theirs) <= before
    assert all(ours[name].data == theirs[name].data for name in ours)


def test_a_quantizer_replaces_the_relu_but_follows_other_clips():
    y = PF.affine(F.relu6(PF.affine(F.relu(PF.affine(image(2, 3), 8, name="a")), 8, name="b")), 2, name="c")
    quantized = quantize(y, Fixed(None, 8))
    types = [f.info.type_name for f in functions_of([quantized.output])]
    assert "ReLU" not in types and types.count("ReLU6") == 1
    assert {f.info.type_name for f in functions_of([y])} == {"Affine", "ReLU", "ReLU6"}


def test_a_tensor_that_several_functions_read_is_quantized_once():
    quantized = quantize(residual(image()), everything())
    functions = functions_of([quantized.output])
    for site, readers in (("stem/conv/relu", {"Convolution", "Add2"}), ("block1/b/conv/relu", {"Convolution"})):
        tensor = quantized.sites[site].output
        assert readers <= {f.info.type_name for f in functions if tensor in f.inputs}


def test_a_shared_weight_is_quantized_once():
    h = F.relu(PF.affine(image(2, 3), 3, name="same"))
    quantized = quantize(PF.affine(h, 3, name="same"), Fixed(3, 3))
    weights = [f.inputs[1] for f in functions_of([quantized.output]) if f.info.type_name == "Affine"]
    assert len(weights) == 2 and weights[0] == weights[1]


def test_several_outputs():
    h = F.relu(PF.affine(image(2, 3), 4, name="a"))
    y = PF.affine(h, 2, name="b")
    quantized = quantize([h, y], Fixed(3, 3))
    assert len(quantized.outputs) == 2 and quantized.float_outputs == (h, y)
    # What a layer reads is quantized, and handed out as it reads it.
    assert quantized.outputs[0] == quantized.output == quantized.sites["a/affine/relu"].output


@pytest.mark.parametrize("name", ["uniform_delta_xmax", "pow2_b_xmax"])
def test_standard_functions_compute_what_the_fused_ones_do(name):
    y = varied(image(), test=True)
    fused, standard = quantize(y, everything(name)), quantize(y, everything(name), fused=False)
    for quantized in (fused, standard):
        quantized.output.forward()
    np.testing.assert_allclose(standard.output.d, fused.output.d, rtol=1e-5, atol=1e-6)
    types = {f.info.type_name for f in functions_of([standard.output])}
    assert all(hasattr(nn.function_bases.F, name) for name in types)


def test_a_pattern_that_fits_nothing_is_refused_before_anything_is_made():
    y = plain(image())
    before = set(nn.get_parameters(grad_only=False))
    with pytest.raises(ValueError, match=r"frist/\*.*'first/"):
        quantize(y, everything(keep=("frist/*",)))
    assert set(nn.get_parameters(grad_only=False)) == before


def test_bits_are_graph_variables_that_learn():
    quantized = quantize(plain(image()), everything("uniform_b_xmax"))
    total = F.add_n(*quantized.bits().values())
    total.forward()
    assert float(total.d) == sum(quantized.bit_numbers().values()) == 4 * len(quantized.sites)
    for variable in quantized.parameters().values():
        variable.grad.zero()
    total.backward()
    for name, variable in quantized.parameters().items():
        assert float(variable.g) == (1.0 if name.endswith("/bits") else 0.0), name


def test_the_policy_that_a_network_has_come_to_builds_it_again():
    quantized = quantize(varied(image(), test=True), everything(keep=("last/affine/b", "gate/*:6")))
    policy = quantized.policy(name="varied", method="learned", seed=3)
    assert (policy.network, policy.method, policy.seed) == ("varied", "learned", 3)
    assert policy.bits() == quantized.bit_numbers()
    assert policy.sites["last/affine/b"].quantizer == "float"
    assert not policy.sites["stem/conv/relu"].signed and policy.sites["input"].signed
    nn.clear_parameters()
    again = quantize(varied(image(), test=True), FromPolicy(policy))
    assert again.bit_numbers() == quantized.bit_numbers()
    assert not [name for name, v in again.parameters().items() if name.endswith("/bits") and v.need_grad]


def test_quantizers_live_in_the_current_scope():
    with nn.parameter_scope("student"):
        quantized = quantize(plain(image()), everything())
    assert {f"student/{name}" for name in quantized.parameters()} <= set(nn.get_parameters(grad_only=False))


def test_a_fused_batch_normalization_is_quantized_inside():
    a = PF.convolution(image(), 4, (1, 1), with_bias=False, name="a")
    b = PF.convolution(image(), 4, (1, 1), with_bias=False, name="b")
    quantized = quantize(PF.affine(PF.fused_batch_normalization(b, a), 3, name="last"), everything())
    assert {"a/conv/branch", "b/conv/branch", "a/conv/relu"} <= set(quantized.sites)
    assert not [f for f in functions_of([quantized.output]) if f.info.type_name.startswith("Fused")]
