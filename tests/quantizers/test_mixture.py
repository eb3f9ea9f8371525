"""Mixtures of candidate widths against sums written out in float64, in every form that runs them."""

from __future__ import annotations

from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.quantizers import make
from nnmpq.quantizers.mixture import FIRST_ALPHA, CandidateMixture, softmax
from nnmpq.quantizers.mixture_core import CandidateGrids, MixtureCore, composed, fused

SHAPE = (3, 4, 5, 7)
CASES = [
    pytest.param("gaussian", (1, 2, 3, 4), True, id="gaussian"),
    pytest.param("half_wave_gaussian", (2, 3, 4), False, id="half-wave"),
    pytest.param("half_wave_gaussian", (1, 4), False, id="half-wave-two"),
    pytest.param("uniform_b_xmax", (2, 4, 8), True, id="uniform-signed"),
    pytest.param("uniform_b_xmax", (1, 3), False, id="uniform"),
    pytest.param("pact", (2, 3, 4, 6), False, id="pact"),
    pytest.param("haq", (2, 3, 4, 6), True, id="haq"),
]
FORMS = ["kernels", "arrays", "composed"]


def away_from_ties(x: np.ndarray, steps: np.ndarray, midrise: bool) -> np.ndarray:
    """The tensor without elements that float32 may round either way, nor at the end of a range."""
    for step in steps:
        u = x / step + (0.0 if midrise else 0.5)
        x = np.where(np.abs(u - np.round(u)) < 1e-3, x + 0.01 * step, x)
    return x.astype(np.float32)


def reference(x: Any, p: Any, steps: Any, g: Any, grids: CandidateGrids) -> tuple[Any, Any, Any, Any]:
    """Output and gradients of x, p and steps, one candidate after the other in float64."""
    x, p, steps, g = (np.asarray(v, np.float64) for v in (x, p, steps, g))
    if grids.by_deviation:
        steps = steps * x.std(ddof=1)
    y, gx, gp, gs = np.zeros_like(x), np.zeros_like(x), np.zeros_like(p), np.zeros_like(p)
    for k, (low, high) in enumerate(zip(grids.low, grids.high)):
        u = x / steps[k]
        if grids.midrise:
            n, inside = np.clip(np.floor(u), low, high) + 0.5, np.ones_like(x)
        else:
            n = np.clip(np.sign(u) * np.floor(np.abs(u) + 0.5), low, high)
            inside = np.ones_like(x) if grids.straight else ((u > low) & (u < high)).astype(float)
            learned = n - u * inside if grids.residual_gradient else n * (1 - inside)
            gs[k] = p[k] * np.sum(g * learned)
        y += p[k] * n * steps[k]
        gx += g * p[k] * inside
        gp[k] = np.sum(g * n * steps[k])
    return y, gx, gp, gs


def run(form: str, x: Any, p: Any, steps: Any, g: Any, grids: CandidateGrids, learn: bool) -> list[np.ndarray]:
    source, shares, widths = (nn.Variable.from_numpy_array(np.array(v, np.float32)) for v in (x, p, steps))
    inputs = (source.apply(need_grad=True), shares.apply(need_grad=True), widths.apply(need_grad=learn))
    if form == "composed":
        y = composed(*inputs, grids)
    else:
        y = MixtureCore(nn.get_current_context(), grids, kernels=form == "kernels")(*inputs)
    y.forward()
    for v in inputs:
        v.g = 0
    y.backward(nn.NdArray.from_numpy_array(np.array(g, np.float32)))
    return [y.d.copy(), *(v.g.copy() for v in inputs)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("quantizer", "bits", "signed"), CASES)
def test_every_form_computes_the_sums(form: str, quantizer: str, bits: tuple[int, ...], signed: bool) -> None:
    mixture = CandidateMixture(quantizer=quantizer, candidates=bits, signed=signed)
    grids, learn = mixture.grids, "xmax" in mixture.parameter_names
    rng = np.random.RandomState(3)
    steps = np.array(rng.uniform(0.1, 0.7, len(bits)), np.float32)
    x = rng.randn(*SHAPE)
    x = away_from_ties(x, steps * (x.std(ddof=1) if grids.by_deviation else 1.0), grids.midrise)
    p, g = rng.dirichlet(np.ones(len(bits))).astype(np.float32), rng.randn(*SHAPE).astype(np.float32)
    expected = reference(x, p, steps, g, grids)
    found = run(form, x, p, steps, g, grids, learn)
    for what, a, b in zip(("y", "gx", "gp", "gsteps"), expected, found):
        if what != "gsteps" or learn:
            np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-5 * np.abs(a).max(), err_msg=what)


def test_gradients_are_added_where_a_tensor_is_used_twice() -> None:
    grids = CandidateGrids.of((2, 3), False)
    rng = np.random.RandomState(0)
    x = nn.Variable.from_numpy_array(rng.rand(40).astype(np.float32)).apply(need_grad=True)
    p = nn.Variable.from_numpy_array(np.array([0.25, 0.75], np.float32)).apply(need_grad=True)
    steps = nn.Variable.from_numpy_array(np.array([0.3, 0.1], np.float32))
    once = fused(x, p, steps, grids)
    F.sum(once).forward()
    x.g, p.g = 0, 0
    total = F.sum(once)
    total.forward()
    total.backward()
    single = x.g.copy(), p.g.copy()
    x.g, p.g = 0, 0
    twice = F.add2(F.sum(fused(x, p, steps, grids)), F.sum(fused(x, p, steps, grids)))
    twice.forward()
    twice.backward()
    np.testing.assert_allclose(x.g, 2 * single[0], rtol=1e-6)
    np.testing.assert_allclose(p.g, 2 * single[1], rtol=1e-6)


