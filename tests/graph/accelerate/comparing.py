"""Run a graph plainly and accelerated, and compare everything that a training step sees."""

from __future__ import annotations

from typing import Callable

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.graph.accelerate import Accelerated, accelerate

TOLERANCE = 1e-5
Numbers = dict[str, np.ndarray]


def leaf(shape: tuple[int, ...], seed: int = 0, need_grad: bool = True, scale: float = 1.0) -> nn.Variable:
    """A variable of normal random numbers."""
    v = nn.Variable(shape, need_grad=need_grad)
    v.d = np.random.RandomState(seed).randn(*shape) * scale
    return v


def weighed(y: nn.Variable, seed: int = 99) -> nn.Variable:
    """A loss whose gradient is different at every element of an output."""
    w = leaf(y.shape, seed, need_grad=False)
    return F.sum(F.mul2(y, w))


def one_step(loss: nn.Variable, outputs: list[nn.Variable], leaves: dict[str, nn.Variable]) -> Numbers:
    """Outputs, gradients and contents of leaves after a forward and a backward pass; leaves are put back."""
    start = {name: v.d.copy() for name, v in leaves.items()}
    for y in (loss, *outputs):
        y.persistent = True
    loss.forward(clear_no_need_grad=True)
    # Not the loss itself: a sum of numbers of both signs keeps few digits.
    found = {f"output {i}": np.array(y.d) for i, y in enumerate(outputs)}
    for v in leaves.values():
        v.grad.zero()
    loss.backward(clear_buffer=True)
    found.update({f"gradient of {name}": np.array(v.g) for name, v in leaves.items() if v.need_grad})
    found.update({f"data of {name}": np.array(v.d) for name, v in leaves.items()})
    for name, v in leaves.items():
        v.d = start[name]
    return found


def differences(expected: Numbers, found: Numbers, tolerance: float = TOLERANCE) -> list[str]:
    """What differs by more than the tolerance, relative to the largest number of its tensor."""
    assert expected.keys() == found.keys()
    said = []
    for name, numbers in expected.items():
        scale = np.abs(numbers).max(initial=0.0) + 1e-12
        error = np.abs(numbers - found[name]).max(initial=0.0) / scale
        if not error <= tolerance:
            said.append(f"{name}: {error:.3g}")
    return said


def compare(
    build: Callable[[], tuple[nn.Variable, dict[str, nn.Variable]]], tolerance: float = TOLERANCE
) -> Accelerated:
    """Assert that a graph and its accelerated form agree; return the latter."""
    y, leaves = build()
    loss = weighed(y)
    # nnabla may work in place, so that the output's own buffer is gone: a copy is looked at.
    seen = F.mul_scalar(y, 1.0)
    total = F.add2(loss, F.mul_scalar(F.sum(seen), 1e-3))
    fast = accelerate([total, seen])
    expected = one_step(total, [seen], leaves)
    found = one_step(fast.outputs[0], [fast.outputs[1]], leaves)
    wrong = differences(expected, found, tolerance)
    assert not wrong, wrong
    return fast
