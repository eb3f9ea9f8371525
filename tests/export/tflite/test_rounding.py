from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.export.tflite.rounding import mean_of, multiplied, multiplier_of


def twice_rounded(number: int, multiplier: int, shift: int) -> int:
    """The definition: the upper half of the doubled product, ties up; then a division, ties away from 0."""
    upper = floor(Fraction(number * 2 ** max(shift, 0) * multiplier, 2**31) + Fraction(1, 2))
    divided = Fraction(abs(upper), 2 ** max(-shift, 0))
    return (1 if upper >= 0 else -1) * floor(divided + Fraction(1, 2))


def once_rounded(number: int, multiplier: int, shift: int) -> int:
    return floor(Fraction(number * multiplier, 2**31) * Fraction(2) ** shift + Fraction(1, 2))


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**24), 2**24), st.floats(2.0**-31, 60.0))
def test_products_are_those_of_the_definition(number: int, real: float) -> None:
    multiplier, shift = multiplier_of(np.array(real))
    assert 2**30 <= multiplier < 2**31
    assert abs(float(multiplier) * 2.0 ** (int(shift) - 31) / real - 1) <= 2.0**-31
    sums = np.array([number, -number, 0])
    for rounding, definition in (("double", twice_rounded), ("single", once_rounded)):
        wanted = [definition(int(value), int(multiplier), int(shift)) for value in sums]
        assert multiplied(sums, multiplier, shift, rounding).tolist() == wanted


def test_multipliers_at_the_ends() -> None:
    # Just below one, the rounded mantissa is 2^31, which 32 bits do not hold.
    multiplier, shift = multiplier_of(np.array([1 - 2.0**-40, 2.0**-33, 2.0**-32]))
    assert multiplier.tolist() == [2**30, 0, 2**30] and shift.tolist() == [1, 0, -31]


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**29])
def test_a_sum_that_leaves_32_bits_is_refused(number: int) -> None:
    with pytest.raises(OverflowError, match="leaves 32 bits"):
        multiplied(np.array([number]), *multiplier_of(np.array(5.0)))


def test_the_mean_is_rounded_twice_too() -> None:
    # 1 / 4: half of it is rounded to 1, and half of that to 1 again. Rounded once it is 0.
    assert mean_of(np.array([1]), 4, 1.0).tolist() == [1]
    assert mean_of(np.array([1]), 4, 1.0, "single").tolist() == [0]
    sums = np.arange(-4000, 4000)
    for elements in (9, 49, 64):
        found = mean_of(sums, elements, 0.5, "single")
        # Its multiplier is cut off, so that a tie, and no more, may be missed.
        assert np.abs(found - sums / elements / 2).max() <= 0.5 + 1e-4
