"""What every quantizer must do; the cases come from the registry."""

from __future__ import annotations

from typing import Any

import nnabla as nn
import numpy as np
import pytest

from nnmpq.quantizers import QUANTIZERS, make
from tests.quantizers.cases import CASES, case_id, run, start, tensor, variables
from tests.quantizers.reference import REFERENCE

every_case = pytest.mark.parametrize("case", CASES, ids=case_id)
UPSTREAM = np.cos(np.arange(6 * 5 * 7 * 3)).reshape(6, 5, 7, 3).astype(np.float32)


def build(case: tuple[str, dict[str, Any]]) -> Any:
    name, options = case
    return make(name, **options)


def test_every_quantizer_has_an_independent_formula() -> None:
    assert set(QUANTIZERS) == set(REFERENCE)


@every_case
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_values_and_gradients_are_the_formulas(case: Any, bits: int) -> None:
    quantizer = build(case)
    if bits == 8 and case[0] in ("pow2_b_xmin",):
        pytest.skip("its 8-bit range is beyond the tensor's; test_extremes covers it")
    values, x = start(quantizer, bits), tensor()
    y, gx, gradients = run(quantizer, values, x, UPSTREAM)
    exact = {name: np.asarray(v, np.float64) for name, v in values.items()}
    wanted, wanted_gx, wanted_gradients = REFERENCE[case[0]](
        quantizer, exact, x.astype(np.float64), UPSTREAM.astype(np.float64)
    )
    np.testing.assert_allclose(y, wanted, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(gx, wanted_gx, rtol=2e-5, atol=2e-6)
    for name, gradient in wanted_gradients.items():
        scale = np.abs(gradient).max() + 1.0
        np.testing.assert_allclose(gradients[name] / scale, gradient / scale, atol=2e-5, err_msg=name)


@every_case
def test_fused_is_the_composition(case: Any) -> None:
    quantizer = build(case)
    values, x = start(quantizer, 4), tensor(1)
    y, gx, gradients = run(quantizer, values, x, UPSTREAM)
    y2, gx2, gradients2 = run(quantizer, values, x, UPSTREAM, fused=False)
    np.testing.assert_allclose(y, y2, rtol=3e-7 if case[0] in ("dorefa", "sign_mean", "gaussian") else 0, atol=0)
    np.testing.assert_allclose(gx, gx2, rtol=1e-5, atol=1e-6)
    for name in gradients:
        if quantizer.learned(name):
            scale = np.abs(gradients2[name]).max() + 1.0
            np.testing.assert_allclose(gradients[name] / scale, gradients2[name] / scale, atol=5e-5, err_msg=name)


@every_case
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grid_is_what_comes_out(case: Any, bits: int) -> None:
    quantizer = build(case)
    values, x = start(quantizer, bits, 0.05), tensor(2, 2.0)
    y, _, _ = run(quantizer, values, x, UPSTREAM)
    grid = quantizer.grid(values, x)
    if case[0] != "dorefa":  # DoReFa's grid is of tanh(w), not of w
        np.testing.assert_array_equal(grid.quantize(x), y)
    codes = grid.encode(y)
    np.testing.assert_array_equal(grid.decode(codes), y)
    levels = len(np.unique(y)) if quantizer.__class__.__name__ and y.ndim and grid.channel_axis is None else 0
    assert levels <= grid.levels()
    if not getattr(quantizer, "faithful", False):
        assert grid.levels() <= 2**grid.bits
    variable = quantizer.bits(variables(values))
    variable.forward()
    assert float(variable.d) == grid.bits


@every_case
def test_quantizing_twice_changes_nothing(case: Any) -> None:
    quantizer = build(case)
    if quantizer.family in ("midrise", "dorefa", "sign"):
        y = quantizer.grid(start(quantizer), tensor()).quantize(tensor())
        np.testing.assert_array_equal(quantizer.grid(start(quantizer), tensor()).quantize(y), y)
        return
    values = start(quantizer)
    y, _, _ = run(quantizer, values, tensor(), UPSTREAM)
    np.testing.assert_array_equal(run(quantizer, values, y, UPSTREAM)[0], y)


@every_case
@pytest.mark.parametrize("fill", [0.0, -0.0, 1e-30, 1e-45, -3.4e38, 3.4e38, 1.0])
@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("fused", [True, False])
def test_extremes_make_no_nan(case: Any, fill: float, bits: int, fused: bool) -> None:
    if abs(fill) > 1e38 and case[0] in ("gaussian", "sign_mean", "dorefa"):
        pytest.skip("their scale is a moment of the weights, which is not finite here")
    quantizer = build(case)
    x = np.full((6, 5, 7, 3), fill, np.float32)
    y, gx, gradients = run(quantizer, start(quantizer, bits), x, UPSTREAM, fused=fused)
    assert np.isfinite(y).all()
    assert np.isfinite(gx).all()
    assert all(np.isfinite(gradients[name]).all() for name in gradients if quantizer.learned(name))


@every_case
def test_nan_stays_nan(case: Any) -> None:
    x = tensor()
    x.flat[5] = np.nan
    quantizer = build(case)
    assert np.isnan(run(quantizer, start(quantizer), x, UPSTREAM)[0]).any()


@every_case
def test_gradients_accumulate(case: Any) -> None:
    quantizer = build(case)
    values, x = start(quantizer), tensor()
    parameters = variables(values)
    source = nn.Variable.from_numpy_array(x).apply(need_grad=True)
    y = quantizer.apply(source, parameters) + quantizer.apply(source, parameters)
    for variable in (source, *parameters.values()):
        variable.g = 0
    y.forward()
    y.backward(nn.NdArray.from_numpy_array(UPSTREAM))
    _, gx, gradients = run(quantizer, values, x, UPSTREAM)
    np.testing.assert_allclose(source.g, 2 * gx, rtol=1e-6, atol=1e-6)
    for name, v in parameters.items():
        np.testing.assert_allclose(v.g, 2 * gradients[name], rtol=1e-4, atol=1e-4)


@every_case
def test_parameters_survive_a_file(case: Any, tmp_path: Any) -> None:
    quantizer = build(case)
    values = start(quantizer)
    for name, value in values.items():
        nn.parameter.get_parameter_or_create(f"site_quantizer/{name}", np.shape(value), value)
    before = {name: v.d.copy() for name, v in nn.get_parameters().items()}
    nn.save_parameters(str(tmp_path / "p.h5"))
    nn.clear_parameters()
    nn.load_parameters(str(tmp_path / "p.h5"))
    after = {name.split("/")[1]: v.d for name, v in nn.get_parameters().items()}
    assert len(before) == len(values)
    y, _, _ = run(quantizer, values, tensor(), UPSTREAM)
    reloaded = {name: np.array(after[name]).reshape(np.shape(values[name])) for name in values}
    np.testing.assert_array_equal(run(quantizer, reloaded, tensor(), UPSTREAM)[0], y)


@every_case
def test_narrowed_spends_one_bit_less(case: Any) -> None:
    quantizer = build(case)
    values = start(quantizer, 5)
    bits = quantizer.grid(values, tensor()).bits
    ways = quantizer.narrowed(values)
    assert ways or bits == quantizer.bits_limits[0]
    for way in ways:
        assert quantizer.grid(way, tensor()).bits == bits - 1
    narrowest = start(quantizer, int(quantizer.bits_limits[0]))
    if quantizer.grid(narrowest, tensor()).bits == quantizer.bits_limits[0]:
        assert quantizer.narrowed(narrowest) == []


@every_case
def test_constrained_values_are_inside_and_stay(case: Any) -> None:
    quantizer = build(case)
    values = start(quantizer)
    wild = {name: np.asarray(v * 1000 - 1, np.float32) for name, v in values.items() if quantizer.learned(name)}
    inside = quantizer.constrain({**values, **wild})
    again = quantizer.constrain(inside)
    for name in values:
        np.testing.assert_allclose(again[name], inside[name], atol=2e-5)  # the order rule's margin
    assert np.isfinite(run(quantizer, inside, tensor(), UPSTREAM)[0]).all()


def test_unknown_names_and_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="uniform_b_xmax"):
        make("uniform_b_max")
    with pytest.raises(ValueError, match="2 bits or more"):
        make("uniform_b_xmax", signed=True, bits_limits=(1.0, 8.0))
    with pytest.raises(ValueError, match="take 2 bits"):
        make("pow2_b_xmax", signed=True, with_zero=True, bits_limits=(1.0, 8.0))
