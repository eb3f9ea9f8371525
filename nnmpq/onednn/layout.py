"""Plans that move a tensor's channels to the last axis of memory, and back."""

from __future__ import annotations

import functools

from nnmpq.onednn.primitive import Layout, Primitive, channel_last_strides, plain_strides, reorder


@functools.lru_cache(maxsize=256)
def to_last(shape: tuple[int, ...], threads: int) -> Primitive:
    """Return the copy of a tensor (N, C, H, W) to channel-last order; its pointers are from, to."""
    del threads
    plain, last = Layout.strided(shape, plain_strides(shape)), Layout.strided(shape, channel_last_strides(shape))
    return reorder(plain, last)


@functools.lru_cache(maxsize=256)
def to_first(shape: tuple[int, ...], threads: int) -> Primitive:
    """Return the way back; the shape is still (N, C, H, W)."""
    del threads
    plain, last = Layout.strided(shape, plain_strides(shape)), Layout.strided(shape, channel_last_strides(shape))
    return reorder(last, plain)
