"""What scores run on: the network with run-time bits, and the training images that it is scored on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import attrs
import nnabla as nn
import numpy as np

from nnmpq.data.dataset import limit
from nnmpq.data.feed import Feed
from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.network import ACTIVATION, WEIGHT, Network
from nnmpq.graph.schemes import Float
from nnmpq.quantizers.grid import Grid
from nnmpq.search.pieces import Pieces
from nnmpq.search.scores.probe import OFF_BITS, Probe, grid_values
from nnmpq.search.scores.ranges import SAMPLE, best_grid, uniform_grid
from nnmpq.search.table import TableError
from nnmpq.search.task import SearchTask
from nnmpq.training.graphs import EvaluationGraph, build_evaluation

# More images at a time gain nothing, and intermediate tensors of all sites are kept at once.
LARGEST_BATCH = 32


@attrs.frozen(eq=False)
class ScoreGraphs:
    """The network of the current parameter scope in evaluation mode, built once for all sites, widths and scores.

    Args:
        network: its layers and sites.
        widths: what each site may get.
        probe: its activations have quantizers with bits and range set between runs; off they are 16 bits wide.
        batches: images, labels and how many of them count.
        samples: numbers of each activation site, over all images.
        largest: the largest magnitude of each activation site.
        per_channel: one step a channel of each weight.
        pieces: computes what a score consists of.
    """

    network: Network
    widths: dict[str, tuple[int, ...]]
    probe: EvaluationGraph
    batches: list[tuple[np.ndarray, np.ndarray, int]]
    samples: dict[str, np.ndarray]
    largest: dict[str, float]
    per_channel: bool = False
    pieces: Pieces = attrs.field(factory=Pieces)
    _grids: dict[tuple[str, int], Grid] = attrs.field(factory=dict, init=False)

    @classmethod
    def build(cls, task: SearchTask, pieces: Pieces | None = None) -> ScoreGraphs:
        """Build the graphs on the parameters of the current scope, and run the images through once.

        Args:
            task: experiment, data, widths and number of images.
            pieces: computes what a score consists of; in this process alone, and keeps nothing, if None.
        """
        data, machine = task.data, task.machine
        count = min(task.score_images, len(data.train))
        split = limit(data.train, count, task.seed)
        experiment = attrs.evolve(task.experiment, batch_size=min(task.experiment.batch_size, LARGEST_BATCH, count))
        plain = build_evaluation(experiment, data, Float(experiment.activation_sites), accelerate=machine.accelerate)
        network = plain.quantized.network
        widths = task.widths(network)
        with Feed(data, experiment.batch_size, seed=task.seed, workers=machine.workers) as feed:
            batches = [(np.array(x), np.array(labels), valid) for x, labels, valid in feed.evaluation(split)]
        names = [site.name for site in network.activations if site.name in widths]
        samples, largest = _activations(plain, names, batches)
        probe = build_evaluation(experiment, data, Probe(names), accelerate=machine.accelerate)
        graphs = cls(network, widths, probe, batches, samples, largest, experiment.per_channel, pieces or Pieces())
        for name in names:
            graphs._switch(name, None)
        return graphs

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(valid for _, _, valid in self.batches)

    @property
    def most_widths(self) -> int:
        """Return the largest number of widths that a site may get."""
        return max(map(len, self.widths.values()), default=0)

    def numbers(self, name: str) -> np.ndarray:
        """Return a weight or bias, or a sample of an activation.

        Raises:
            TableError: it holds what is not a finite number.
        """
        numbers = self.samples[name] if name in self.samples else np.array(self._parameter(name).d, np.float32)
        bad = numbers.size - int(np.sum(np.isfinite(numbers)))
        if bad:
            raise TableError(f"{name}: {bad} of {numbers.size} numbers are not finite: it cannot be scored")
        return numbers

    def grid(self, name: str, bits: int) -> Grid:
        """Return the grid of least squared error of a site at a width."""
        if (name, bits) not in self._grids:
            site = self.network.site(name)
            signed = site.signed or site.role != ACTIVATION
            axis = site.channel_axis if self.per_channel and site.role == WEIGHT and bits > 1 else None
            self._grids[name, bits] = best_grid(self.numbers(name), bits, signed=signed, channel_axis=axis)
        return self._grids[name, bits]

    @contextlib.contextmanager
    def quantized(self, bits: Mapping[str, int]) -> Iterator[None]:
        """Quantize sites inside, at run time; no graph is built again.

        Args:
            bits: by site name; the others are float.
        """
        kept: dict[str, np.ndarray] = {}
        try:
            for name, width in bits.items():
                if name in self.samples:
                    self._switch(name, width)
                else:
                    variable = self._parameter(name)
                    kept[name] = np.array(variable.d, np.float32)
                    variable.d = self.grid(name, width).quantize(kept[name])
            yield
        finally:
            for name in bits:
                if name in self.samples:
                    self._switch(name, None)
            for name, numbers in kept.items():
                self._parameter(name).d = numbers

    def logits(self) -> np.ndarray:
        """Return the logits of all images as sites are now, float32, shape (N, classes)."""
        graph, found = self.probe, []
        with graph.fixed_weights():
            for images, _, valid in self.batches:
                graph.images.d = images
                graph.logits.forward(clear_buffer=True)
                found.append(np.array(graph.logits.d[:valid], np.float32))
        return np.concatenate(found)

    def _switch(self, name: str, bits: int | None) -> None:
        """Set an activation's quantizer; None puts it off."""
        if bits is None:
            signed = self.network.site(name).signed
            levels = 2 ** (OFF_BITS - int(signed)) - 1
            exponent = np.ceil(np.log2(max(self.largest[name], 1e-9) / levels))
            grid = uniform_grid(OFF_BITS, np.float32(2.0**exponent), signed=signed)
        else:
            grid = self.grid(name, bits)
        for key, value in grid_values(grid).items():
            self.probe.quantized.sites[name].parameters[key].d = value

    def _parameter(self, name: str) -> nn.Variable:
        variable = nn.get_parameters(grad_only=False).get(name)
        if variable is None:
            raise TableError(f"{name}: it is computed in the graph, not a parameter: a score cannot quantize it alone")
        return variable


def _activations(
    graph: EvaluationGraph, names: list[str], batches: list[tuple[np.ndarray, np.ndarray, int]]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Run the images and return samples and largest magnitudes of activations, as they are after their ReLU."""
    output = graph.quantized.output
    sources = {name: graph.quantized.sites[name].output for name in names}
    if graph.clock is not None:
        # The evaluation's own fast functions run across what is wanted here.
        fast = accelerate([output], keep=list(sources.values()))
        output = fast.outputs[0]
        sources = {name: fast.variables.get(source, source) for name, source in sources.items()}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    largest = dict.fromkeys(names, 0.0)
    rng = np.random.default_rng(0)
    for images, _, valid in batches:
        graph.images.d = images
        # Without clear_buffer every intermediate tensor is still there afterwards.
        output.forward()
        for name, source in sources.items():
            numbers = source.d[:valid].reshape(-1)
            largest[name] = max(largest[name], float(np.max(np.abs(numbers))))
            # Places at random: a stride would meet the same pixels.
            places = rng.integers(0, numbers.size, min(SAMPLE // len(batches) + 1, numbers.size))
            parts[name].append(np.array(numbers[places], np.float32))
    return {name: np.concatenate(found) for name, found in parts.items()}, largest
