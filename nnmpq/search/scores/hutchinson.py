"""The trace of the Hessian by random probes, times the squared quantization error."""

from __future__ import annotations

import csv
import io

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np
from scipy.stats import t as students_t

from nnmpq.files import atomic_write
from nnmpq.graph.network import ACTIVATION, BIAS, WEIGHT
from nnmpq.search.scores.derivatives import DerivativeGraph, without_depthwise
from nnmpq.search.scores.graphs import ScoreGraphs
from nnmpq.search.task import SearchTask

PROBES = 64
CONFIDENCE = 0.95
TRACES_FILE = "traces.csv"


@attrs.frozen
class Trace:
    """An estimate of tr(d^2 L / dx^2).

    Args:
        mean: of the probes.
        low: lower end of its 95 % confidence interval, by Student's t.
        high: upper end.
        probes: how many there were.
    """

    mean: float
    low: float
    high: float
    probes: int


def interval(estimates: np.ndarray) -> Trace:
    """Return mean and confidence interval of independent estimates, at least 2.

    Example:
        >>> found = interval(np.array([1.0, 2.0, 3.0]))
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
        (2.0, -0.484, 4.484)
    """
    mean, count = float(np.mean(estimates)), len(estimates)
    width = float(students_t.ppf(0.5 + CONFIDENCE / 2, count - 1) * np.std(estimates, ddof=1) / np.sqrt(count))
    return Trace(mean, mean - width, mean + width, count)


def traces(task: SearchTask, graphs: ScoreGraphs, probes: int = PROBES) -> dict[str, Trace]:
    """Estimate the trace of the Hessian of the mean loss by every site; of an activation, that of one image.

    tr(H) = E[v' H v], v of independent signs. One probe holds signs for all weights at once, another one for all
    biases, a third for all activations: the blocks beside the diagonal have expectation 0, so one pass through the
    gradient's own graph serves them all. Together, the blocks shared with weights would drown the others in noise.

    Args:
        task: its seed draws the probes.
        graphs: the network and the images; probes take turns at the batches.
        probes: how many, at least 2.

    Raises:
        ValueError: fewer than 2 probes give no interval.
    """
    if probes < 2:
        raise ValueError(f"probes = {probes}: a confidence interval needs 2 or more")
    batches = [(x, labels) for x, labels, valid in graphs.batches if valid == len(x)]
    graph = DerivativeGraph.build(task, graphs, len(batches[0][0]))
    (loss,) = without_depthwise([graph.loss])
    names = list(graph.leaves)
    gradients = nn.grad([loss], list(graph.leaves.values()))
    signs = {name: nn.Variable(graph.leaves[name].shape) for name in names}
    products = [F.sum(F.mul2(gradient, signs[name])) for name, gradient in zip(names, gradients)]
    directional = products[0] if len(products) == 1 else F.add_n(*products)
    rng = np.random.default_rng(task.seed)
    estimates: dict[str, list[float]] = {name: [] for name in names}
    roles = {site.name: site.role for site in graphs.network.sites()}
    groups = [[name for name in names if roles[name] == role] for role in (WEIGHT, BIAS, ACTIVATION)]
    for probe in range(probes):
        graph.set_batch(*batches[probe % len(batches)])
        for group in filter(None, groups):
            for sign in signs.values():
                sign.data.zero()
            for name in group:
                signs[name].d = rng.integers(0, 2, signs[name].shape) * 2.0 - 1.0
            graph.zero_gradients()
            directional.forward()
            directional.backward()
            for name in group:
                curved = np.array(graph.leaves[name].g, np.float64)
                estimates[name].append(float(np.sum(curved * signs[name].d)))
    return {name: interval(np.array(found)) for name, found in estimates.items()}


def score(task: SearchTask, graphs: ScoreGraphs) -> dict[str, dict[int, float]]:
    """Return to second order what the loss grows by when one site is quantized, its curvature equal for all elements.

    loss[s][b] = 1/2 |tr(H_s)| mean_i e_i^2, H_s = d^2 L / dx_s^2, e = Q_b(x) - x: the mean eigenvalue times ||e||^2.

    The traces with their confidence intervals stay in the run's folder, as `traces.csv`. Where an interval holds 0, the
    estimate is all noise: more images or probes are needed.

    Args:
        task: what was asked for; its `steps` limits the number of probes.
        graphs: the network and the training images that it is scored on.

    Source:
        Dong et al., "HAWQ-V2", NeurIPS 2020, equation 5, and Hutchinson's estimator; the magnitude stands where a
        network that is not at a minimum, or the probes' noise, make a trace negative.
    """
    found = traces(task, graphs, PROBES if task.steps is None else max(2, min(task.steps, PROBES)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("site", *(field.name for field in attrs.fields(Trace))))
    for name, trace in found.items():
        writer.writerow((name, *attrs.astuple(trace)))
        task.report({"site": name, **attrs.asdict(trace)})
    atomic_write(task.folder / TRACES_FILE, text.getvalue())
    loss: dict[str, dict[int, float]] = {}
    for name, widths in graphs.widths.items():
        x = graphs.numbers(name)
        errors = {bits: np.asarray(graphs.grid(name, bits).quantize(x), np.float64) - x for bits in widths}
        loss[name] = {
            bits: 0.5 * abs(found[name].mean) * float(np.mean(np.square(error))) for bits, error in errors.items()
        }
    return loss
