from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.export.integer.program import ExportError, Requantiser
from nnmpq.export.integer.requantise import Grid, fit, thresholds


def applied(made: Requantiser, sums: np.ndarray) -> np.ndarray:
    """The levels of sums (K, C), in Python's whole numbers: nothing can overflow unseen."""
    out = np.zeros(sums.shape, int)
    exceptions = {
        (int(c), int(s)): int(k)
        for c, s, k in zip(made.exception_channel, made.exception_sum, made.exception_correction)
    }
    for place, total in np.ndenumerate(sums):
        c = place[1]
        v = int(total) * int(made.multiplier[c]) + int(made.bias[c])
        assert -(2**63) <= v < 2**63
        if made.edges is None:
            level = min(max(v >> int(made.shift[c]), 0), made.levels - 1)
        else:
            level = sum(v >= int(edge) for edge in made.edges)
        out[place] = level + exceptions.get((c, int(total)), 0)
    return out


def half_away(value: Fraction) -> int:
    whole = int(abs(value) + Fraction(1, 2))
    return whole if value >= 0 else -whole


def exact_levels(slope: Fraction, offset: Fraction, low: int, levels: int, sums: np.ndarray) -> np.ndarray:
    """round(slope * sum + offset), halves away from zero, in fractions."""
    rounded = [half_away(slope * int(s) + offset) - low for s in sums.ravel()]
    return np.clip(np.array(rounded), 0, levels - 1).reshape(sums.shape)


@settings(max_examples=60, deadline=None)
@given(
    numerator=st.integers(-(2**12), 2**12),
    exponent=st.integers(0, 18),
    offset=st.integers(-(2**8), 2**8),
    signed=st.booleans(),
    bits=st.integers(2, 8),
    reach=st.integers(1, 3000),
)
def test_every_sum_is_rounded_as_fractions_are(
    numerator: int, exponent: int, offset: int, signed: bool, bits: int, reach: int
) -> None:
    # Dyadic slopes and offsets: exact ties on both sides of zero are common.
    slope, shift = Fraction(numerator, 2**exponent), Fraction(offset, 2)
    low = -(2 ** (bits - 1)) + 1 if signed else 0
    levels = 2**bits - 1 if signed else 2**bits
    ends = np.array([-reach]), np.array([reach])
    made = fit(
        lambda s: exact_levels(slope, shift, low, levels, s),
        Grid(levels, low),
        np.array([float(slope)]),
        *ends,
        "here",
    )
    sums = np.arange(-reach, reach + 1)[:, None]
    # Levels below what any sum reaches are left out.
    found = applied(made, sums) + made.low - low
    np.testing.assert_array_equal(found, exact_levels(slope, shift, low, levels, sums))
    assert len(made.exception_sum) == 0


@settings(max_examples=60, deadline=None)
@given(
    numerator=st.integers(1, 2**10),
    negative=st.booleans(),
    exponent=st.integers(0, 12),
    ends=st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(sorted),
    reach=st.integers(30, 2000),
    offsets=st.lists(st.integers(-20, 20), min_size=1, max_size=3),
)
def test_a_clip_inside_the_grid_is_kept(
    numerator: int, negative: bool, exponent: int, ends: list[int], reach: int, offsets: list[int]
) -> None:
    """As ReLU6 before a grid that goes on above 6: no channel reaches the outer levels, and no line may either."""
    slope = Fraction(-numerator if negative else numerator, 2**exponent)

    def level_of(sums: np.ndarray) -> np.ndarray:
        columns = []
        for c, offset in enumerate(offsets):
            exact = exact_levels(slope, Fraction(offset), -9, 19, sums[:, c])
            columns.append(np.clip(exact, ends[0] + 9, ends[1] + 9))
        return np.stack(columns, 1)

    count = len(offsets)
    low = np.full(count, -reach)
    made = fit(level_of, Grid(19, -9), np.full(count, float(slope)), low, -low, "clip")
    sums = np.arange(-reach, reach + 1)[:, None] + np.zeros((1, count), int)
    np.testing.assert_array_equal(applied(made, sums) + made.low, level_of(sums) - 9)
    assert len(made.exception_sum) == 0


