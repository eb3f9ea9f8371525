"""The network of a progressive search: built once, its bits set between runs; and what a candidate is judged by."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import nnabla as nn
import numpy as np

from nnmpq.data import DataSet
from nnmpq.data.dataset import limit
from nnmpq.data.feed import Feed
from nnmpq.graph.network import ACTIVATION, Network
from nnmpq.graph.quantized import Quantized
from nnmpq.parallel import ALONE, Communicator
from nnmpq.quantizers.parameters import Values
from nnmpq.search.progressive_settings import FLOOR, UNIFORM, RuntimeBits, Settings
from nnmpq.search.progressive_tuning import LARGEST_NORM, LEARNING_RATE
from nnmpq.search.scores.probe import grid_values
from nnmpq.search.scores.ranges import best_grid
from nnmpq.search.table import TableError
from nnmpq.search.task import SearchTask
from nnmpq.training.errors import TrainingError
from nnmpq.training.evaluate import evaluate, quantizer_inputs
from nnmpq.training.graphs import EvaluationGraph, TrainingGraph, build_evaluation, build_training

# Published: decay of Adam's second moment, and its epsilon.
BETA2 = 0.999
EPSILON = 1e-7
# Images that ranges are fitted on; more would not change them.
RANGE_IMAGES = 256
RANGE_BATCH = 32


def adam_score(gradient: np.ndarray) -> float:
    """Return ProQHA's "Hessian" score: what its one Adam step on a fresh state moves, weighted by the second moment.

    score = sum_i (sqrt(v_i) + eps) (lr g_i / (|g_i| + eps))^2, v = (1 - beta2) g^2, which is to within eps
    lr^2 sqrt(1 - beta2) ||g||_1: no curvature is in it. g is first brought to a global norm of 5 at most.

    Args:
        gradient: of all parameters, shape (n,).

    Example:
        >>> round(adam_score(np.array([3.0, -4.0])) / (1e-6 * 0.001**0.5 * 7.0), 4)
        1.0

    Source:
        The published code of "Automatic Progressive Mixed-Precision Network Quantization" (ProQHA).
    """
    g = np.asarray(gradient, np.float64)
    norm = float(np.sqrt(np.sum(np.square(g))))
    g = np.abs(g * (LARGEST_NORM / norm if norm > LARGEST_NORM else 1.0))
    moved = LEARNING_RATE * g / (g + EPSILON)
    return float(np.sum((np.sqrt(1.0 - BETA2) * g + EPSILON) * np.square(moved)))


def l1_score(gradient: np.ndarray) -> float:
    """Return the L1 norm of a gradient; a large one counts as it is, nothing is clipped."""
    return float(np.sum(np.abs(gradient), dtype=np.float64))


def without_bits(sites: Mapping[str, Quantized]) -> dict[str, Quantized]:
    """Return sites without the parameters that are their bits."""
    return {
        name: attrs.evolve(site, parameters={key: v for key, v in site.parameters.items() if key != "bits"})
        for name, site in sites.items()
    }


@attrs.frozen(eq=False)
class RuntimeNetwork:
    """Training and evaluation graph of the current parameter scope, their bits set at run time.

    Args:
        settings: of the search.
        data: the data set.
        network: layers and sites.
        widths: of each site that is searched, ascending.
        training: the training graph.
        evaluation: the evaluation graph.
        plain: an evaluation graph of nnabla's own functions, whose tensors can be looked at.
        images: the calibration batch, float32 (B, C, H, W).
        labels: its classes, int32 (B, 1).
        balanced: training images with the classes in the same shares, for ranges.
        communicator: of the processes that share the candidates.
    """

    settings: Settings
    data: DataSet
    network: Network
    widths: dict[str, tuple[int, ...]]
    training: TrainingGraph
    evaluation: EvaluationGraph
    plain: EvaluationGraph
    images: np.ndarray
    labels: np.ndarray
    balanced: DataSet
    communicator: Communicator = ALONE

    @classmethod
    def build(cls, task: SearchTask, settings: Settings) -> RuntimeNetwork:
        """Build the graphs on the parameters of the current scope, all sites at the start's bits.

        Args:
            task: experiment, data, widths.
            settings: of the search.

        Raises:
            TrainingError: there is not one batch of training images, or no width is left for a site.
        """
        experiment, data = task.experiment, task.data
        if len(data.train) < experiment.batch_size:
            raise TrainingError(
                f"batch_size = {experiment.batch_size}: there are only {len(data.train)} training images"
            )
        before = set(nn.get_parameters(grad_only=False))
        scheme = RuntimeBits.of(experiment, settings)
        training = build_training(experiment, data, scheme, accelerate=task.machine.accelerate)
        evaluation = build_evaluation(experiment, data, scheme, accelerate=task.machine.accelerate)
        few = attrs.evolve(experiment, batch_size=min(RANGE_BATCH, len(data.train)))
        plain = build_evaluation(few, data, scheme)
        network = evaluation.quantized.network
        found = {
            name: tuple(w for w in widths if FLOOR <= w <= settings.k_bits)
            for name, widths in task.widths(network).items()
            if evaluation.quantized.sites[name].quantizer is not None
        }
        for name, widths in found.items():
            if not widths:
                raise TrainingError(f"{name}: none of its widths is from {FLOOR} to k_bits = {settings.k_bits}")
        images, labels = _calibration(task, settings)
        size = min(max(RANGE_IMAGES, few.batch_size), len(data.train))
        balanced = attrs.evolve(data, train=limit(data.train, size, task.seed))
        together = task.machine.communicator
        made = cls(settings, data, network, found, training, evaluation, plain, images, labels, balanced, together)
        fresh = [name for name in found if f"{name}_quantizer/xmax" not in before]
        inputs = made.inputs() if any(network.site(name).role == ACTIVATION for name in fresh) else {}
        made.apply(made.start, {name: made.fitted(name, made.start[name], inputs) for name in fresh})
        return made

    @property
    def start(self) -> dict[str, int]:
        """The bits that the search starts from."""
        return {name: widths[-1] for name, widths in self.widths.items()}

    @property
    def sites(self) -> dict[str, Quantized]:
        """What stands at each site that is searched."""
        return {name: self.evaluation.quantized.sites[name] for name in self.widths}

    def learnable(self) -> dict[str, Quantized]:
        """Return all sites of the training graph without their bits, which no solver may move."""
        return without_bits(self.training.quantized.sites)

    def values(self) -> dict[str, Values]:
        """Return the raw values of all searched sites' quantizers."""
        return {name: site.values() for name, site in self.sites.items()}

    def apply(self, bits: dict[str, int], values: dict[str, Values]) -> None:
        """Set bits, and raw values where there are some, in place: all graphs follow."""
        for name, site in self.sites.items():
            for key, value in values.get(name, {}).items():
                site.parameters[key].d = value
            site.parameters["bits"].d = bits[name]

    def inputs(self) -> dict[str, np.ndarray]:
        """Return a sample of what each activation's quantizer sees, by site name."""
        return quantizer_inputs(self.plain, self.balanced, RANGE_IMAGES)

    def fitted(self, name: str, bits: int, inputs: Mapping[str, np.ndarray]) -> Values:
        """Return the raw values of a site's range with least squared error at a width.

        Published quantizers have none to fit, DoReFa's is fixed and PACT's only learned: nothing comes back for them.

        Args:
            name: of the site.
            bits: width.
            inputs: what activations see.
        """
        site = self.sites[name]
        quantizer = site.quantizer
        if site.quantizer_name != UNIFORM:
            return {}
        numbers = inputs.get(name)
        if numbers is None:
            assert site.source is not None
            if site.source.parent is not None:
                site.source.forward()
            numbers = np.array(site.source.d, np.float32)
        _check(name, numbers)
        numbers = numbers if quantizer.signed else np.maximum(numbers, 0)
        grid = best_grid(numbers, bits, signed=quantizer.signed, channel_axis=quantizer.channel_axis)
        found = quantizer.constrain(grid_values(grid))
        return {key: np.broadcast_to(value, site.parameters[key].shape) for key, value in found.items()}

    def score(self) -> float:
        """Return what candidates are judged by, of the network as it is now, on the calibration batch.

        The statistics of batch normalization are put back as they were.
        """
        graph = self.training
        still = [v for v in nn.get_parameters(grad_only=False).values() if not v.need_grad]
        kept = [np.array(v.d) for v in still]
        graph.images.d, graph.labels.d = self.images, self.labels
        graph.loss.forward(clear_no_need_grad=True)
        found = float(graph.loss.d)
        if self.settings.info != "loss" or self.settings.faithful:
            parameters = nn.get_parameters()
            for variable in parameters.values():
                variable.grad.zero()
            graph.loss.backward(clear_buffer=True)
            gradient = np.concatenate([np.ravel(v.g) for v in parameters.values()])
            found = (adam_score if self.settings.faithful else l1_score)(gradient)
        for variable, numbers in zip(still, kept):
            variable.d = numbers
        return found

    def validate(self) -> tuple[float, float]:
        """Return error, 0 to 1, and cross entropy on the validation images."""
        found = evaluate(self.evaluation, self.data, self.data.validation)
        return found.error, found.cross_entropy

    def culprit(self) -> str:
        """Return the first parameter whose gradient, of the last score, is not finite; "the loss" without one."""
        return next((name for name, v in nn.get_parameters().items() if not np.all(np.isfinite(v.g))), "the loss")

    def check(self) -> None:
        """Refuse sites whose numbers are not finite: what they are scored by would be none either.

        Raises:
            TableError: names the site.
        """
        parameters = nn.get_parameters(grad_only=False)
        for site in self.network.sites():
            if site.name in parameters:
                _check(site.name, parameters[site.name].d)
        for name, values in self.values().items():
            for key, value in values.items():
                _check(f"{name} ({key})", value)


def _check(name: str, numbers: np.ndarray) -> None:
    bad = int(np.size(numbers) - np.sum(np.isfinite(numbers)))
    if bad:
        raise TableError(f"{name}: {bad} of {np.size(numbers)} numbers are not finite: it cannot be scored")


def _calibration(task: SearchTask, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """One batch of training images: as published the first ones, else with the classes in the same shares."""
    train, size = task.data.train, task.experiment.batch_size
    chosen = train.take(np.arange(size)) if settings.faithful else limit(train, size, task.seed)
    with Feed(task.data, size, seed=task.seed, workers=task.machine.workers) as feed:
        images, labels, _ = next(iter(feed.evaluation(chosen)))
    return np.array(images), np.array(labels)
