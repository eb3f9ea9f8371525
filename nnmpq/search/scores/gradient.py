"""Gradient times quantization error."""

from __future__ import annotations

import numpy as np

from nnmpq.search.scores.first_order import summed
from nnmpq.search.scores.graphs import ScoreGraphs
from nnmpq.search.task import SearchTask


def score(task: SearchTask, graphs: ScoreGraphs) -> dict[str, dict[int, float]]:
    """Return to first order the most that an image's loss can change when one site is quantized.

    loss[s][b] = mean over images n of sum_i |g_ni e_i|, g_n = dL_n / dx, e = Q_b(x) - x, L_n the cross entropy in nats.

    One forward and one backward run an image serve all sites and widths.

    Args:
        task: what was asked for.
        graphs: the network and the training images that it is scored on.

    Source:
        Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017, equation
        8, with the quantization error for what is pruned away.
    """
    return summed(task, graphs, np.abs)
