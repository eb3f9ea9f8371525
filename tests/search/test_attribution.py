"""Attribution maps, their closed and general form and the distance of two, against formulas written out in float64."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from nnmpq.graph.functions import functions_of
from nnmpq.graph.mixture import Mixture
from nnmpq.graph.network import Layer, Site
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.search.attribution import (
    attribution,
    both_searched,
    capacity_power,
    closed_form,
    feature_map,
    generic,
    imitation,
)
from tests.graph.accelerate.comparing import leaf
from tests.graph.accelerate.conditioning import compare_networks, scattered

IMAGES, CHANNELS, HEIGHT, WIDTH, CLASSES = 5, 7, 4, 3, 6
CLASS = np.array([[0], [5], [2], [2], [4]])


def labels() -> nn.Variable:
    return nn.Variable.from_numpy_array(CLASS)


def numbers(v: nn.Variable) -> np.ndarray:
    return np.array(v.d, np.float64)


def pooled_head() -> tuple[nn.Variable, nn.Variable, nn.Variable]:
    """A feature map that is a leaf, the weight behind its average, and the logits."""
    f, w = leaf((IMAGES, CHANNELS, HEIGHT, WIDTH), 1), leaf((CHANNELS, CLASSES), 2)
    return f, w, F.affine(F.global_average_pooling(f), w)


def grad_cam(f: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The positive part of sum_c w_c f_c, w_c the sum over pixels of the gradient."""
    return np.maximum(np.einsum("nchw,nc->nhw", f, row), 0).reshape(len(f), -1)


def test_behind_an_average_both_forms_are_the_classes_row() -> None:
    f, w, logits = pooled_head()
    # d logit / d f is W / pixels at each pixel: summed over them the row itself.
    expected = grad_cam(numbers(f), numbers(w).T[CLASS[:, 0]])
    assert (expected > 0).any() and (expected == 0).any()
    for found in (attribution(logits, labels()), generic(logits, f, labels()), closed_form(w, f, labels())):
        found.forward()
        assert found.shape == (IMAGES, HEIGHT * WIDTH)
        np.testing.assert_allclose(found.d, expected, rtol=1e-5, atol=1e-5)


def test_the_closed_form_is_taken_where_it_holds() -> None:
    f, _, logits = pooled_head()
    names = [function.info.type_name for function in functions_of([attribution(logits, labels())])]
    assert "GlobalAveragePooling" not in names and "Affine" in names
    scaled = F.mul_scalar(logits, 3.0)
    assert "GlobalAveragePooling" in [function.info.type_name for function in functions_of([scaled])]
    found, thrice = attribution(logits, labels()), attribution(scaled, labels())
    for v in (found, thrice):
        v.persistent = True
        v.forward()
    np.testing.assert_allclose(thrice.d, 3 * np.array(found.d), rtol=1e-5)


def test_the_general_form_through_hidden_layers() -> None:
    """Two affine layers with a ReLU on the flattened map: w_c = sum_p sum_h W1[cp, h] [z_h > 0] W2[h, class]."""
    f, first, second = leaf((IMAGES, 2, 3, 2), 1), leaf((12, 9), 2), leaf((9, CLASSES), 3)
    hidden = F.affine(f, first)
    logits = F.affine(F.relu(hidden), second)
    assert feature_map(logits) == f
    z = numbers(f).reshape(IMAGES, -1) @ numbers(first)
    gradient = ((z > 0) * numbers(second).T[CLASS[:, 0]]) @ numbers(first).T
    expected = grad_cam(numbers(f), gradient.reshape(IMAGES, 2, -1).sum(2))
    found = attribution(logits, labels())
    found.forward()
    np.testing.assert_allclose(found.d, expected, rtol=1e-5, atol=1e-5)
    # It is built of standard functions alone: the passes can copy it, nnabla can save it.
    assert not {"AffineDataGrad", "GradEndFunction"} & {x.info.type_name for x in functions_of([found])}


