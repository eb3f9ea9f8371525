"""A trained network as the exporters take it: its graph, how pixels become numbers, its policy and real images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import attrs
import nnabla as nn
import numpy as np

from nnmpq.export.integer.lower import lower
from nnmpq.export.integer.program import ExportError, Program
from nnmpq.graph.network import WEIGHT
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.policy import Policy, PolicyError

if TYPE_CHECKING:
    from nnmpq.data import DataSet
    from nnmpq.data.dataset import Part

BATCH = 64
CALIBRATION_IMAGES = 256


@attrs.frozen(eq=False)
class Trained:
    """A trained network.

    Args:
        name: of the run.
        quantized: the evaluation graph, made of nnabla's own functions.
        policy: its bits.
        prepare: pixels uint8 (N, C, H, W) to what the graph takes, float32.
        images: real images to compare on, uint8 (N, C, H, W).
        calibration: others, that a format's own ranges are chosen on; those to compare on where there are none.
    """

    name: str
    quantized: QuantizedNetwork
    policy: Policy
    prepare: Callable[[np.ndarray], np.ndarray]
    images: np.ndarray
    calibration: np.ndarray = attrs.field(default=attrs.Factory(lambda self: self.images, takes_self=True))

    def program(self) -> Program:
        """Return the network as an integer program."""
        return lower(self.quantized, self.prepare, name=self.name)

    @property
    def weight_elements(self) -> int:
        """Number of all weights, without biases."""
        return sum(site.elements for site in self.quantized.network.sites() if site.role == WEIGHT)

    @property
    def weight_bytes(self) -> float:
        """What the cost model counts for all weights, without biases."""
        bits = self.quantized.bit_numbers()
        sites = [s for s in self.quantized.network.sites() if s.role == WEIGHT]
        return sum(site.elements * bits.get(site.name, 32) for site in sites) / 8

    def batches(self, sites: bool = True) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]]:
        """Run the trained network on the images, a batch at a time.

        Args:
            sites: keep what stands at each quantized activation.

        Yields:
            Pixels, levels by site name, float32, shape (N, ...), and logits, shape (N, classes).
        """
        quantized = self.quantized
        kept = {}
        for site in quantized.network.activations:
            found = quantized.sites.get(site.name)
            if sites and found is not None and found.quantizer is not None:
                found.output.persistent = True
                kept[site.name] = found.output
        quantized.output.persistent = True
        images = _input(quantized)
        for first in range(0, len(self.images), images.shape[0]):
            pixels = self.images[first : first + images.shape[0]]
            count = len(pixels)
            images.d = 0
            images.d[:count] = self.prepare(pixels)
            quantized.output.forward(clear_buffer=True)
            levels = {name: variable.d[:count].copy() for name, variable in kept.items()}
            yield pixels, levels, quantized.output.d[:count].copy()

    def run(self, sites: bool = True) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return what `batches` yields, of all images at once."""
        _, levels, logits = zip(*self.batches(sites))
        return {name: np.concatenate([part[name] for part in levels]) for name in levels[0]}, np.concatenate(logits)


def _input(quantized: QuantizedNetwork) -> nn.Variable:
    """The variable that images go into."""
    from nnmpq.graph.functions import functions_of

    known = {v.data for v in nn.get_parameters(grad_only=False).values()}
    for function in functions_of(quantized.float_outputs):
        for variable in function.inputs:
            if variable.parent is None and variable.data not in known:
                return variable
    raise ExportError("the network has no input")


def _real_images(data: DataSet, part: Part, count: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return pixels of a part's first images, and what makes numbers of pixels."""
    from nnmpq.data import DataError
    from nnmpq.data.batches import numbers_of
    from nnmpq.data.dataset import Split
    from nnmpq.data.pipeline import file_evaluation_batches

    if isinstance(part, Split):
        return np.asarray(part.images[:count], np.uint8), lambda pixels: numbers_of(data, pixels)
    assert data.settings is not None
    raw = attrs.evolve(data.settings, output="uint8")
    chosen = part.take(np.arange(min(count, len(part))))
    try:
        parts = [pixels[:valid].copy() for pixels, _, valid in file_evaluation_batches(chosen, raw, BATCH)]
    except DataError as error:
        raise ExportError(str(error)) from error
    return np.concatenate(parts), data.settings.numbers


def load_run(folder: str | Path, *, images: int = 256, data_dir: str | None = None) -> Trained:
    """Load the best model of a run folder, with images of its test part.

    The current parameter scope is cleared.

    Args:
        folder: of a finished run: config.cfg and best.h5.
        images: how many images to compare on.
        data_dir: folder of the data set; the run's own if None.

    Raises:
        ExportError: the folder is not that of a finished run.
    """
    from nnmpq.config.errors import ConfigError
    from nnmpq.config.reader import read_experiment
    from nnmpq.config.scheme import build_scheme
    from nnmpq.data import load
    from nnmpq.runs import image_options
    from nnmpq.training import TrainingError, parameters
    from nnmpq.training.graphs import build_evaluation

    folder = Path(folder)
    for name in ("config.cfg", "best.h5", "result.json"):
        if not (folder / name).is_file():
            raise ExportError(f"{folder / name} is missing: a folder of a finished run is needed")
    try:
        section = json.loads((folder / "result.json").read_text())["experiment"]
        experiment = read_experiment(folder / "config.cfg", section)
        data = load(
            experiment.dataset,
            data_dir=data_dir or experiment.data_dir,
            validation_images=experiment.validation_images,
            train_images=experiment.train_images,
            test_images=experiment.test_images,
            seed=experiment.seed,
            options=image_options(experiment),
        )
        nn.clear_parameters()
        graph = build_evaluation(attrs.evolve(experiment, batch_size=BATCH), data, build_scheme(experiment))
        parameters.load_h5(folder / "best.h5")
        policy = Policy.load(folder / "policy.yaml")
    except (ConfigError, PolicyError, TrainingError) as error:
        raise ExportError(f"{folder}: {error}") from error
    pixels, prepare = _real_images(data, data.test, images)
    others, _ = _real_images(data, data.validation, CALIBRATION_IMAGES)
    return Trained(
        experiment.name,
        graph.quantized,
        policy,
        prepare,
        pixels,
        others,
    )
