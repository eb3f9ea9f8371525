"""The short rounding against its definition, at every number where it could go wrong."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from nnmpq.quantizers.rounding import round_half_away


@njit
def _all(numbers):
    out = np.empty_like(numbers)
    for i in range(numbers.size):
        out[i] = round_half_away(numbers[i])
    return out


def _defined(numbers: np.ndarray) -> np.ndarray:
    wide = numbers.astype(np.float64)
    return np.sign(wide) * np.floor(np.abs(wide) + 0.5)


def test_ties_their_neighbours_and_whole_numbers():
    ties = np.arange(0, 1 << 16, dtype=np.float32) + np.float32(0.5)
    near = [ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf)), ties - np.float32(0.5)]
    numbers = np.concatenate([*near, *(-n for n in near)])
    np.testing.assert_array_equal(_all(numbers), _defined(numbers))


@given(st.lists(st.floats(-(2.0**22), 2.0**22, width=32), min_size=1))
def test_any_number(numbers):
    given_numbers = np.array(numbers, np.float32)
    np.testing.assert_array_equal(_all(given_numbers), _defined(given_numbers))