def distance(a: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """mean (a / |a| - target)^2 with its gradient by a, image by image."""
    length = np.sqrt((a * a).sum(1, keepdims=True))
    n = a / length
    by_n = 2 * (n - target) / a.size
    return float(np.mean((n - target) ** 2)), (by_n - n * (by_n * n).sum(1, keepdims=True)) / length


@pytest.mark.parametrize("form", ["closed", "generic"])
@pytest.mark.parametrize("power", [1.0, 2.67, 6.0])
def test_distance_and_its_gradients(form: str, power: float) -> None:
    f, w, logits = pooled_head()
    teacher = np.abs(np.random.RandomState(4).randn(IMAGES, HEIGHT * WIDTH)).astype(np.float32)
    maps = closed_form(w, f, labels()) if form == "closed" else generic(logits, f, labels())
    exponent = nn.Variable.from_numpy_array(np.float32(power)).apply(need_grad=True)
    fixed = nn.Variable.from_numpy_array(teacher).apply(need_grad=True)
    loss = imitation(maps, fixed, exponent)
    for v in (f, w, exponent, fixed):
        v.g = 0
    loss.forward()
    loss.backward()
    a = grad_cam(numbers(f), numbers(w).T[CLASS[:, 0]])
    sharp = teacher.astype(np.float64) ** power
    wanted, by_a = distance(a, sharp / np.sqrt((sharp**2).sum(1, keepdims=True)))
    assert float(loss.d) == pytest.approx(wanted, rel=1e-5)
    before = (by_a * (a > 0)).reshape(IMAGES, 1, HEIGHT, WIDTH)
    np.testing.assert_allclose(f.g, numbers(w).T[CLASS[:, 0]][:, :, None, None] * before, rtol=1e-4, atol=1e-7)
    by_w = np.zeros((CHANNELS, CLASSES))
    for image, label in enumerate(CLASS[:, 0]):
        by_w[:, label] += (numbers(f)[image] * before[image]).sum((1, 2))
    np.testing.assert_allclose(w.g, by_w, rtol=1e-4, atol=1e-7)
    # Neither teacher nor power are drawn along.
    assert not np.any(fixed.g) and not np.any(exponent.g)


def test_a_power_as_number_and_as_variable_is_the_same() -> None:
    student, teacher = (F.abs(leaf((3, 8), seed)) for seed in (1, 2))
    losses = [imitation(student, teacher, p) for p in (2.5, nn.Variable.from_numpy_array(np.float32(2.5)))]
    F.sink(*losses).forward()
    assert float(losses[0].d) == pytest.approx(float(losses[1].d), rel=1e-6) and float(losses[0].d) > 1e-3


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e18])
def test_maps_of_any_size_give_numbers(scale: float) -> None:
    """A power of a large map would be infinite, and a map of zeros has no direction."""
    maps = np.abs(np.random.RandomState(0).randn(2, 9)).astype(np.float32) * np.float32(scale)
    student = nn.Variable.from_numpy_array(np.minimum(maps, 1e9)).apply(need_grad=True)
    loss = imitation(student, nn.Variable.from_numpy_array(maps), 6.0)
    student.g = 0
    loss.forward()
    loss.backward()
    assert np.isfinite(loss.d) and np.isfinite(student.g).all()


def _layers(macs: list[int]) -> tuple[Layer, ...]:
    made = []
    for i, count in enumerate(macs):
        weight = Site(f"l{i}/W", "weight", "affine", (2, 2), True, layer=f"l{i}")
        made.append(Layer(f"l{i}", "affine", weight, None, count, f"a{i}", (2,), (2,)))
    return tuple(made)


@pytest.mark.parametrize("bits, expected", [(2, 6.0), (3, 2.67), (3.75, 1.71), (4, 1.5), (6, 0.67)])
@pytest.mark.parametrize("by_macs", [True, False])
def test_the_published_powers(bits: float, expected: float, by_macs: bool) -> None:
    """The published code's p at 2/2, 3/3, the uniform start of {2, 3, 4, 6}, 4/4 and 6/6 bits."""
    layers = _layers([10, 30])
    both = {f"{kind}{i}{tail}": bits for i in (0, 1) for kind, tail in (("l", "/W"), ("a", ""))}
    assert capacity_power(layers, both, by_macs=by_macs) == pytest.approx(expected, abs=5e-3)
    variables = {name: nn.Variable.from_numpy_array(np.float32(b)) for name, b in both.items()}
    found = capacity_power(layers, variables, by_macs=by_macs)
    found.forward()
    assert found.shape == () and float(found.d) == pytest.approx(expected, abs=5e-3)


