"""The diagonal of the Fisher information, times the squared quantization error."""

from __future__ import annotations

import numpy as np

from nnmpq.search.scores.first_order import summed
from nnmpq.search.scores.graphs import ScoreGraphs
from nnmpq.search.task import SearchTask


def score(task: SearchTask, graphs: ScoreGraphs) -> dict[str, dict[int, float]]:
    """Return to second order what the loss grows by when one site is quantized, with the Fisher information as Hessian.

    loss[s][b] = 1/2 mean over images n of sum_i g_ni^2 e_i^2, g_n = dL_n / dx, e = Q_b(x) - x.

    The labels are those of the data (the empirical Fisher information); only its diagonal is used.

    Args:
        task: what was asked for.
        graphs: the network and the training images that it is scored on.

    Source:
        Zandonati et al., "FIT: A Metric for Model Sensitivity", ICLR 2023, equation 5.
    """
    return {
        name: {bits: 0.5 * value for bits, value in own.items()}
        for name, own in summed(task, graphs, np.square).items()
    }
