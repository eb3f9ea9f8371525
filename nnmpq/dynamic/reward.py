"""What gates are rewarded for, and the loss whose gradient is that of the expected reward."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

BASELINES = ("none", "batch", "greedy")


def _detached(x: nn.Variable) -> nn.Variable:
    return F.identity(x).apply(need_grad=False)


@attrs.frozen(eq=False)
class Action:
    """What one gate did for every sample of a batch.

    Args:
        chosen: which precision, as 1 and 0, shape (B, K); no gradient.
        probabilities: what it was drawn from, shape (B, K).
    """

    chosen: nn.Variable
    probabilities: nn.Variable


def returns(
    cross_entropies: nn.Variable,
    actions: Sequence[Action],
    savings: np.ndarray,
    alpha: nn.Variable,
    gamma: float = 1.0,
    *,
    over_batch: bool = False,
) -> list[nn.Variable]:
    """Return what each gate's choice brought.

    R_l = sum over k >= l of gamma^(k - l) * alpha * saving_k  -  gamma^(N - l) * CE, for each sample.

    Args:
        cross_entropies: of each sample, shape (B, 1); no gradient flows back.
        actions: of the N gates, first to last.
        savings: what each choice of each gate saves, shape (N, K); the published ones are 1/N for the narrow path.
        alpha: worth of a saving, shape ().
        gamma: discount.
        over_batch: the cross entropy of every sample is the batch's mean, as a broadcast in the published code has it.

    Returns:
        N variables of shape (B, 1) without gradients.

    Example:
        >>> one = Action(nn.Variable.from_numpy_array([[1.0, 0.0]]), nn.Variable.from_numpy_array([[0.5, 0.5]]))
        >>> (r,) = returns(nn.Variable.from_numpy_array([[2.0]]), [one], np.array([[1.0, 0.0]]), F.constant(0.1, ()))
        >>> r.forward(); round(float(r.d[0, 0]), 6)
        -1.9

    Source:
        Wang et al., "SkipNet", ECCV 2018, section 3.3, with CAMP's reward for the narrow path.
    """
    entropies = _detached(cross_entropies)
    if over_batch:
        entropies = F.add2(F.mul_scalar(entropies, 0.0), F.mean(entropies, axis=0, keepdims=True))
    value = F.mul_scalar(entropies, -1.0)
    found = []
    for action, saving in zip(reversed(actions), reversed(list(savings))):
        weights = nn.Variable.from_numpy_array(np.asarray(saving, np.float32).reshape(1, -1))
        saved = F.sum(F.mul2(action.chosen, weights), axis=1, keepdims=True)
        value = F.add2(F.mul2(saved, F.reshape(alpha, (1, 1), inplace=False)), F.mul_scalar(value, gamma))
        found.append(_detached(value))
    return found[::-1]


def policy_loss(
    actions: Sequence[Action], gains: Sequence[nn.Variable], baselines: Sequence[nn.Variable] | None
) -> nn.Variable:
    """Return the loss whose gradient is the policy gradient: sum over gates of mean(-log pi(a) * (R - baseline)).

    Args:
        actions: of the gates.
        gains: what `returns` gave.
        baselines: what is subtracted from each, shape (B, 1); None subtracts nothing.

    Example:
        >>> one = Action(nn.Variable.from_numpy_array([[1.0, 0.0]]), nn.Variable.from_numpy_array([[0.25, 0.75]]))
        >>> loss = policy_loss([one], [F.constant(2.0, (1, 1))], None)
        >>> loss.forward(); round(float(loss.d), 4), round(-2 * float(np.log(0.25)), 4)
        (2.7726, 2.7726)

    Source:
        Williams, "Simple statistical gradient-following algorithms", 1992, equation 4.
    """
    terms = []
    for number, (action, gain) in enumerate(zip(actions, gains)):
        taken = F.sum(F.mul2(action.probabilities, action.chosen), axis=1, keepdims=True)
        likelihood = F.log(F.add_scalar(taken, 1e-12))
        advantage = gain if baselines is None else F.sub2(gain, baselines[number])
        terms.append(F.mul_scalar(F.mean(F.mul2(likelihood, _detached(advantage))), -1.0))
    return F.add_n(*terms)


def batch_means(gains: Sequence[nn.Variable]) -> list[nn.Variable]:
    """Return the mean over the batch of each return, shape (B, 1)."""
    return [F.add2(F.mul_scalar(g, 0.0), F.mean(g, axis=0, keepdims=True)) for g in gains]


def entropy(actions: Sequence[Action]) -> nn.Variable:
    """Return the mean entropy of the gates' probabilities, in nats, shape ().

    Example:
        >>> one = Action(F.constant(0, (1, 2)), nn.Variable.from_numpy_array([[0.5, 0.5]]))
        >>> h = entropy([one])
        >>> h.forward(); round(float(h.d), 4)
        0.6931
    """
    terms = []
    for action in actions:
        p = action.probabilities
        terms.append(F.mul_scalar(F.mean(F.sum(F.mul2(p, F.log(F.add_scalar(p, 1e-12))), axis=1)), -1.0))
    return F.mul_scalar(F.add_n(*terms), 1.0 / len(terms))


def diversity(actions: Sequence[Action]) -> nn.Variable:
    """Return how much the gates' choices say about their inputs: mean over gates of H(mean p) - mean H(p), shape ().

    The mutual information between a sample and the choice for it, in nats: 0 for gates that treat all samples alike,
    log K where samples go all ways, each surely.

    Args:
        actions: of the gates, over a batch.

    Example:
        >>> split = Action(F.constant(0, (2, 2)), nn.Variable.from_numpy_array([[1.0, 0.0], [0.0, 1.0]]))
        >>> h = diversity([split])
        >>> h.forward(); round(float(h.d), 4)
        0.6931

    Source:
        Bridle et al., "Unsupervised Classifiers, Mutual Information and 'Phantom Targets'", 1991.
    """
    means = [Action(a.chosen, F.mean(a.probabilities, axis=0, keepdims=True)) for a in actions]
    return F.sub2(entropy(means), entropy(actions))
