"""Learned steps as indicators: what a step grows or shrinks to when it alone may learn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np

from nnmpq.graph.network import WEIGHT, Network, Site, as_tuple
from nnmpq.graph.quantized import Quantized
from nnmpq.quantizers import make
from nnmpq.search.scores.graphs import LARGEST_BATCH, ScoreGraphs
from nnmpq.search.task import SearchTask
from nnmpq.training.graphs import EvaluationGraph, build_evaluation

UPDATES = 100
LEARNING_RATE = 0.01
MOMENTUM = 0.9
STEP_LIMITS = (2.0**-30, 2.0**20)


@attrs.frozen
class Steps:
    """The scheme with a learned step and run-time bits at every named site.

    Args:
        names: of sites.
    """

    names: tuple[str, ...] = attrs.field(converter=as_tuple)

    def check(self, network: Network) -> None:
        """Raise KeyError where a name is no site's."""
        for name in self.names:
            network.site(name)

    def covers(self, site: Site) -> bool:
        """Return whether the site is named."""
        return site.name in self.names

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Quantize a weight, which stays as it is."""
        return self._place(w, signed=True)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Quantize an activation."""
        return self._place(x, signed=site.signed)

    def _place(self, x: nn.Variable, signed: bool) -> Quantized:
        limits = (2.0 if signed else 1.0, 16.0)
        quantizer = make("uniform_delta_b", signed=signed, bits_limits=limits, step_limits=STEP_LIMITS)
        parameters = {
            name: nn.Variable.from_numpy_array(np.float32(4.0)).apply(need_grad=name == "step")
            for name in quantizer.parameter_names
        }
        return Quantized(quantizer.apply(x, parameters), quantizer.bits(parameters), quantizer, parameters, x)


def score(task: SearchTask, graphs: ScoreGraphs) -> dict[str, dict[int, float]]:
    """Return the step that each site learns at each width, while all sites have that width and no weight moves.

    loss[s][b] = step of s after `UPDATES` of momentum 0.9 at rate 0.01 on dL/dstep / sqrt(N_s Q_b), Q_b the largest
    code: a site whose large values count learns a large step.

    Steps start at those of least squared error. The graph is built once, bits are set at run time. 1-bit weights have
    a step that is not learned, 2 mean|w|.

    Args:
        task: what was asked for; its `steps` replaces the number of updates a width.
        graphs: the network and the training images that it is scored on.

    Source:
        Tang et al., "Mixed-Precision Neural Network Quantization via Learned Layer-wise Importance", ECCV 2022,
        equations 5 and 8; the gradient's scale is of Esser et al., "Learned Step Size Quantization", ICLR 2020.
    """
    updates = UPDATES if task.steps is None else min(task.steps, UPDATES)
    found: dict[str, dict[int, float]] = {name: {} for name in graphs.widths}
    made: list[_Learning] = []

    def learn(width: str) -> list[float]:
        if not made:
            made.append(_Learning.build(task, graphs))
        return made[0].steps(graphs, _nearest(graphs, int(width)), updates)

    images = graphs.images
    widths = sorted({bits for own in graphs.widths.values() for bits in own})
    for width, (cross_entropy, *steps) in graphs.pieces.each([str(w) for w in widths], learn, 1 + len(graphs.widths)):
        for (name, nearest), step in zip(_nearest(graphs, int(width)).items(), steps):
            if nearest == int(width):
                found[name][nearest] = step
        images += updates * len(graphs.batches[0][0])
        task.report({"width": int(width), "cross_entropy": cross_entropy, "images": images})
    for name, own in graphs.widths.items():
        if 1 in own and graphs.network.site(name).role == WEIGHT:
            found[name][1] = float(graphs.grid(name, 1).step)
    return found


def _nearest(graphs: ScoreGraphs, width: int) -> dict[str, int]:
    """The widths of all sites that are nearest to one."""
    return {name: min(own, key=lambda b: abs(b - width)) for name, own in graphs.widths.items()}


@attrs.frozen(eq=False)
class _Learning:
    """The graph whose steps learn, built once for all widths."""

    graph: EvaluationGraph
    loss: nn.Variable

    @classmethod
    def build(cls, task: SearchTask, graphs: ScoreGraphs) -> _Learning:
        size = min(task.experiment.batch_size, LARGEST_BATCH, len(graphs.batches[0][0]))
        experiment = attrs.evolve(task.experiment, batch_size=size)
        graph = build_evaluation(experiment, task.data, Steps(graphs.widths), accelerate=task.machine.accelerate)
        return cls(graph, F.mean(graph.cross_entropies))

    def steps(self, graphs: ScoreGraphs, bits: Mapping[str, int], updates: int) -> list[float]:
        """The cross entropy after these updates, then the step of every site."""
        graph, loss, sites = self.graph, self.loss, self.graph.quantized.sites
        steps = {name: sites[name].parameters["step"] for name in bits}
        factors = {name: _begin(graphs, name, bits[name], sites[name]) for name in bits}
        solver = S.Momentum(LEARNING_RATE, MOMENTUM)
        solver.set_parameters(steps)
        for images, labels, _ in itertools.islice(itertools.cycle(graphs.batches), updates):
            graph.images.d, graph.labels.d = images, labels
            loss.forward(clear_no_need_grad=True)
            solver.zero_grad()
            loss.backward(clear_buffer=True)
            for name, step in steps.items():
                # At most its own size a step moves: it stays above zero.
                step.g = np.clip(step.g * factors[name], -step.d, step.d)
            solver.update()
            for step in steps.values():
                step.d = np.clip(step.d, *STEP_LIMITS)
        return [float(loss.d), *(float(step.d) for step in steps.values())]


def _begin(graphs: ScoreGraphs, name: str, bits: int, quantized: Quantized) -> float:
    """Set a site's bits and first step; return the scale of its gradient."""
    site = graphs.network.site(name)
    signed = bool(quantized.quantizer.signed)
    width = max(bits, 2) if signed else bits
    quantized.parameters["bits"].d = width
    # One step a tensor, whatever the scores use.
    quantized.parameters["step"].d = float(np.median(graphs.grid(name, width).step))
    return float(1.0 / np.sqrt(site.elements * (2 ** (width - int(signed)) - 1)))
