"""What the CPU functions have in common: pointers and views of nnabla's buffers, and scratch memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnabla as nn
import numpy as np
from nnabla.function import PythonFunction

from nnmpq.quantizers.buffers import float_view, floats_at

# `Context.__repr__` and friends are slow; one fixed context serves every call.
CPU = nn.Context(["cpu:float"], "CpuCachedArray", "0")


class Scratch:
    """Memory that a function needs within one call; out of nnabla's cache, where finished tensors have left theirs."""

    def __init__(self) -> None:
        self.array: Any = None

    def pointer(self, size: int) -> int:
        """Return the address of so many bytes, aligned to 64; the next request may get the same ones."""
        self.array = None
        self.array = nn.NdArray((size // 4 + 17,))
        return (pointer(self.array, write_only=True) + 63) // 64 * 64

    def floats(self, size: int) -> np.ndarray:
        """Return so many float32 numbers, flat, contents undefined."""
        return floats_at(self.pointer(4 * size), size)


class CpuFunction(PythonFunction):
    """A function on float32 tensors in the CPU's memory.

    By default it has one output, of the first input's shape, and its gradients need every input and no output.
    """

    def __init__(self, scratch: Scratch) -> None:
        super().__init__(CPU)
        self.scratch = scratch

    @property
    def name(self) -> str:
        """Name shown in graphs."""
        return type(self).__name__

    def min_outputs(self) -> int:
        """One output."""
        return 1

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Give the output the first input's shape."""
        outputs[0].reset_shape(inputs[0].shape, True)

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        """No gradient needs the output."""
        return False

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """Every gradient needs every input."""
        return True


def pointer(array: Any, write_only: bool = False) -> int:
    """Return the address of an nnabla array's float32 numbers."""
    return int(array.data_ptr(np.float32, CPU, write_only))


def view(array: Any, write_only: bool = False) -> np.ndarray:
    """View an nnabla array as flat float32 numpy array without a copy."""
    return float_view(array, CPU, write_only=write_only)


def put(array: Any, gradient: np.ndarray, accumulate: bool) -> None:
    """Write or add a small gradient."""
    target = view(array, write_only=not accumulate)
    if accumulate:
        target += gradient.reshape(-1)
    else:
        target[:] = gradient.reshape(-1)
