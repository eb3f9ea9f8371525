"""Kullback-Leibler divergence of the logits."""

from __future__ import annotations

import numpy as np

from nnmpq.search.scores.graphs import ScoreGraphs
from nnmpq.search.task import SearchTask


def divergence(logits: np.ndarray, others: np.ndarray) -> float:
    """Return the mean over rows of sum_k p_k log(p_k / q_k), p = softmax(logits), q = softmax(others), in nats.

    Args:
        logits: shape (N, classes).
        others: the same shape.

    Example:
        >>> round(divergence(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])), 6)
        0.143841
    """
    p, q = _log_softmax(logits), _log_softmax(others)
    # Rounding can leave a hair less than nothing.
    return max(float(np.mean(np.sum(np.exp(p) * (p - q), axis=1))), 0.0)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - np.max(shifted, axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


def score(task: SearchTask, graphs: ScoreGraphs) -> dict[str, dict[int, float]]:
    """Return how far the answers of the network move when one site alone is quantized.

    loss[s][b] = mean over images of KL(softmax(y) || softmax(y with s at b bits)), in nats.

    The graph is built once; weights are overwritten and put back, activations have bits at run time. It takes one
    run over the images for each site and width.

    Args:
        task: what was asked for.
        graphs: the network and the training images that it is scored on.

    Source:
        Cai et al., "ZeroQ", CVPR 2020, equation 3.
    """
    reference: list[np.ndarray] = []

    def moved(name: str) -> list[float]:
        if not reference:
            reference.append(graphs.logits())
        losses = []
        for bits in graphs.widths[name]:
            with graphs.quantized({name: bits}):
                losses.append(divergence(reference[0], graphs.logits()))
        return losses

    found: dict[str, dict[int, float]] = {}
    # Once for the activations' ranges, once for what the answers are held against.
    runs = 2
    for name, losses in graphs.pieces.each(list(graphs.widths), moved, graphs.most_widths):
        found[name] = dict(zip(graphs.widths[name], losses))
        runs += len(losses)
        seen = {"images": runs * graphs.images}
        task.report({"site": name, **{f"loss_{bits}": loss for bits, loss in found[name].items()}, **seen})
    return found
