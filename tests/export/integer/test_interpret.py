"""The operators of the reader beside their definitions, element by element in Python's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.export.integer import interpret

SIZES = st.integers(1, 6)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADS = st.tuples(st.integers(0, 2), st.integers(0, 2))


def numbers(shape: tuple[int, ...], seed: int, low: int = -9, high: int = 10) -> np.ndarray:
    return np.random.RandomState(seed).randint(low, high, shape).astype(np.int64)


def as_it_is(low: int, high: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays = {"multiplier": np.ones(1, int), "bias": np.array([-low]), "shift": np.zeros(1, int)}
    return {"low": low, "levels": high - low + 1}, arrays


def inside(row: int, column: int, rows: int, columns: int) -> bool:
    return 0 <= row < rows and 0 <= column < columns


@settings(max_examples=80, deadline=None)
@given(
    size=st.tuples(SIZES, SIZES), kernel=PAIRS, stride=PAIRS, pad=PADS, dilation=PAIRS, group=st.integers(1, 3),
    inner=st.integers(1, 2), each=st.integers(1, 2), seed=st.integers(0, 99),
)  # fmt: skip
def test_convolution(size, kernel, stride, pad, dilation, group, inner, each, seed) -> None:
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    out = [(n + 2 * p - r) // s + 1 for n, p, r, s in zip(size, pad, reach, stride)]
    if min(n + 2 * p - r for n, p, r in zip(size, pad, reach)) < 0:
        return
    x, w = numbers((2, group * inner, *size), seed), numbers((group * each, *kernel, inner), seed + 1)
    operation = {"stride": stride, "pad": pad, "dilation": dilation, "group": group}
    found = interpret.convolve(x, w, operation)
    assert found.shape == (2, group * each, *out)
    for (n, o, i, j), total in np.ndenumerate(found):
        wanted = 0
        for a, b, c in np.ndindex(*kernel, inner):
            row, column = i * stride[0] - pad[0] + a * dilation[0], j * stride[1] - pad[1] + b * dilation[1]
            if inside(row, column, *size):
                wanted += int(x[n, o // each * inner + c, row, column]) * int(w[o, a, b, c])
        assert total == wanted


@settings(max_examples=80, deadline=None)
@given(size=st.tuples(SIZES, SIZES), kernel=PAIRS, stride=PAIRS, border=st.booleans(), seed=st.integers(0, 99))
def test_pooling(size, kernel, stride, border, seed) -> None:
    pad = (min(kernel[0] - 1, 1), min(kernel[1] - 1, 1))
    if min(n + 2 * p - k for n, p, k in zip(size, pad, kernel)) < 0:
        return
    x = numbers((2, 3, *size), seed)
    out = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, pad, kernel, stride)]
    # With a border one more window may hang over the edge, but must begin inside.
    over = [int(border and n * s - p < length) for n, s, p, length in zip(out, stride, pad, size)]
    larger = [n + extra for n, extra in zip(out, over)]
    geometry = {"kernel": kernel, "stride": stride, "pad": pad}
    most = interpret.step({"kind": "max_pool", "size": larger, "arrays": {}, **geometry}, [x])
    plain, arrays = as_it_is(-100, 100)
    total = interpret.step({"kind": "average_pool", "arrays": arrays, **plain, **geometry}, [x])
    assert most.shape == (2, 3, *larger) and total.shape == (2, 3, *out)
    for (n, c, i, j), largest in np.ndenumerate(most):
        places = [(i * stride[0] - pad[0] + a, j * stride[1] - pad[1] + b) for a, b in np.ndindex(*kernel)]
        seen = [int(x[n, c, row, column]) for row, column in places if inside(row, column, *size)]
        assert largest == max(seen)
        if i < out[0] and j < out[1]:
            assert total[n, c, i, j] == sum(seen)


@settings(max_examples=50, deadline=None)
@given(size=st.tuples(SIZES, SIZES), stride=PAIRS, before=st.integers(0, 3), after=st.integers(0, 3))
def test_selection_and_concatenation(size, stride, before, after) -> None:
    x = numbers((2, 2, *size), 5)
    operation = {"kind": "select", "stride": stride, "before": before, "channels": before + 2 + after, "arrays": {}}
    found = interpret.step(operation, [x])
    rows, columns = (-(-n // s) for n, s in zip(size, stride))
    assert found.shape == (2, before + 2 + after, rows, columns)
    for (n, c, i, j), value in np.ndenumerate(found):
        kept = before <= c < before + 2
        assert value == (x[n, c - before, i * stride[0], j * stride[1]] if kept else 0)
    joined = interpret.step({"kind": "concatenate", "multipliers": [3, -2], "arrays": {}}, [x, x[:, :1]])
    np.testing.assert_array_equal(joined[:, :2], 3 * x)
    np.testing.assert_array_equal(joined[:, 2:], -2 * x[:, :1])


@given(multipliers=st.lists(st.integers(-50, 50), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_sums_of_multiples_are_held_between_their_ends(multipliers: list[int], seed: int) -> None:
    parts = [numbers((1, 2, 3, 3), seed + place) for place in range(len(multipliers))]
    plain, arrays = as_it_is(-20, 30)
    found = interpret.step({"kind": "sum", "multipliers": multipliers, "arrays": arrays, **plain}, parts)
    for place, value in np.ndenumerate(found):
        assert value == min(max(sum(m * int(part[place]) for m, part in zip(multipliers, parts)), -20), 30)


def test_an_operation_of_a_later_version_is_refused() -> None:
    with pytest.raises(ValueError, match="operation 'softmax' is not one that this reader knows"):
        interpret.step({"kind": "softmax", "arrays": {}}, [np.zeros((1, 1, 1, 1), int)])
