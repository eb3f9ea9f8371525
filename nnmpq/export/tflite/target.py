"""The export target `tflite`: a file with INT4 and INT8 weights, compared in TFLM's interpreter."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np

from nnmpq.export.integer import target as integer
from nnmpq.export.integer.program import Program
from nnmpq.export.integer.sheet import sheet
from nnmpq.export.tflite.file import schema
from nnmpq.export.tflite.graph import Convolution, Graph
from nnmpq.export.tflite.layers import logits_tensor
from nnmpq.export.tflite.lower import lower
from nnmpq.export.tflite.runtime import Runtime, other_network, read
from nnmpq.export.tflite.simulate import run as simulate
from nnmpq.export.tflite.write import file_of
from nnmpq.export.trained import Trained
from nnmpq.export.verification import Verification
from nnmpq.files import atomic_write

NAME = "model.tflite"
# Biases are whole sums here, and differences by one level go from layer to layer: 11 % in a ResNet-20, 26 % in a
# MobileNetV2 of 53 layers. A wrong zero or scale moves nearly all elements.
SHARE = 0.4
# INT8 holds logits between the smallest and largest of validation images, and this part of the range more at both ends.
MARGIN = 0.05


def write(trained: Trained, folder: Path) -> list[Path]:
    """Write the file and the sheet of sizes; arguments as of the other targets."""
    schema()
    program = trained.program()
    _, logits = attrs.evolve(trained, images=trained.calibration).run(sites=False)
    low, high = float(logits.min()), float(logits.max())
    margin = MARGIN * (high - low)
    tensor = logits_tensor(program.tensors[program.output], low - margin, high + margin)
    atomic_write(folder / NAME, file_of(lower(program, tensor)))
    atomic_write(folder / integer.SHEET, sheet(program))
    return [folder / NAME, folder / integer.SHEET]


def container_bytes(graph: Graph) -> float:
    """Return the bytes of all weights that the policy counts in the containers that the format has."""
    counted = [op for op in graph.operations if isinstance(op, Convolution) and op.counted]
    return sum(op.weights.size * op.bits / 8 for op in counted)


@attrs.define(eq=False)
class Comparison:
    """A file in the interpreter beside the numpy model of its kernels.

    Args:
        program: what it was written from.
        graph: the same in the format's terms.
        runtime: the file.
        apart: elements in which the interpreter and the model differ; counted by `run`.
    """

    program: Program
    graph: Graph
    runtime: Runtime
    apart: int = 0

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the numbers of every site and of the logits; see `nnmpq.export.integer.target.compare`."""
        found, model = self.runtime.run(pixels), simulate(self.graph, pixels)
        self.apart += sum(int(np.sum(found[name] != numbers)) for name, numbers in model.items())
        return self._numbers(found)

    def run_once_rounded(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the same of a runtime that is built with one rounding."""
        return self._numbers(simulate(self.graph, pixels, "single"))

    def _numbers(self, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {tensor.name: self.graph.numbers(tensor.name, stored[tensor.name]) for tensor in self.program.sites}
        output = self.program.tensors[self.program.output]
        logits = self.graph.numbers(output.name, stored[output.name]) * self.graph.tensors[output.name].scale
        return {**values, output.name: logits / output.step}


def verify(trained: Trained, folder: Path) -> Verification:
    """Run the file in TFLM's interpreter on real images beside the trained network, and beside the numpy model.

    Raises:
        ExportError: tflite-micro is not installed, or the file is another network's.
    """
    program = trained.program()
    data = (folder / NAME).read_bytes() if (folder / NAME).is_file() else b""
    content = read(data, folder / NAME)
    logits = content.tensors.get(program.output)
    if logits is None:
        raise other_network(folder / NAME, program.output)
    graph = lower(program, logits)
    for name, tensor in graph.tensors.items():
        if content.tensors.get(name) != tensor:
            raise other_network(folder / NAME, name)
    comparison = Comparison(program, graph, Runtime(data, content))
    found = integer.compare("tflite", trained, program, comparison.run, [folder / NAME])
    once = integer.compare("tflite", trained, program, comparison.run_once_rounded, [])
    stored = container_bytes(graph)
    layers = [op.name for op in graph.operations if isinstance(op, Convolution) and op.counted]
    notes = (
        f"TensorFlow Lite stores weights in 4 or 8 bits: {stored:,.0f} bytes; the policy counts "
        f"{trained.weight_bytes:,.0f}",
        f"{found.differing / found.compared:.2%} of the elements differ, {once.differing / once.compared:.2%} where a "
        f"runtime is built with single rounding",
        f"TFLM and the numpy model of its kernels: {comparison.apart:,} elements apart, none may be",
    )
    return attrs.evolve(
        found,
        allowed=SHARE if comparison.apart == 0 else 0.0,
        weight_bytes=sum(content.weight_bytes.get(name, 0) for name in layers),
        promised_bytes=stored,
        notes=notes,
        reason="biases are whole numbers of sums",
    )
