from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.export.integer.program import ExportError, Requantiser
from nnmpq.export.integer.requantise import Grid, fit
from nnmpq.export.onnx.line import FloatLine, float_line, stairs


def two_roundings(line: FloatLine, sums: np.ndarray) -> np.ndarray:
    """Multiply, round, add, round; ties to even: what ONNX says."""
    x = sums.astype(np.float32)
    return finished(line, (x * line.slope).astype(np.float32) + line.offset, sums)


def one_rounding(line: FloatLine, sums: np.ndarray) -> np.ndarray:
    """Fused multiply-add, which processors and compilers may choose."""
    exact = sums.astype(np.float64) * line.slope.astype(np.float64) + line.offset.astype(np.float64)
    return finished(line, exact.astype(np.float32), sums)


def finished(line: FloatLine, values: np.ndarray, sums: np.ndarray) -> np.ndarray:
    found = np.rint(np.clip(values, np.float32(line.low), np.float32(line.high))).astype(int)
    for c, (listed, numbers) in enumerate(zip(line.exception_sum, line.exception_number)):
        for at, number in zip(listed, numbers):
            found[:, c] = np.where(sums[:, c] == at, number, found[:, c])
    return found


def half_away(value: Fraction) -> int:
    whole = int(abs(value) + Fraction(1, 2))
    return whole if value >= 0 else -whole


@settings(max_examples=60, deadline=None)
@given(
    numerator=st.integers(-(2**12), 2**12),
    exponent=st.integers(0, 18),
    offset=st.integers(-(2**8), 2**8),
    signed=st.booleans(),
    bits=st.integers(2, 8),
    reach=st.integers(1, 2000),
)
def test_ties_go_away_from_zero_however_a_runtime_rounds(
    numerator: int, exponent: int, offset: int, signed: bool, bits: int, reach: int
) -> None:
    # Dyadic slopes and offsets of half a step: exact ties are common in the trained network.
    slope, shift = Fraction(numerator, 2**exponent), Fraction(offset, 2)
    low = -(2 ** (bits - 1)) + 1 if signed else 0
    levels = 2**bits - 1 if signed else 2**bits
    sums = np.arange(-reach, reach + 1)[:, None]

    def numbers(s: np.ndarray) -> np.ndarray:
        rounded = [min(max(half_away(slope * int(v) + shift), low), low + levels - 1) for v in s.ravel()]
        return np.array(rounded).reshape(s.shape)

    ends = np.array([-reach]), np.array([reach])
    made = fit(lambda s: numbers(s) - low, Grid(levels, low), np.array([float(slope)]), *ends, "here")
    line = float_line(made, *ends, "here")
    wanted = numbers(sums)
    np.testing.assert_array_equal(two_roundings(line, sums), wanted)
    np.testing.assert_array_equal(one_rounding(line, sums), wanted)


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_finer_than_float32_are_listed(sign: int) -> None:
    # A level is 2^16 sums wide, and ends at a sum that float32, with 255 levels above it, cannot tell from the next.
    edges = np.sort(np.random.RandomState(0).randint(2**15, 2**16, 255) + np.arange(255) * 2**15)
    most = 2**23

    def level_of(sums: np.ndarray) -> np.ndarray:
        return np.searchsorted(edges, sign * sums, side="right")

    made = Requantiser(
        np.array([sign], np.int32), np.array([0]), np.zeros(1, np.uint8), 256, 0, edges=edges, values=np.arange(256)
    )
    ends = (np.array([0]), np.array([most])) if sign > 0 else (np.array([-most]), np.array([0]))
    near = sign * np.unique(np.clip(edges[:, None] + np.arange(-3, 4), 0, most))[:, None]
    climbed = stairs(made, *ends, "here")
    reached = near[:, :, None] * climbed.sign[:, None] >= climbed.threshold[None]
    found = climbed.first + (reached * climbed.rise).sum(-1)
    np.testing.assert_array_equal(found, level_of(near))

    slope = sign * 2.0**-15
    straight = fit(
        lambda s: np.clip(np.floor(s * slope + 0.25), 0, 255).astype(int),
        Grid(256, 0),
        np.array([slope]),
        *ends,
        "line",
    )
    line = float_line(straight, *ends, "line")
    steps = np.arange(1, 256) * 2**15 - 2**13
    near = sign * np.unique(np.clip(steps[:, None] + np.arange(-20, 21), 0, most))[:, None]
    wanted = np.clip(np.floor(near * slope + 0.25), 0, 255).astype(int)
    assert line.exception_sum.shape[1] > 0
    np.testing.assert_array_equal(two_roundings(line, near), wanted)
    np.testing.assert_array_equal(one_rounding(line, near), wanted)


def test_channels_have_their_own_exceptions() -> None:
    slope = np.array([2.0**-15, 0.5, 0.0, -(2.0**-15)])
    low, high = np.array([0, -9, -5, -(2**23)]), np.array([2**23, 9, 5, 0])

    def level_of(sums: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(sums * slope + 0.25), 0, 255).astype(int)

    line = float_line(fit(level_of, Grid(256, 0), slope, low, high, "x"), low, high, "x")
    counts = np.isfinite(line.exception_sum).sum(1)
    assert counts[0] > 0 and counts[3] > 0 and counts[1] == 0 and counts[2] == 0
    sums = np.stack([np.linspace(a, b, 999).astype(int) for a, b in zip(low, high)], 1)
    np.testing.assert_array_equal(two_roundings(line, sums), level_of(sums))


def test_sums_that_float32_cannot_hold_are_refused() -> None:
    made = Requantiser(np.ones(1, np.int32), np.zeros(1, np.int64), np.full(1, 20, np.uint8), 16, 0)
    with pytest.raises(ExportError, match="wide: sums reach 16,777,217; float32 holds whole numbers up to 16,777,216"):
        float_line(made, np.array([0]), np.array([2**24 + 1]), "wide")
    with pytest.raises(ExportError, match="noise: float32 decides the level of"):
        wide = Requantiser(np.full(1, 2**20, np.int32), np.array([2**59]), np.full(1, 44, np.uint8), 2**17, 0)
        float_line(wide, np.array([-(2**24)]), np.array([2**24]), "noise")