@pytest.mark.parametrize(("quantizer", "bits", "signed"), CASES)
def test_a_share_of_one_is_the_registered_quantizer_itself(quantizer: str, bits: tuple[int, ...], signed: bool) -> None:
    """What is trained after the search computes what the winning candidate computed."""
    mixture = CandidateMixture(quantizer=quantizer, candidates=bits, signed=signed)
    x = np.random.RandomState(5).randn(*SHAPE).astype(np.float32)
    for index, width in enumerate(bits):
        values = mixture.initial(xmax=2.3)
        values["alpha"] = np.where(np.arange(len(bits)) == index, np.float32(200), np.float32(-200))
        parameters = {name: nn.Variable.from_numpy_array(v) for name, v in values.items()}
        y = mixture.apply(nn.Variable.from_numpy_array(x), parameters)
        y.forward()
        chosen, raw = mixture.discrete(values)
        assert mixture.chosen(values) == width
        alone = make(quantizer, signed=signed, bits_limits=(float(width), float(width)))
        assert type(chosen) is type(alone)
        direct = alone.apply(
            nn.Variable.from_numpy_array(x),
            {name: nn.Variable.from_numpy_array(np.asarray(v, np.float32)) for name, v in raw.items()},
        )
        direct.forward()
        np.testing.assert_array_equal(y.d, direct.d)
        np.testing.assert_array_equal(mixture.grid(values, x).quantize(x), direct.d)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=6))
def test_shares_are_the_softmax_and_their_gradient_is_its(alphas: list[float]) -> None:
    alpha = nn.Variable.from_numpy_array(np.array(alphas, np.float32)).apply(need_grad=True)
    weights = np.random.RandomState(1).randn(len(alphas)).astype(np.float32)
    p = softmax(alpha)
    p.persistent = True
    total = F.sum(F.mul2(p, nn.Variable.from_numpy_array(weights)))
    total.forward()
    alpha.g = 0
    total.backward()
    powers = np.exp(np.array(alphas, np.float32).astype(np.float64) - np.max(np.array(alphas, np.float32)))
    expected = powers / powers.sum()
    np.testing.assert_allclose(p.d, expected, atol=1e-6)
    gradient = expected * (weights - np.sum(expected * weights))
    np.testing.assert_allclose(alpha.g, gradient, atol=1e-5)


def test_expected_bits_and_the_published_complexity_gradient() -> None:
    """d(E[w] E[a] C)/d alpha_k = C E[a] p_k (b_k - E[w]), as the published code's automatic differentiation gives."""
    weight = CandidateMixture(quantizer="gaussian", candidates=(1, 2, 3, 4), signed=True)
    activation = CandidateMixture(quantizer="half_wave_gaussian", candidates=(2, 3, 4), signed=False)
    rng = np.random.RandomState(2)
    alphas = [rng.randn(4).astype(np.float32), rng.randn(3).astype(np.float32)]
    variables = [nn.Variable.from_numpy_array(a).apply(need_grad=True) for a in alphas]
    bits = [m.bits({"alpha": v}) for m, v in zip((weight, activation), variables)]
    loss = F.mul_scalar(F.mul2(*bits), 7.0)
    for v in variables:
        v.g = 0
    loss.forward()
    loss.backward()
    shares = [np.exp(a.astype(np.float64)) / np.exp(a.astype(np.float64)).sum() for a in alphas]
    means = [float(p @ np.array(m.candidates)) for p, m in zip(shares, (weight, activation))]
    assert float(loss.d) == pytest.approx(7 * means[0] * means[1], rel=1e-6)
    for i, (p, m) in enumerate(zip(shares, (weight, activation))):
        expected = 7 * means[1 - i] * p * (np.array(m.candidates) - means[i])
        np.testing.assert_allclose(variables[i].g, expected, rtol=1e-4, atol=1e-6)


def test_start_is_uniform_and_a_tie_goes_to_the_narrower() -> None:
    mixture = CandidateMixture(quantizer="pact", candidates=(2, 4), signed=False, xmax_limits=(0.1, 3.0))
    values = mixture.initial()
    assert values["alpha"].tolist() == pytest.approx([FIRST_ALPHA] * 2)
    assert values["xmax"].tolist() == pytest.approx([3.0, 3.0], abs=1e-4)
    assert mixture.chosen(values) == 2
    assert mixture.constrain({**values, "xmax": np.float32([9, 0])})["xmax"].tolist() == pytest.approx(
        [3.0, 0.1], abs=1e-4
    )
    assert mixture.parameter_names == ("alpha", "xmax") and mixture.learned("alpha")
    assert mixture.narrowed(values) == []


def test_what_is_not_a_number_stays_so() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.4], np.float32)
    y = run("kernels", x, [0.5, 0.5], [0.5, 0.25], np.ones(4), CandidateGrids.of((2, 2), False), True)[0]
    assert np.isnan(y[0])
    assert y[1:].tolist() == [0.5 * 1.5 + 0.5 * 0.75, 0.0, 0.5 * 0.5 + 0.5 * 0.5]


def test_bad_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="no mixture of 'gausian'; the nearest is 'gaussian'"):
        CandidateMixture(quantizer="gausian", candidates=(1, 2), signed=True)
    for widths in ((), (2, 1), (2, 2), (0, 1), (4, 9)):
        with pytest.raises(ValueError, match="ascending widths"):
            CandidateMixture(quantizer="gaussian", candidates=widths, signed=True)
    with pytest.raises(ValueError, match="from 2 to 8"):
        CandidateMixture(quantizer="uniform_b_xmax", candidates=(1, 2), signed=True)