def test_each_layers_capacity_counts_by_its_share() -> None:
    layers, bits = _layers([10, 30]), {"l0/W": 2, "a0": 2, "l1/W": 4, "a1": nn.Variable.from_numpy_array(np.float32(3))}
    for by_macs, expected in ((True, 12 * (0.25 / 4 + 0.75 / 12)), (False, 12 * (0.5 / 4 + 0.5 / 12))):
        found = capacity_power(layers, bits, 12.0, by_macs=by_macs)
        found.forward()
        assert float(found.d) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="nothing has a capacity"):
        capacity_power((), bits)
    assert both_searched(layers, {"a1"}) == layers[1:] and both_searched(layers, {"l0/W"}) == layers


def _network(images: nn.Variable) -> nn.Variable:
    h = PF.convolution(images, 6, (3, 3), pad=(1, 1), with_bias=False, name="first")
    h = F.relu(PF.batch_normalization(h, name="first/bn"))
    h = PF.convolution(h, 8, (3, 3), pad=(1, 1), stride=(2, 2), with_bias=False, name="second")
    h = F.relu(PF.batch_normalization(h, name="second/bn"))
    return PF.affine(F.global_average_pooling(h), 4, name="last")


@pytest.mark.parametrize("scheme", [Mixture(kinds=("relu", "pool")), Fixed(3, 4, kinds=("relu", "pool"))])
def test_quantizers_behind_the_map_are_straight_through(scheme: object) -> None:
    """With the pooled map and the last weight quantized, the row is that of the quantized weight in both forms."""
    images = leaf((4, 3, 8, 10), 3)
    y = _network(images)
    scattered()
    quantized = quantize(y, scheme)
    wanted = nn.Variable.from_numpy_array(np.array([[0], [3], [1], [1]]))
    f, w = feature_map(quantized.output), quantized.sites["last/affine/W"].output
    assert f == quantized.sites["second/conv/relu"].output
    found = [attribution(quantized.output, wanted), generic(quantized.output, f, wanted)]
    for v in (*found, f, w):
        v.persistent = True
    F.sink(*found, w).forward()
    expected = grad_cam(numbers(f), numbers(w).T[[0, 3, 1, 1]])
    for v in found:
        np.testing.assert_allclose(v.d, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(w.d, nn.get_parameters()["last/affine/W"].d)


@pytest.mark.parametrize("form", ["closed", "generic"])
def test_the_accelerated_graph_is_the_same(form: str) -> None:
    """Student and teacher on the same images, the distance in the loss: outputs and all gradients."""
    images = nn.Variable((4, 3, 8, 8), need_grad=True)
    with nn.parameter_scope("teacher"):
        teacher = _network(images)
    y = _network(images)
    scattered()
    scheme = Fixed(3, 4, keep=("second/conv/relu", "last/*"))
    student = quantize(y, scheme).output
    wanted = nn.Variable.from_numpy_array(np.array([[0], [3], [1], [1]]))
    build = attribution if form == "closed" else lambda v, t: generic(v, feature_map(v), t)
    loss = imitation(build(student, wanted), build(teacher, wanted), 1.7)
    compare_networks(images, [student], [F.mul_scalar(loss, 40.0)], conditioned=False)


def test_without_a_map_there_is_no_attribution() -> None:
    with pytest.raises(ValueError, match="no feature map"):
        attribution(PF.affine(nn.Variable((2, 16)), 3), nn.Variable((2, 1)))
    with pytest.raises(ValueError, match="no feature map"):
        attribution(PF.affine(F.relu(nn.Variable((2, 16, 1, 1))), 3), nn.Variable((2, 1)))
