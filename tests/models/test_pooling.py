from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.models.pooling import average_pooling_to, fitting_pad, max_pooling_ceil


def windows(length: int, kernel: int) -> list[tuple[int, int]]:
    """Windows of stride 2 from the left edge, until one reaches the right edge."""
    found = [(0, min(kernel, length))]
    while found[-1][1] < length:
        start = found[-1][0] + 2
        found.append((start, min(start + kernel, length)))
    return found


@pytest.mark.parametrize("kernel", [2, 3])
def test_max_pooling_ceil_reaches_the_edge_once(kernel: int) -> None:
    rng = np.random.RandomState(0)
    for height in range(1, 12):
        for width in (1, 2, 5, 6, 9, 10):
            x = nn.Variable.from_numpy_array(
                rng.randn(1, 2, height, width).astype(np.float32) - 5
            )  # all negative: no zero may win
            y = max_pooling_ceil(x, kernel)
            y.forward()
            rows, columns = windows(height, kernel), windows(width, kernel)
            expected = [[x.d[:, :, a:b, c:d].max((2, 3)) for c, d in columns] for a, b in rows]
            np.testing.assert_array_equal(y.d, np.array(expected).transpose(2, 3, 0, 1))


@pytest.mark.parametrize("length,side,kernel,stride", [(14, 4, 5, 3), (17, 5, 5, 3), (8, 7, 2, 1), (16, 4, 4, 4)])
def test_average_pooling_to(length: int, side: int, kernel: int, stride: int) -> None:
    x = nn.Variable.from_numpy_array(np.random.RandomState(0).randn(1, 2, length, length))
    y = average_pooling_to(x, side)
    y.forward()
    starts = [stride * n for n in range(side)]
    assert starts[-1] + kernel == length
    expected = [[x.d[:, :, a : a + kernel, b : b + kernel].mean((2, 3)) for b in starts] for a in starts]
    np.testing.assert_allclose(y.d, np.array(expected).transpose(2, 3, 0, 1), rtol=1e-5, atol=1e-6)


def test_average_pooling_leaves_small_maps_alone() -> None:
    x = nn.Variable((1, 2, 3, 4))
    assert average_pooling_to(x, 4) is x
    assert average_pooling_to(nn.Variable((1, 2, 3, 9)), 4).shape == (1, 2, 3, 4)


def test_fitting_pad_is_the_least_that_fits() -> None:
    for kernel in (2, 3, 5, 7):
        for length in range(1, 10):
            pad, _ = fitting_pad(nn.Variable((1, 1, length, 99)), (kernel, kernel))
            assert length + 2 * pad >= kernel
            assert pad == 0 or length + 2 * (pad - 1) < kernel
    assert fitting_pad(nn.Variable((1, 1, 2, 9)), (7, 1), (3, 0)) == (3, 0)
