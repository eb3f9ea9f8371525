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
    names = list(graphs.widths)
    made: list[_Curvature] = []

    def probe_all(probe: str) -> list[float]:
        if not made:
            made.append(_Curvature.build(task, graphs, len(batches[0][0])))
        return made[0].probe(np.random.default_rng((task.seed, int(probe))), batches[int(probe) % len(batches)])

    estimates, images = [], graphs.images
    for probe, found in graphs.pieces.each([str(i) for i in range(probes)], probe_all, len(names)):
        estimates.append(found)
        # Three directions each: weights, biases, activations.
        images += _Curvature.groups(graphs) * len(batches[0][0])
        task.report({"probe": int(probe), "images": images})
    return {name: interval(own) for name, own in zip(names, np.array(estimates).T)}


@attrs.frozen(eq=False)
class _Curvature:
    """The graph of the gradient along signs, whose own gradient is the Hessian times those signs."""

    graph: DerivativeGraph
    signs: dict[str, nn.Variable]
    directional: nn.Variable
    roles: dict[str, str]

    @classmethod
    def build(cls, task: SearchTask, graphs: ScoreGraphs, batch_size: int) -> _Curvature:
        graph = DerivativeGraph.build(task, graphs, batch_size)
        (loss,) = without_depthwise([graph.loss])
        gradients = nn.grad([loss], list(graph.leaves.values()))
        signs = {name: nn.Variable(leaf.shape) for name, leaf in graph.leaves.items()}
        products = [F.sum(F.mul2(gradient, sign)) for gradient, sign in zip(gradients, signs.values())]
        directional = products[0] if len(products) == 1 else F.add_n(*products)
        return cls(graph, signs, directional, {site.name: site.role for site in graphs.network.sites()})

    @staticmethod
    def groups(graphs: ScoreGraphs) -> int:
        return len({site.role for site in graphs.network.sites() if site.name in graphs.widths})

    def probe(self, rng: np.random.Generator, batch: tuple[np.ndarray, np.ndarray]) -> list[float]:
        """Of every site v' H v."""
        self.graph.set_batch(*batch)
        found: dict[str, float] = {}
        for role in (WEIGHT, BIAS, ACTIVATION):
            group = [name for name in self.signs if self.roles[name] == role]
            for sign in self.signs.values():
                sign.data.zero()
            for name in group:
                self.signs[name].d = rng.integers(0, 2, self.signs[name].shape) * 2.0 - 1.0
            if not group:
                continue
            self.graph.zero_gradients()
            self.directional.forward()
            self.directional.backward()
            for name in group:
                curved = np.array(self.graph.leaves[name].g, np.float64)
                found[name] = float(np.sum(curved * self.signs[name].d))
        return [found[name] for name in self.signs]


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
    if task.machine.communicator.rank == 0:
        atomic_write(task.folder / TRACES_FILE, text.getvalue())
    loss: dict[str, dict[int, float]] = {}
    for name, widths in graphs.widths.items():
        x = graphs.numbers(name)
        errors = {bits: np.asarray(graphs.grid(name, bits).quantize(x), np.float64) - x for bits in widths}
        loss[name] = {
            bits: 0.5 * abs(found[name].mean) * float(np.mean(np.square(error))) for bits, error in errors.items()
        }
    return loss
