"""Memory descriptors and primitives: built once, then called with pointers alone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_int64, c_void_p
from typing import Any

import nnabla as nn
import numpy as np

from nnmpq.onednn.library import Argument, OneDnnError, check, session

FLOAT32 = 3
ANY = 1
SOURCE, DESTINATION, WEIGHTS, BIAS, WORKSPACE, SCRATCHPAD = 1, 17, 33, 41, 64, 80
SOURCE_GRADIENT, DESTINATION_GRADIENT, WEIGHTS_GRADIENT, BIAS_GRADIENT = 129, 145, 161, 169
# What a primitive's descriptor can be asked for.
WEIGHTS_LAYOUT, WEIGHTS_GRADIENT_LAYOUT, WORKSPACE_LAYOUT, SCRATCHPAD_LAYOUT = 131, 132, 135, 136


def dims(values: Sequence[int]) -> Any:
    """Return whole numbers as oneDNN's `dnnl_dims_t`."""
    return (c_int64 * 12)(*values)


def channel_last_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor whose channels, axis 1, are stored last.

    Args:
        shape: (N, C, spatial...).

    Example:
        >>> channel_last_strides((8, 16, 32, 32))
        (16384, 1, 512, 16)
    """
    order = [0, *range(2, len(shape)), 1]
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def plain_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor that is stored in the order of its axes.

    Example:
        >>> plain_strides((8, 16, 3, 3))
        (144, 9, 3, 1)
    """
    strides, step = [0] * len(shape), 1
    for axis in reversed(range(len(shape))):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


class Layout:
    """A memory descriptor: shape and strides, or "any", which leaves the order of elements to oneDNN."""

    def __init__(self, handle: c_void_p) -> None:
        self.handle = handle

    @classmethod
    def strided(cls, shape: Sequence[int], strides: Sequence[int]) -> Layout:
        """Describe float32 numbers at given strides, in elements."""
        handle = c_void_p()
        create = session().functions.dnnl_memory_desc_create_with_strides
        check(create(byref(handle), len(shape), dims(shape), FLOAT32, dims(strides)), f"describing {tuple(shape)}")
        return cls(handle)

    @classmethod
    def any(cls, shape: Sequence[int]) -> Layout:
        """Describe float32 numbers in whatever order oneDNN likes best."""
        handle = c_void_p()
        create = session().functions.dnnl_memory_desc_create_with_tag
        check(create(byref(handle), len(shape), dims(shape), FLOAT32, ANY), f"describing {tuple(shape)}")
        return cls(handle)

    def equals(self, other: Layout) -> bool:
        """Return whether two layouts put every element in the same place."""
        return bool(session().functions.dnnl_memory_desc_equal(self.handle, other.handle))

    def size(self) -> int:
        """Return the bytes that it takes, padding included."""
        return int(session().functions.dnnl_memory_desc_get_size(self.handle))

    def __del__(self) -> None:
        session().functions.dnnl_memory_desc_destroy(self.handle)


class Primitive:
    """An operation on given shapes.

    Args:
        create: oneDNN's function that makes the descriptor.
        arguments: what it takes after the descriptor's address.
        what: for messages.
        hint: descriptor of the forward operation, kept alive as long as this.
    """

    def __init__(self, create: str, arguments: Sequence[Any], what: str, hint: Primitive | None = None) -> None:
        self.functions = session().functions
        self.stream = session().stream
        self.context = nn.Context(["cpu:float"], "CpuCachedArray", "0")
        self.what = what
        self.hint = hint
        self.description, self.primitive = c_void_p(), c_void_p()
        self.memories: list[c_void_p] = []
        check(getattr(self.functions, create)(byref(self.description), *arguments), f"planning {what}")
        check(self.functions.dnnl_primitive_create(byref(self.primitive), self.description), f"making {what}")

    def layout(self, which: int) -> Layout:
        """Return the layout that the primitive wants, such as `WEIGHTS_LAYOUT`."""
        handle = c_void_p()
        owned = self.functions.dnnl_primitive_desc_query_md(self.description, which, 0)
        if not owned:
            raise OneDnnError(f"oneDNN: {self.what} has no layout {which}")
        check(self.functions.dnnl_memory_desc_clone(byref(handle), c_void_p(owned)), "copying a layout")
        return Layout(handle)

    def bind(self, *roles: tuple[int, Layout]) -> None:
        """Say once which tensors a call gets, in this order."""
        scratch = self.layout(SCRATCHPAD_LAYOUT)
        self.scratch = (-(-scratch.size() // 4),)
        if any(self.scratch):
            roles = (*roles, (SCRATCHPAD, scratch))
        self.block = (Argument * len(roles))()
        self.count = len(roles)
        for position, (role, layout) in enumerate(roles):
            memory = c_void_p()
            create = self.functions.dnnl_memory_create
            check(create(byref(memory), layout.handle, session().engine, None), f"binding {self.what}")
            self.memories.append(memory)
            self.block[position].role = role
            self.block[position].memory = memory

    def __call__(self, *pointers: int) -> None:
        """Run on the tensors at these addresses, in the order of `bind`."""
        place = self.functions.dnnl_memory_set_data_handle
        for memory, pointer in zip(self.memories, pointers):
            place(memory, pointer)
        if len(pointers) < self.count:
            # Out of nnabla's cache, where tensors that are done with have left theirs.
            scratch = nn.NdArray(self.scratch)
            place(self.memories[-1], scratch.data_ptr(np.float32, self.context, True))
        status = self.functions.dnnl_primitive_execute(self.primitive, self.stream, self.count, self.block)
        if status:
            check(status, self.what)

    def __del__(self) -> None:
        for memory in self.memories:
            self.functions.dnnl_memory_destroy(memory)
        if self.primitive:
            self.functions.dnnl_primitive_destroy(self.primitive)
        if self.description:
            self.functions.dnnl_primitive_desc_destroy(self.description)


def reorder(source: Layout, destination: Layout) -> Primitive:
    """Return a primitive that copies from one layout to another; its pointers are from, to."""
    engine = session().engine
    arguments = (source.handle, engine, destination.handle, engine, session().attributes)
    primitive = Primitive("dnnl_reorder_primitive_desc_create", arguments, "reorder")
    primitive.bind((SOURCE, source), (DESTINATION, destination))
    return primitive


def buffer_of(layout: Layout) -> tuple[Any, int]:
    """Return memory for a layout, aligned to 64 bytes, and its address."""
    memory = ctypes.create_string_buffer(layout.size() + 64)
    return memory, (ctypes.addressof(memory) + 63) // 64 * 64
