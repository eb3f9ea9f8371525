"""The fused cores by their other path, the scalar arithmetic, and what learning does with them."""

from __future__ import annotations

from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnmpq.quantizers import make
from nnmpq.quantizers.grid import Grid, nearest_power_of_two, round_half_away
from nnmpq.quantizers.pow2_core import Pow2Core
from nnmpq.quantizers.uniform_core import UniformCore
from tests.quantizers.cases import start, tensor, variables

LN2 = np.log(2)
floats = st.floats(-1e6, 1e6, width=32)


def evaluate(core: Any, x: np.ndarray, *parameters: np.ndarray) -> list[np.ndarray]:
    inputs = [nn.Variable.from_numpy_array(a.astype(np.float32)).apply(need_grad=True) for a in (x, *parameters)]
    y = core(*inputs)
    for v in inputs:
        v.g = 0
    y.forward()
    y.backward(nn.NdArray.from_numpy_array(np.cos(np.arange(x.size)).reshape(x.shape).astype(np.float32)))
    return [y.d.copy(), *(v.g.copy() for v in inputs)]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("family", ["uniform", "pow2", "pow2-zero"])
def test_the_ndarray_path_of_a_gpu_equals_the_kernels(family: str, axis: int | None, signed: bool) -> None:
    x = tensor(3)
    shape = () if axis is None else (x.shape[axis],)
    low, high = np.full(shape, 0.25), np.full(shape, 1.0)
    if axis is not None:
        low, high = low * 2.0 ** -np.arange(shape[0]), high * 2.0 ** np.arange(shape[0])
    results = []
    for kernels in (True, False):
        context = nn.get_current_context()
        core: Any = (
            UniformCore(context, signed, axis, kernels)
            if family == "uniform"
            else Pow2Core(context, signed, axis, family == "pow2-zero", kernels)
        )
        results.append(evaluate(core, x, low, high))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for by_kernel, by_array in zip(results[0][1:], results[1][1:]):
        np.testing.assert_allclose(by_kernel, by_array, rtol=2e-5, atol=2e-4)


def test_sums_do_not_depend_on_threads() -> None:
    import numba

    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this process has one numba thread")
    x = np.random.RandomState(0).randn(200000)
    results = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        results.append(evaluate(UniformCore(nn.get_current_context(), True, None), x, np.array(0.25), np.array(1.0)))
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


@settings(deadline=None)
@given(hnp.arrays(np.float32, 20, elements=floats))
def test_rounding_is_half_away_from_zero(x: np.ndarray) -> None:
    exact = x.astype(np.float64)
    wanted = np.sign(exact) * np.floor(np.abs(exact) + 0.5)
    np.testing.assert_array_equal(round_half_away(x), wanted)
    halves = np.round(exact) + 0.5
    np.testing.assert_array_equal(round_half_away(halves.astype(np.float32)), halves + 0.5 * np.sign(halves))


@settings(deadline=None)
@given(hnp.arrays(np.float32, 20, elements=st.floats(2.0**-20, 2.0**20, width=32)))
def test_the_nearest_power_of_two_is_exact(a: np.ndarray) -> None:
    wanted = 2.0 ** np.floor(np.log2(a.astype(np.float64)) + 0.5)
    np.testing.assert_array_equal(nearest_power_of_two(a), wanted)


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, 30, elements=floats),
    st.integers(-10, 3),
    st.integers(1, 100),
    st.sampled_from([0.0, 0.5]),
)
def test_a_uniform_grid_takes_the_nearest_value(x: np.ndarray, exponent: int, high: int, offset: float) -> None:
    step = np.float32(2.0**exponent)
    grid = Grid("uniform", 8, True, step=step, offset=offset, low=-high, high=high)
    values = (np.arange(-high, high + 1) + offset) * float(step)
    y = grid.quantize(x)
    assert np.isin(y, values).all()
    best = np.abs(x.astype(np.float64)[:, None] - values).min(1)
    np.testing.assert_array_equal(np.abs(x.astype(np.float64) - y), best)
    np.testing.assert_array_equal(grid.decode(grid.encode(y)), y)


@settings(deadline=None)
@given(hnp.arrays(np.float32, 30, elements=floats), st.integers(-8, 0), st.integers(0, 9), st.booleans())
def test_a_power_of_two_grid_takes_the_nearest_exponent(x: np.ndarray, low: int, span: int, zero: bool) -> None:
    grid = Grid("pow2", 8, True, xmin=np.float32(2.0**low), xmax=np.float32(2.0 ** (low + span)), with_zero=zero)
    y = grid.quantize(x)
    assert grid.levels() == 2 * (span + 1) + zero
    magnitudes = 2.0 ** np.arange(low, low + span + 1)
    assert np.isin(np.abs(y), [0.0, *magnitudes] if zero else magnitudes).all()
    inside = (np.abs(x) >= magnitudes[0]) & (np.abs(x) <= magnitudes[-1])
    ratio = np.abs(np.log2(np.abs(x[inside].astype(np.float64)) / np.abs(y[inside])))
    assert (ratio <= 0.5 + 1e-6).all()
    np.testing.assert_array_equal(grid.decode(grid.encode(y)), y)


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_gradients_of_bits(signed: bool, faithful: bool) -> None:
    """Straight through every rounding: bits = log2(xmax / step + 1) + s has derivatives of that formula."""
    values = {"step": np.float32(0.13), "xmax": np.float32(1.07)}
    quantizer = make("uniform_delta_xmax", signed=signed, faithful=faithful, bits_limits=(2.0, 8.0))
    p = variables(values)
    bits = quantizer.bits(p)
    for v in p.values():
        v.g = 0
    bits.forward()
    bits.backward()
    step = 2.0 ** np.round(np.log2(0.13))
    levels = np.floor(1.07 / step + 0.5)
    slope = 1 / (LN2 * (levels + 1))
    assert float(p["xmax"].g) == pytest.approx(slope / step, rel=1e-5)
    assert float(p["step"].g) == pytest.approx(-slope * 1.07 / step**2 * step / 0.13, rel=1e-5)


