"""Pooling primitives against windows written out in numpy."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from nnmpq.onednn.library import OneDnnError
from nnmpq.onednn.pooling import AVERAGE_WITH_PAD, AVERAGE_WITHOUT_PAD, MAXIMUM, PoolingSpec, pooling_plan
from nnmpq.onednn.primitive import buffer_of
from tests.onednn.arrays import address, first, last, normal, worst

# batch, channels, size, output size, kernel, stride, pad
CASES = [
    (1, 1, (1, 1), (1, 1), (1, 1), (1, 1), (0, 0)),
    (2, 3, (7, 5), (3, 2), (2, 2), (2, 2), (0, 0)),
    (2, 17, (9, 8), (5, 4), (3, 3), (2, 2), (1, 1)),
    (1, 16, (6, 10), (2, 9), (5, 2), (1, 1), (0, 0)),
    (3, 5, (7, 7), (1, 1), (7, 7), (1, 1), (0, 0)),
    (2, 4, (6, 6), (3, 3), (3, 3), (2, 2), (0, 0)),
]


def reference(spec: PoolingSpec, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output and gradient, window by window; the first of equal maxima gets the gradient."""
    y, gx = np.zeros(g.shape), np.zeros(x.shape)
    for i, j in np.ndindex(*spec.output_size):
        starts = [index * s - p for index, s, p in zip((i, j), spec.stride, spec.pad)]
        rows, columns = (slice(max(0, a), min(length, a + k)) for a, k, length in zip(starts, spec.kernel, spec.size))
        window = x[:, :, rows, columns].astype(np.float64)
        if spec.algorithm == MAXIMUM:
            flat = window.reshape(*window.shape[:2], -1)
            best = flat.argmax(-1)
            y[:, :, i, j] = flat.max(-1)
            r, c = np.unravel_index(best, window.shape[2:])
            n, k = np.ogrid[: x.shape[0], : x.shape[1]]
            np.add.at(gx, (n, k, r + rows.start, c + columns.start), g[:, :, i, j])
            continue
        inside = window.shape[2] * window.shape[3]
        divisor = np.prod(spec.kernel) if spec.algorithm == AVERAGE_WITH_PAD else inside
        y[:, :, i, j] = window.sum((2, 3)) / divisor
        gx[:, :, rows, columns] += (g[:, :, i, j] / divisor)[:, :, None, None]
    return y, gx


@pytest.mark.parametrize("algorithm", [MAXIMUM, AVERAGE_WITH_PAD, AVERAGE_WITHOUT_PAD])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_passes(case, algorithm):
    spec = PoolingSpec(algorithm, *case)
    if algorithm == AVERAGE_WITH_PAD and case is CASES[-1]:
        pytest.skip("what hangs over the border is not used with this divisor")
    x = normal((spec.batch, spec.channels, *spec.size), 1)
    g = normal((spec.batch, spec.channels, *spec.output_size), 2)
    expected, gradient = reference(spec, x, g)
    plan = pooling_plan(spec, 1)
    y, gx = np.full(last(g).shape, np.nan, np.float32), np.full(last(x).shape, np.nan, np.float32)
    kept, place = buffer_of(plan.workspace) if plan.workspace is not None else (None, 0)
    workspace = [place] if kept is not None else []
    moved, moved_gradient = last(x), last(g)
    plan.forward(address(moved), address(y), *workspace)
    plan.backward(address(moved_gradient), address(gx), *workspace)
    assert worst(first(y), expected) < 1e-6
    assert worst(first(gx), gradient) < 1e-6


def test_only_a_maximum_remembers_places():
    for algorithm, remembers in ((MAXIMUM, True), (AVERAGE_WITH_PAD, False)):
        assert (pooling_plan(PoolingSpec(algorithm, *CASES[1]), 1).workspace is not None) is remembers


@pytest.mark.parametrize("changes", [dict(stride=(0, 1)), dict(algorithm=7), dict(channels=-3)], ids=str)
def test_what_fits_nothing_is_refused_with_the_status(changes):
    spec = attrs.evolve(PoolingSpec(MAXIMUM, *CASES[1]), **changes)
    with pytest.raises(OneDnnError, match=r"oneDNN: .* failed with status \d"):
        pooling_plan(spec, 1).forward  # noqa: B018
