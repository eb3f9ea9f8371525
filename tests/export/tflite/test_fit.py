from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnmpq.export.integer.program import Requantiser
from nnmpq.export.integer.saved import levels_of
from nnmpq.export.tflite.fit import LARGEST_BIAS, KernelLine, fit_line, nearest_line
from nnmpq.export.tflite.rounding import multiplied, multiplier_of

SHIFT = 24


def requantiser(slope: float, offset: float, levels: int, low: int = 0) -> Requantiser:
    """level = floor(slope * sum + offset + 1/2) - low."""
    multiplier, bias = round(slope * 2**SHIFT), round((offset - low + 0.5) * 2**SHIFT)
    return Requantiser(
        np.array([multiplier], np.int32), np.array([bias], np.int64), np.array([SHIFT], np.uint8), levels, low
    )


def numbers(line: KernelLine, sums: np.ndarray, fill: int, low: int, levels: int) -> np.ndarray:
    """What a kernel makes of sums."""
    weights = fill * line.sign[0] * (not line.flat[0])
    found = multiplied(sums * weights + line.bias[0], *(part[0] for part in multiplier_of(line.rate)))
    return np.clip(found, low, low + levels - 1)


def misses(made: Requantiser, line: KernelLine, fill: int, reach: int) -> float:
    sums = np.arange(-reach, reach + 1)
    wanted = levels_of(made)(sums[:, None])[:, 0] + made.low
    return float(np.mean(numbers(line, sums, fill, made.low, made.levels) != wanted))


@settings(max_examples=60, deadline=None)
@example(1.2897586942010337, 0.5, 1, 200)
@given(st.floats(0.002, 2.0), st.floats(-20, 20), st.sampled_from([1, -1]), st.sampled_from([4, 16, 200]))
def test_full_containers_miss_few_sums(slope: float, offset: float, sign: int, levels: int) -> None:
    made = requantiser(sign * slope, offset, levels)
    ends = np.array([-300]), np.array([300])
    line = fit_line(made, *ends, 127, 0.03)
    assert line.sign[0] == sign or line.flat[0]
    # A bias is a whole number of 1/127 of a sum, and two roundings follow: each of the three may put a sum that lies
    # that near to a threshold, on either side of it, into the wrong level.
    assert misses(made, line, 127, 300) <= 6 / 127
    np.testing.assert_allclose(line.rate, line.scale.astype(np.float64) * 0.03)


def test_fitted_lines_miss_less_than_nearest_biases() -> None:
    rng = np.random.RandomState(0)
    fitted = nearest = 0.0
    for _ in range(40):
        made = requantiser(rng.uniform(0.05, 0.9), rng.uniform(-5, 5), 16)
        ends, slope = (np.array([-60]), np.array([60])), made.multiplier / 2.0**SHIFT
        plain = nearest_line(slope, made.bias / 2.0**SHIFT - 0.5, ends[1].astype(float), 1, 0.03)
        fitted += misses(made, fit_line(made, *ends, 1, 0.03), 1, 60)
        nearest += misses(made, plain, 1, 60)
    assert 0 < fitted < 0.7 * nearest


@pytest.mark.parametrize(("offset", "number"), [(3.2, 3), (-7.0, 0), (99.0, 15)])
def test_channels_without_a_gain_are_constant(offset: float, number: int) -> None:
    line = fit_line(requantiser(0.0, offset, 16), np.array([-50]), np.array([50]), 7, 0.01)
    assert line.flat[0] and line.missed[0] == 0
    assert numbers(line, np.array([-50, 0, 50]), 7, 0, 16).tolist() == [number] * 3


def test_tiny_and_huge_gains_stay_in_32_bits() -> None:
    tiny = nearest_line(np.array([1e-12]), np.array([90.0]), np.array([1e6]), 7, 0.5)
    assert abs(tiny.bias[0]) <= LARGEST_BIAS and round(float(tiny.bias[0] * tiny.rate[0])) == 90
    huge = nearest_line(np.array([1e9]), np.array([0.0]), np.array([1e6]), 7, 0.5)
    # Does not raise, and one sum goes through all levels.
    assert multiplied(np.array([7 * 10**6, 7]), *(p[0] for p in multiplier_of(huge.rate)))[1] >= 255
