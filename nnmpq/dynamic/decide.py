"""How the logits of a gate become a choice of precision for every sample."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np


@attrs.frozen(eq=False)
class Decision:
    """What a gate decided.

    Args:
        probabilities: of each precision, shape (B, K).
        chosen: 1 for the precision that is taken, 0 for the others, shape (B, K); no gradient.
        weights: the same with the gradient of the probabilities; None where the choice is learned from rewards.
    """

    probabilities: nn.Variable
    chosen: nn.Variable
    weights: nn.Variable | None = None


def _columns(x: nn.Variable) -> list[nn.Variable]:
    """The columns of (B, K), each of shape (B, 1)."""
    return [F.reshape(column, (-1, 1), inplace=False) for column in F.split(x, axis=1)]


def greedy(logits: nn.Variable, extra: np.ndarray, price: nn.Variable) -> Decision:
    """Take the precision of the largest logit, less what it costs; of equal ones the narrowest.

    chosen = argmax over k of logits_k - price * extra_k

    Args:
        logits: shape (B, K).
        extra: what each precision costs beyond the narrowest, shape (K,), in parts of the largest.
        price: shape (1, 1); 0 asks the gate alone.

    Example:
        >>> x = nn.Variable.from_numpy_array([[0.0, 1.0], [1.0, 0.9], [2.0, 2.0]])
        >>> found = greedy(x, np.array([0.0, 1.0]), F.constant(0, (1, 1)))
        >>> found.chosen.forward(); found.chosen.d[:, 1].tolist()
        [1.0, 0.0, 0.0]
    """
    costs = nn.Variable.from_numpy_array(np.asarray(extra, np.float32).reshape(1, -1))
    scores = F.sub2(F.identity(logits).apply(need_grad=False), F.mul2(costs, price))
    best = F.max(scores, axis=1, keepdims=True, only_index=True)
    columns = [F.equal_scalar(best, float(k)) for k in range(logits.shape[1])]
    return Decision(F.softmax(logits, axis=1), F.concatenate(*columns, axis=1).apply(need_grad=False))


def straight_through(
    logits: nn.Variable, extra: np.ndarray, price: nn.Variable, numbers: nn.Variable, random_share: nn.Variable
) -> Decision:
    """Choose as `greedy` does, with the gradient of the probabilities: hard forward, soft backward.

    Args:
        logits: shape (B, K).
        extra: as of `greedy`.
        price: as of `greedy`.
        numbers: uniform on [0, 1), shape (B, 1).
        random_share: shape (1, 1); 1 draws a precision by lot and teaches the gate nothing, 0 asks the gate.

    Source:
        Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013; CAMP's supervised stage.
    """
    found = greedy(logits, extra, price)
    p = found.probabilities
    asked = F.add_scalar(F.mul_scalar(random_share, -1.0), 1.0)
    lot = _drawn(F.constant(1.0 / logits.shape[1], logits.shape), numbers)
    chosen = F.add2(F.mul2(found.chosen, asked), F.mul2(lot, random_share)).apply(need_grad=False)
    # The difference is zero to the bit, so that the weights are 0 and 1.
    slope = F.mul2(F.sub2(p, F.identity(p).apply(need_grad=False)), asked)
    return Decision(p, chosen, F.add2(chosen, slope))


def _drawn(p: nn.Variable, numbers: nn.Variable) -> nn.Variable:
    """Draw from probabilities (B, K) by numbers (B, 1): 1 and 0, shape (B, K)."""
    total: nn.Variable | None = None
    above = []
    for column in _columns(p)[:-1]:
        total = column if total is None else F.add2(total, column)
        above.append(F.greater_equal(numbers, total))
    # above_k says that the draw lies beyond the first k + 1 precisions.
    columns = [F.add_scalar(F.mul_scalar(above[0], -1.0), 1.0)]
    columns += [F.sub2(first, second) for first, second in zip(above[:-1], above[1:])]
    return F.concatenate(*columns, above[-1], axis=1)


def sampled(logits: nn.Variable, numbers: nn.Variable, exploration: float, random_share: nn.Variable) -> Decision:
    """Draw a precision for every sample.

    p = e + (1 - K e) softmax(logits), drawn from random_share / K + (1 - random_share) p.

    Args:
        logits: shape (B, K).
        numbers: uniform on [0, 1), shape (B, 1): the draw, repeatable.
        exploration: least probability e of each precision, from 0 to below 1 / K.
        random_share: shape (1, 1); 1 draws without the gate, while the paths warm up.

    Example:
        >>> x = nn.Variable.from_numpy_array([[0.0, 0.0]] * 2)
        >>> draw = nn.Variable.from_numpy_array([[0.4], [0.6]])
        >>> found = sampled(x, draw, 0.02, F.constant(0, (1, 1)))
        >>> found.chosen.forward(); found.chosen.d.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    count = logits.shape[1]
    p = F.add_scalar(F.mul_scalar(F.softmax(logits, axis=1), 1 - count * exploration), exploration)
    fixed = F.identity(p).apply(need_grad=False)
    drawn = F.add2(fixed, F.mul2(F.add_scalar(F.mul_scalar(fixed, -1.0), 1.0 / count), random_share))
    return Decision(p, _drawn(drawn, numbers).apply(need_grad=False))


def take(outputs: Sequence[nn.Variable], decision: Decision) -> nn.Variable:
    """Return for every sample the output of the precision that was decided for.

    y = sum over k of weight_k * path_k; equal to the chosen path bit for bit.

    Args:
        outputs: of the K paths, shape (B, ...).
        decision: of the gate.

    Example:
        >>> paths = [F.constant(value, (2, 3)) for value in (1.0, 4.0)]
        >>> which = nn.Variable.from_numpy_array([[1.0, 0.0], [0.0, 1.0]])
        >>> y = take(paths, Decision(which, which))
        >>> y.forward(); y.d[:, 0].tolist()
        [1.0, 4.0]
    """
    if decision.weights is None:
        columns = F.split(decision.chosen, axis=1)
        y = outputs[0]
        for output, column in zip(outputs[1:], columns[1:]):
            y = F.where(column, output, y)
        return y
    # One small matrix product a sample: products that broadcast are many times slower.
    size = int(np.prod(outputs[0].shape[1:]))
    rows = F.concatenate(*(F.reshape(output, (-1, 1, size), inplace=False) for output in outputs), axis=1)
    weights = F.reshape(decision.weights, (-1, 1, len(outputs)), inplace=False)
    return F.reshape(F.batch_matmul(weights, rows), (-1, *outputs[0].shape[1:]), inplace=False)