def test_gradients_of_power_of_two_bits() -> None:
    quantizer = make("pow2_xmin_xmax", signed=True)
    p = variables({"xmin": np.float32(0.03), "xmax": np.float32(1.1)})
    bits = quantizer.bits(p)
    for v in p.values():
        v.g = 0
    bits.forward()
    bits.backward()
    span = np.round(np.log2(1.1)) - np.round(np.log2(0.03))
    slope = 1 / (LN2 * (span + 1)) / LN2
    assert float(p["xmax"].g) == pytest.approx(slope / 1.1, rel=1e-5)
    assert float(p["xmin"].g) == pytest.approx(-slope / 0.03, rel=1e-5)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 127, 128, 255, 256, 4095, 4096])
def test_bits_are_whole_numbers_at_every_boundary(levels: int) -> None:
    limits = {"step_limits": (2.0**-14, 1.0), "xmax_limits": (2.0**-14, 2.0**14), "bits_limits": (1.0, 32.0)}
    quantizer = make("uniform_delta_xmax", signed=False, **limits)
    values = {"step": np.float32(2.0**-8), "xmax": np.float32(levels * 2.0**-8)}
    bits = quantizer.bits(variables(values))
    bits.forward()
    assert float(bits.d) == quantizer.grid(values).bits == int(np.ceil(np.log2(levels + 1)))


def test_published_code_spends_more_levels_than_it_counts_and_the_default_does_not() -> None:
    counted = {n: set() for n in (3, 4, 8)}  # type: dict[int, set[int]]
    for n in counted:
        for xmax in np.linspace(0.5, 2, 200):
            values = {"bits": np.float32(n), "xmax": np.float32(xmax)}
            published = make("uniform_b_xmax", signed=True, faithful=True).grid(values)
            counted[n].add(int(published.high))
            assert make("uniform_b_xmax", signed=True).grid(values).levels() == 2**n - 1
    # As measured on the published code: 2 to 4 positive levels at 3 bits, 5 to 10 at 4, 90 to 180 at 8.
    assert (min(counted[3]), max(counted[3])) == (2, 4)
    assert (min(counted[4]), max(counted[4])) == (5, 10)
    assert 88 <= min(counted[8]) <= 92 and 176 <= max(counted[8]) <= 180


def test_published_saturation_level() -> None:
    values = {"step": np.float32(0.13), "xmax": np.float32(1.07)}
    published = make("uniform_delta_xmax", signed=True, faithful=True).grid(values)
    assert float(published.quantize(np.array([9.0]))[0]) == 1.125


@pytest.mark.parametrize("name", ["uniform_delta_xmax", "pow2_xmin_xmax"])
def test_learning_step_and_range_fits_a_normal_distribution(name: str) -> None:
    """The paper's toy: minimise the squared error on 10^4 normal numbers; U3 and P3 come down without oscillation."""
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(10000).astype(np.float32))
    quantizer = make(name, signed=True)
    values = start(quantizer, 3, 2.0**-4)
    p = variables(values)
    loss = F.mean(F.squared_error(quantizer.apply(x, p), x))
    solver = S.Sgd(0.05)
    solver.set_parameters(p)
    losses = []
    for _ in range(150):
        solver.zero_grad()
        loss.forward()
        loss.backward()
        losses.append(float(loss.d))
        solver.update()
        for key, value in quantizer.constrain({k: v.d.copy() for k, v in p.items()}).items():
            p[key].d = value
    assert losses[-1] < 0.35 * losses[0]
    assert max(losses[-20:]) - min(losses[-20:]) < 0.02


def test_gaussian_steps_are_the_optimal_ones() -> None:
    """Each step makes the squared error on a fine normal grid least, to the precision that the tables give."""
    from nnmpq.quantizers.fixed import GAUSSIAN_STEPS, HALF_WAVE_STEPS

    x = np.linspace(-8, 8, 400001)
    density = np.exp(-(x**2) / 2)

    def error(step: float, bits: int) -> float:
        half = 2 ** (bits - 1)
        y = (np.clip(np.floor(x / step), -half, half - 1) + 0.5) * step
        return float(np.sum(density * (x - y) ** 2))

    def half_wave_error(step: float, bits: int) -> float:
        y = np.clip(np.floor(x / step + 0.5), 0, 2**bits - 1) * step
        return float(np.sum(density * (x > 0) * (x - y) ** 2))

    for bits, step in enumerate(GAUSSIAN_STEPS, 1):
        assert error(step, bits) < min(error(step * 0.98, bits), error(step * 1.02, bits)), bits
    for bits, step in list(enumerate(HALF_WAVE_STEPS, 1))[4:]:
        assert half_wave_error(step, bits) < min(half_wave_error(step * f, bits) for f in (0.98, 1.02)), bits
