"""Softmax cross entropy of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnabla as nn
import numpy as np
from numba import njit, prange

from nnmpq.graph.accelerate.base import CPU, CpuFunction, view
from nnmpq.quantizers.buffers import floats_at


@njit(parallel=True, error_model="numpy", cache=True)
def _forward(x, labels, probabilities, y):  # type: ignore[no-untyped-def]
    rows, classes = x.shape
    for r in prange(rows):
        top = x[r, 0]
        for c in range(1, classes):
            top = max(top, x[r, c])
        total = 0.0
        for c in range(classes):
            probabilities[r, c] = np.exp(x[r, c] - top)
            total += probabilities[r, c]
        for c in range(classes):
            probabilities[r, c] /= total
        # A negative label counts for nothing; one that is no class spoils the loss, which training refuses.
        if labels[r] >= classes:
            y[r] = np.nan
        else:
            y[r] = np.log(total) - (x[r, labels[r]] - top) if labels[r] >= 0 else np.float32(0)


@njit(parallel=True, error_model="numpy", cache=True)
def _backward(probabilities, labels, g, gx, adds):  # type: ignore[no-untyped-def]
    rows, classes = gx.shape
    for r in prange(rows):
        for c in range(classes):
            value = np.float32(0)
            if labels[r] >= 0:
                value = g[r] * (probabilities[r, c] - np.float32(c == labels[r]))
            gx[r, c] = gx[r, c] + value if adds else value


class SoftmaxCrossEntropy(CpuFunction):
    """y = log(sum(exp(x))) - x[label], for logits (B, classes) and labels (B, 1)."""

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The labels; probabilities are remembered."""
        return j == 1

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """One number a row."""
        outputs[0].reset_shape(inputs[1].shape, True)
        self.probabilities = np.empty(inputs[0].shape, np.float32)

    def _labels(self, variable: Any) -> np.ndarray:
        # As whole numbers, whatever they were assigned as.
        address = variable.data.data_ptr(np.int32, CPU, False)
        return floats_at(address, variable.size).view(np.int32)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        """Compute probabilities and entropies."""
        x = view(inputs[0].data).reshape(self.probabilities.shape)
        labels = self._labels(inputs[1])
        _forward(x, labels, self.probabilities, view(outputs[0].data, True))

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accumulate: Sequence[bool],
    ) -> None:
        """Probability minus one at the label."""
        if propagate_down[0]:
            gx = view(inputs[0].grad, not accumulate[0]).reshape(self.probabilities.shape)
            _backward(self.probabilities, self._labels(inputs[1]), view(outputs[0].grad), gx, accumulate[0])