def test_clipped_levels_of_powers_of_two_keep_their_values() -> None:
    values = np.array([0, 1, 2, 4, 8, 16], np.int32)

    def level_of(sums: np.ndarray) -> np.ndarray:
        x = np.clip(sums * 0.01, 0, 5)
        power = 2.0 ** np.floor(np.log2(np.maximum(x, 1e-9)) + 0.5)
        return np.searchsorted(values, np.where(power < 1, 0, power))

    made = fit(level_of, Grid(6, 0, values), np.array([0.01]), np.array([-900]), np.array([3000]), "powers")
    sums = np.arange(-900, 3001)[:, None]
    found = np.asarray(made.values)[applied(made, sums)]
    np.testing.assert_array_equal(found, values[level_of(sums)])
    # 5 lies between 4 and 8, under their middle.
    assert found.max() == 4


def test_a_line_that_float32_bends_is_followed_by_exceptions() -> None:
    # Thresholds beside where a straight line has them, by one sum here and there.
    bent = np.array([100, 201, 299, 400, 502, 599, 700])
    made = fit(
        lambda s: np.searchsorted(bent, s, side="right"),
        Grid(8, 0),
        np.array([0.01]),
        np.array([0]),
        np.array([900]),
        "x",
    )
    sums = np.arange(901)[:, None]
    np.testing.assert_array_equal(applied(made, sums)[:, 0], np.searchsorted(bent, sums[:, 0], side="right"))
    assert 0 < len(made.exception_sum) < 10


def test_noise_is_no_line() -> None:
    bent = np.sort(np.random.RandomState(0).randint(0, 10**6, 7))
    with pytest.raises(ExportError, match="noise: float32 decides .* levels by its rounding alone"):
        fit(
            lambda s: np.searchsorted(bent, s, side="right"),
            Grid(8, 0),
            np.array([1e-5]),
            np.array([0]),
            np.array([10**6]),
            "noise",
        )


def test_gains_of_zero_tiny_large_and_negative() -> None:
    slopes = np.array([0.0, 1e-12, 1e9, -0.25, -1e9])

    def level_of(sums: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(sums * slopes + 3.5), 0, 15).astype(int)

    ends = np.full(5, -200), np.full(5, 200)
    made = fit(level_of, Grid(16, 0), slopes, *ends, "gains")
    sums = np.arange(-200, 201)[:, None] + np.zeros((1, 5), int)
    np.testing.assert_array_equal(applied(made, sums), level_of(sums))


def test_power_of_two_levels_lie_at_the_geometric_middle() -> None:
    values = np.array([-4, -2, -1, 0, 1, 2, 4], np.int32)
    slope = 0.01

    def level_of(sums: np.ndarray) -> np.ndarray:
        x = sums * slope
        power = 2.0 ** np.floor(np.log2(np.maximum(np.abs(x), 1e-9)) + 0.5)
        power = np.where(power < 1, 0, np.minimum(power, 4))
        return np.searchsorted(values, np.sign(x) * power)

    made = fit(level_of, Grid(7, 0, values), np.array([slope]), np.array([-700]), np.array([700]), "powers")
    sums = np.arange(-700, 701)[:, None]
    np.testing.assert_array_equal(applied(made, sums), level_of(sums))
    # 1 and 2 meet at sqrt(2) = 1.414...: sum 141 is level 1, 142 level 2.
    assert np.asarray(made.values)[applied(made, np.array([[141], [142]]))].ravel().tolist() == [1, 2]


def test_thresholds_outside_the_range_are_its_ends() -> None:
    found = thresholds(lambda s: s // 10, 6, np.array([12]), np.array([38]))
    assert found.ravel().tolist() == [12, 20, 30, 39, 39]


def test_sums_that_could_overflow_are_refused() -> None:
    with pytest.raises(ExportError, match="wide: sums reach 1073741824"):
        fit(lambda s: s, Grid(2, 0), np.ones(1), np.array([0]), np.array([2**30]), "wide")
    with pytest.raises(ExportError, match="not finite"):
        fit(lambda s: s, Grid(2, 0), np.array([np.inf]), np.array([0]), np.array([9]), "wide")


def test_bytes_of_the_tables() -> None:
    made = Requantiser(np.zeros(3, np.int32), np.zeros(3, np.int64), np.zeros(3, np.uint8), 4, 0)
    assert made.bytes == 3 * (4 + 8 + 1)
