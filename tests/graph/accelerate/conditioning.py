"""Whole networks plainly and accelerated, on inputs where float32 decides nothing by chance.

A ReLU, a maximum or a rounding turns a difference of the last digit into a whole step where a number lies at its edge;
two summation orders then disagree although both are right. So the input is chosen such that noise four times float32's
resolution moves nothing of nnabla's own result by a whole step, and only then are the two held against each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.graph.accelerate import Accelerated, accelerate
from tests.graph.accelerate.comparing import TOLERANCE, Numbers, differences, one_step, weighed

NOISE = 2.0**-22
# Below what a flip does to any tensor here, above what smooth functions make of the noise.
JUMP = 1e-4
SEEDS = 60


def scattered(seed: int = 5) -> dict[str, nn.Variable]:
    """Give all parameters that start as constants numbers of their own; return the scope's parameters."""
    generator = np.random.RandomState(seed)
    found = nn.get_parameters(grad_only=False)
    for name, v in found.items():
        if name.endswith(("gamma", "var")):
            v.d = generator.uniform(0.6, 1.5, v.shape)
        elif name.endswith(("beta", "mean", "/b")):
            v.d = generator.randn(*v.shape) * 0.2
    return dict(found)


def total_of(outputs: Sequence[nn.Variable]) -> tuple[nn.Variable, list[nn.Variable]]:
    """A loss of all outputs, and copies of them: nnabla may work in place, so their own buffers may be gone."""
    seen = [F.mul_scalar(y, 1.0) for y in outputs]
    terms = [weighed(y, 99 + i) for i, y in enumerate(outputs)] + [F.mul_scalar(F.sum(y), 1e-3) for y in seen]
    total = terms[0]
    for term in terms[1:]:
        total = F.add2(total, term)
    return total, seen


def together(numbers: Numbers) -> Numbers:
    """Lay gradients that are nothing but the rest of a cancellation beside numbers of their terms' size.

    A shift that another batch normalization takes away again has no gradient: its sum over positive and negative terms
    is zero but for rounding, and its digits say nothing; the scale's gradient is a sum of as many terms of that size.
    A quantizer's step, range and bits are each a sum over the whole tensor, of which one may cancel.
    """
    found: Numbers = {}
    for name, value in numbers.items():
        group, _, last = name.rpartition("/")
        if name.startswith("gradient") and group.endswith("_quantizer"):
            found[group] = np.append(found.get(group, []), value)
        elif name.startswith("gradient") and last == "beta":
            found[name] = np.append(value, numbers[f"{group}/gamma"])
        else:
            found[name] = value
    return found


def pooled(numbers: Numbers) -> Numbers:
    """Lay all quantizers' gradients side by side: of the many of a large network one or the other cancels wholly."""
    own = [name for name in numbers if name.endswith("_quantizer")]
    rest = {name: value for name, value in numbers.items() if name not in own}
    return {**rest, "all quantizers": np.concatenate([numbers[name] for name in own])} if own else rest


def measured(loss: nn.Variable, seen: list[nn.Variable], leaves: dict[str, nn.Variable]) -> Numbers:
    """One step's numbers, as they can be compared."""
    return together(one_step(loss, seen, leaves))


@contextlib.contextmanager
def moved(leaves: dict[str, nn.Variable], noise: float, seed: int) -> Iterator[None]:
    """Move all leaves by a relative noise of one size and random sign, inside the context."""
    generator = np.random.RandomState(seed)
    start = {name: v.d.copy() for name, v in leaves.items()}
    for name, v in leaves.items():
        v.d = start[name] * (1 + noise * generator.choice([-1, 1], v.shape))
    try:
        yield
    finally:
        for name, v in leaves.items():
            v.d = start[name]


def settle(x: nn.Variable, loss: nn.Variable, seen: list[nn.Variable], leaves: dict[str, nn.Variable]) -> Numbers:
    """Choose the input; return nnabla's results on it."""
    for seed in range(SEEDS):
        x.d = np.random.RandomState(seed).randn(*x.shape)
        expected = measured(loss, seen, leaves)
        for draw in range(3):
            with moved(leaves, NOISE, 1000 * seed + draw):
                jumps = bool(differences(expected, measured(loss, seen, leaves), JUMP))
            if jumps:
                break
        else:
            return expected
    raise AssertionError(f"none of {SEEDS} inputs is away from every edge: the network is too large for this test")


def spread(loss: nn.Variable, seen: list[nn.Variable], leaves: dict[str, nn.Variable], expected: Numbers) -> float:
    """How far nnabla's own numbers move when input and parameters move by float32's resolution, one part in 2^23."""
    largest = 0.0
    for seed in range(3):
        with moved(leaves, 2.0**-23, seed):
            found = pooled(measured(loss, seen, leaves))
        for name, numbers in expected.items():
            error = np.abs(numbers - found[name]).max(initial=0.0)
            largest = max(largest, float(error / (np.abs(numbers).max(initial=0.0) + 1e-12)))
    return largest


def compare_networks(
    x: nn.Variable,
    outputs: Sequence[nn.Variable],
    extra: Sequence[nn.Variable] = (),
    conditioned: bool = True,
    others: dict[str, nn.Variable] | None = None,
) -> Accelerated:
    """Assert that outputs, gradients of all parameters and of the input, and running statistics agree.

    Numbers agree within 1e-5 of the largest one of their tensor.

    Args:
        x: the network's input; gets numbers.
        outputs: of the plain network.
        extra: terms of shape () that the loss adds.
        conditioned: False where rounding alone moves gradients by more than 1e-5, as in deep networks: then the two
            agree within twice what a change of input and parameters in the last digit makes of nnabla's own, since
            each of the two has its own rounding.
        others: leaves beside the scope's parameters.
    """
    loss, seen = total_of(outputs)
    for term in extra:
        loss = F.add2(loss, term)
    leaves = {"input": x, **nn.get_parameters(grad_only=False), **(others or {})}
    fast = accelerate([loss, *seen])
    expected = settle(x, loss, seen, leaves)
    found = measured(fast.outputs[0], list(fast.outputs[1:]), leaves)
    tolerance = TOLERANCE
    if not conditioned:
        expected, found = pooled(expected), pooled(found)
        tolerance = max(tolerance, 2 * spread(loss, seen, leaves, expected))
        assert tolerance < 1e-4, "the network is too ill-conditioned for this test"
    wrong = differences(expected, found, tolerance)
    assert not wrong, f"tolerance {tolerance:.3g}: {wrong}"
    learned = [name for name in expected if "gradient" in name and np.any(expected[name])]
    assert len(learned) > len(leaves) // 4, "a comparison of zeros says nothing"
    return fast
