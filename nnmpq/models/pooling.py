"""Poolings that fit any map."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F


def fitting_pad(x: nn.Variable, kernel: tuple[int, int], pad: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return a padding with which a map is no smaller than a window.

    Args:
        x: map, shape (B, C, H, W).
        kernel: height and width of the window, pixels.
        pad: padding on each side where the map is large enough, pixels.

    Returns:
        `pad`, or as much more on each side as one window needs.

    Example:
        >>> fitting_pad(nn.Variable((1, 8, 35, 35)), (3, 3)), fitting_pad(nn.Variable((1, 8, 1, 1)), (3, 3))
        ((0, 0), (1, 1))
    """
    height, width = (max(p, (k - n + 1) // 2) for n, k, p in zip(x.shape[2:], kernel, pad))
    return height, width


def max_pooling_ceil(x: nn.Variable, kernel: int) -> nn.Variable:
    """Max pooling of stride 2 whose last window may hang over the edge.

    A window that would only see what the one before it saw is left out, as in Caffe and torch: nnabla alone
    makes 8 of 15 pixels with windows of 3. Maps smaller than a window have one window.

    Args:
        x: map, shape (B, C, H, W).
        kernel: side of the window, 2 or 3 pixels.

    Returns:
        Map, shape (B, C, h, w) with h = ceil((H - kernel) / 2) + 1.

    Example:
        >>> [max_pooling_ceil(nn.Variable((1, 8, n, n)), 3).shape[2] for n in (14, 15, 16)]
        [7, 7, 8]
    """

    def fits(length: int) -> bool:
        return length >= kernel and (length - kernel) % 2 == 0

    height, width = map(fits, x.shape[2:])
    if height == width:
        return F.max_pooling(x, (kernel, kernel), (2, 2), ignore_border=height)
    # Only one of the two sides hangs over: one pooling a side.
    x = F.max_pooling(x, (kernel, 1), (2, 1), ignore_border=height)
    return F.max_pooling(x, (1, kernel), (1, 2), ignore_border=width)


def average_pooling_to(x: nn.Variable, side: int) -> nn.Variable:
    """Average pooling to a map of a given size, or as it is where it is smaller.

    The stride is the largest that fits, and the windows reach from edge to edge: 14 pixels become 4 by windows
    of 5 and stride 3, as 17 become 5. So a classifier on the map keeps its size for every larger image.

    Args:
        x: map, shape (B, C, H, W).
        side: greatest height and width of the result, pixels.

    Returns:
        Map, shape (B, C, min(H, side), min(W, side)).

    Example:
        >>> average_pooling_to(nn.Variable((1, 8, 14, 3)), 4).shape
        (1, 8, 4, 3)
    """
    wanted = [min(length, side) for length in x.shape[2:]]
    if list(x.shape[2:]) == wanted:
        return x
    stride = tuple(length // count for length, count in zip(x.shape[2:], wanted))
    kernel = tuple(n - (count - 1) * s for n, count, s in zip(x.shape[2:], wanted, stride))
    return F.average_pooling(x, kernel, stride)
