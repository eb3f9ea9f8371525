"""One block at one precision: what it shares, what it owns, and what is computed once."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.dynamic.blocks import Block, constants_of, find_blocks, on_other_input
from nnmpq.dynamic.paths import Part, Renamed, at_precision, build_path, scope_of
from nnmpq.graph.functions import functions_of
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.graph.trace import Traced, trace_graph
from nnmpq.models import build
from tests.dynamic.small import published_scheme


def blocks(test: bool = True, channels: float = 0.25) -> tuple[list[Block], Traced]:
    images = nn.Variable((3, 1, 8, 8))
    y = build("preact_resnet", images, 4, test=test, num_layers=20, width_multiplier=channels, seed=0)
    whole = trace_graph(y)
    return find_blocks(whole.outputs[0]), whole


def path(bits: int, number: int = 3, scheme: Parametric | None = None) -> Part:
    found, whole = blocks()
    return build_path(found[number], whole, scheme or published_scheme(), bits)


def filled(shape: tuple[int, ...], seed: int = 0) -> nn.Variable:
    return nn.Variable.from_numpy_array(np.random.RandomState(seed).randn(*shape).astype(np.float32))


@pytest.mark.parametrize(("bits", "levels"), [(1, 2), (2, 4), (3, 8), (4, 16)])
def test_weights_have_as_many_levels_as_their_width_says(bits: int, levels: int) -> None:
    made = path(bits, number=7)
    site = next(s for name, s in made.quantized.sites.items() if name.endswith("conv2/conv/W"))
    site.output.forward()
    assert len(np.unique(site.output.d)) <= levels
    # 8 * 8 * 9 numbers around zero reach all but the outermost of them.
    assert len(np.unique(site.output.d)) >= levels - 2


def test_a_float_path_is_the_block() -> None:
    found, whole = blocks()
    made = build_path(found[3], whole, published_scheme(), 32)
    x = filled(made.entry.shape)
    y, expected = made.on(x), on_other_input(found[3].exit, found[3].entry, x)[0]
    F.sink(y, expected).forward()
    np.testing.assert_array_equal(y.d, expected.d)


def test_widths_between_are_as_near_to_float_as_they_are_wide() -> None:
    found, whole = blocks()
    scheme = Parametric(
        weight=SiteSettings("uniform_delta_xmax", 4, 0.05), activation=SiteSettings("uniform_delta_xmax", 4, 0.25)
    )
    x = filled(found[0].entry.shape)
    exact = on_other_input(found[0].exit, found[0].entry, x)[0]
    exact.forward()
    errors = []
    for bits in (2, 4, 6, 8):
        y = build_path(found[0], whole, scheme, bits).on(x)
        y.forward()
        errors.append(float(np.abs(y.d - exact.d).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10


def test_normalization_starts_as_the_blocks_own_and_then_goes_its_way() -> None:
    found, whole = blocks()
    own = nn.get_parameters(grad_only=False)
    own["res2/block1/conv1/bn/mean"].d = 3.0
    first = build_path(found[3], whole, published_scheme(), 1)
    own["res2/block1/conv1/bn/mean"].d = 5.0
    build_path(found[3], whole, published_scheme(), 4)
    # What exists already is taken as it is, so that a loaded run keeps what it learned.
    again = build_path(found[3], whole, published_scheme(), 1)
    now = nn.get_parameters(grad_only=False)
    assert set(now["precision1/res2/block1/conv1/bn/mean"].d.ravel()) == {3.0}
    assert set(now["precision4/res2/block1/conv1/bn/mean"].d.ravel()) == {5.0}
    x = filled(first.entry.shape)
    one, two = first.on(x), again.on(x)
    F.sink(one, two).forward()
    np.testing.assert_array_equal(one.d, two.d)


def test_learned_ranges_are_each_precisions_own() -> None:
    found, whole = blocks()
    scheme = Parametric(
        weight=SiteSettings("dorefa"), activation=SiteSettings("pact", 4, 1 / 15, options={"xmax_limits": (0.5, 8.0)})
    )
    parts = [build_path(found[0], whole, scheme, bits) for bits in (1, 4)]
    names = [set(part.sites()) for part in parts]
    assert not names[0] & names[1]
    for bits, part in zip((1, 4), parts):
        assert all(name.startswith(f"{scope_of(bits)}/") for name in part.sites())
        ranges = [n for n in nn.get_parameters(grad_only=False) if n.startswith(f"{scope_of(bits)}/") and "_q" in n]
        assert ranges


def test_a_range_that_moves_moves_its_own_path_alone() -> None:
    found, whole = blocks()
    scheme = Parametric(
        weight=SiteSettings("dorefa"), activation=SiteSettings("pact", 4, 1 / 15, options={"xmax_limits": (0.5, 8.0)})
    )
    parts = [build_path(found[0], whole, scheme, bits) for bits in (1, 4)]
    x = filled(found[0].entry.shape)
    outputs = [part.on(x) for part in parts]
    F.sink(*outputs).forward()
    before = [np.array(y.d) for y in outputs]
    for name, parameter in nn.get_parameters(grad_only=False).items():
        if name.startswith("precision4/") and "_quantizer/" in name and not name.endswith("bits"):
            parameter.d = parameter.d * 2 + 0.5
    F.sink(*outputs).forward()
    np.testing.assert_array_equal(outputs[0].d, before[0])
    assert np.abs(outputs[1].d - before[1]).max() > 1e-3


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_range_stays_where_its_levels_change(bits: int) -> None:
    scheme = at_precision(published_scheme(), bits)
    found = scheme.activation_settings
    assert found is not None
    # 15 steps of 1/15 at four bits.
    assert found.bits == bits and found.step * (2**bits - 1) == pytest.approx(1.0)
    assert found.options["bits_limits"] == (float(bits), float(bits))


@pytest.mark.parametrize("name", ["dorefa", "uniform_delta_xmax", "uniform_b_xmax"])
def test_one_bit_weights_have_two_levels_of_one_magnitude(name: str) -> None:
    found, whole = blocks()
    scheme = Parametric(weight=SiteSettings(name), activation=published_scheme().activation_settings)
    made = build_path(found[0], whole, scheme, 1)
    for site in made.quantized.network.layers:
        output = made.quantized.sites[site.weight.name].output
        output.forward()
        low, high = np.unique(output.d)
        assert low == -high and high > 0


def test_what_is_kept_float_is_named_as_in_the_whole_network() -> None:
    found, whole = blocks()
    scheme = published_scheme(keep=("precision4/res1/block1/conv1/conv/W",))
    sites = build_path(found[0], whole, scheme, 4).sites()
    floats = {name for name, site in sites.items() if site.quantizer is None}
    assert floats <= {"precision4/res1/block1/conv1/conv/W"}
    assert "precision4/res1/block1/conv2/conv/W" in set(sites) - floats


def test_tensors_that_the_whole_network_does_not_know_are_left_alone() -> None:
    found, whole = blocks()
    made = build_path(found[0], whole, published_scheme(), 4)
    site = made.quantized.network.activations[0]
    stranger = Renamed(made.scheme.scheme, "precision4", {})
    assert not stranger.covers(site)
    assert stranger.site(made.quantized.network.layers[0].weight).name.startswith("precision4/")


@pytest.mark.parametrize("bits", [1, 4])
def test_frozen_parts_compute_the_same_bits(bits: int) -> None:
    made = path(bits)
    x = filled(made.entry.shape)
    live, frozen = made.on(x), made.on(x, frozen=True)
    F.sink(live, frozen).forward()
    np.testing.assert_array_equal(live.d, frozen.d)


def test_frozen_parts_keep_nothing_that_depends_on_parameters_alone() -> None:
    made = path(4)
    x = filled(made.entry.shape)
    frozen, live = functions_of([made.on(x, frozen=True)]), functions_of([made.on(x)])
    for function in frozen:
        fed = [v for v in function.inputs if v == x or v.parent is not None]
        assert fed, function.info.type_name
    names = [f.info.type_name for f in live]
    assert any("Weight" in name for name in names), "the live part quantizes weights"
    assert not any("Weight" in f.info.type_name for f in frozen)
    assert len(frozen) < len(live)


def test_frozen_weights_stay_as_they_were() -> None:
    made = path(4)
    x = filled(made.entry.shape)
    frozen = made.on(x, frozen=True)
    frozen.forward()
    before = np.array(frozen.d)
    weight = nn.get_parameters()["res2/block1/conv1/conv/W"]
    weight.d = -weight.d
    frozen.forward()
    np.testing.assert_array_equal(frozen.d, before)
    live = made.on(x)
    live.forward()
    assert np.abs(live.d - before).max() > 1e-3


def test_constants_are_all_that_no_input_reaches() -> None:
    x = nn.Variable((2, 3))
    w = nn.Variable.from_numpy_array(np.array([[0.2, 1.6, 2.4]], np.float32))
    doubled = F.mul_scalar(w, 2.0)
    rounded = F.round(doubled)
    shifted = F.add_scalar(x, 1.0)
    y = F.mul2(rounded, shifted)
    found = constants_of(y, x)
    assert set(found) == {doubled, rounded}
    np.testing.assert_array_equal(found[rounded].d, [[0, 3, 5]])
    made = on_other_input(y, x, filled((2, 3)), found)[0]
    assert [f.info.type_name for f in functions_of([made])] == ["AddScalar", "Mul2"]


def test_a_graph_without_parameters_has_no_constants() -> None:
    x = nn.Variable((2, 3))
    assert constants_of(F.exp(F.mul_scalar(x, 2.0)), x) == {}
