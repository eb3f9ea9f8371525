"""The export target `onnx`: a quantize-dequantize file, compared in onnxruntime at every optimisation level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nnmpq.export.integer import target as integer
from nnmpq.export.integer.program import Convolve, ExportError, Program
from nnmpq.export.integer.sheet import sheet
from nnmpq.export.onnx.model import BITS, WEIGHT_TYPES, container, onnx_module, scale_of
from nnmpq.export.onnx.write import model_of, site_outputs, weight_bytes
from nnmpq.export.trained import Trained
from nnmpq.export.verification import Verification
from nnmpq.files import atomic_write

NAME = "model.onnx"
POLICY = "nnmpq.policy"
# Elements of all tensors that are run at once: sums are compared with every listed exception, which takes many times
# their memory.
LARGEST_ELEMENTS = 2**21
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


def write(trained: Trained, folder: Path) -> list[Path]:
    """Write the model, with the policy in its metadata, and the sheet of sizes; arguments as of the other targets."""
    program = trained.program()
    model = model_of(program, {POLICY: trained.policy.to_yaml()})
    atomic_write(folder / NAME, model.SerializeToString())
    atomic_write(folder / integer.SHEET, sheet(program))
    return [folder / NAME, folder / integer.SHEET]


def container_bytes(program: Program) -> float:
    """Return the bytes of all weights in the containers that ONNX has: 4 bits for 1 to 3, 8 for 5 to 7."""
    total = 0.0
    for operation in program.operations:
        if isinstance(operation, Convolve):
            kind = container(int(operation.levels.min()), int(operation.levels.max()), WEIGHT_TYPES)
            assert kind is not None
            total += operation.weights.size * BITS[kind[0]] / 8
    return total


def _session(model: bytes, level: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError("the package onnxruntime is not installed: pip install nnmpq[onnx]") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    # Eight sessions that each kept what they once needed would not fit in memory.
    options.enable_cpu_mem_arena = False
    # Threads that wait for each other cost more than they bring at these sizes.
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@attrs.define(eq=False)
class Runtime:
    """A model in onnxruntime at every optimisation level, as it is and with all sites as outputs.

    Args:
        program: what it was written from.
        model: the file's model.
        apart: elements in which two levels differed, or the logits with and without sites; counted by `run`.
    """

    program: Program
    model: Any
    apart: int = 0
    _plain: list = attrs.field(init=False)
    _traced: list = attrs.field(init=False)
    _names: dict = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._plain = [_session(self.model.SerializeToString(), level) for level in LEVELS]
        traced = onnx_module().ModelProto()
        traced.CopyFrom(self.model)
        # What the file's own nodes compute, made visible.
        wanted = model_of(self.program, sites=True)
        known = {name for node in self.model.graph.node for name in node.output}
        missing = [output.name for output in wanted.graph.output if output.name not in known]
        if missing:
            raise ExportError(f"the ONNX file has no tensor {missing[0]!r}: it is another network's; export again")
        del traced.graph.output[:]
        traced.graph.output.extend(wanted.graph.output)
        self._names = site_outputs(self.program, wanted)
        self._traced = [_session(traced.SerializeToString(), level) for level in LEVELS]

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the numbers of every site and of the logits; see `nnmpq.export.integer.target.compare`."""
        count = max(LARGEST_ELEMENTS // sum(t.elements for t in self.program.tensors.values()), 1)
        parts = [self._run(pixels[first : first + count]) for first in range(0, len(pixels), count)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        feed = {self.program.input.name: pixels}
        found = [session.run(None, feed) for session in self._traced]
        logits = [session.run(None, feed)[0] for session in self._plain]
        for other in found[1:]:
            self.apart += sum(int(np.sum(a != b)) for a, b in zip(found[0], other))
        self.apart += sum(int(np.sum(found[0][0] != other)) for other in logits)
        output = self.program.tensors[self.program.output]
        values = {output.name: logits[-1].astype(np.float64) / output.step}
        for (name, _), numbers in zip(self._names.items(), found[-1][1:]):
            # Numbers too large for any container stay float, times their scale.
            whole = np.issubdtype(numbers.dtype, np.integer)
            scale = 1.0 if whole else scale_of(self.program.tensors[name])
            values[name] = numbers.astype(np.float64) / scale
        return values


def _loaded(path: Path) -> Any:
    onnx = onnx_module()
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's own kinds, which differ between versions
        raise ExportError(f"{path}: no ONNX model can be read: {str(error)[:200]}") from error
    return model


def verify(trained: Trained, folder: Path) -> Verification:
    """Run the file in onnxruntime at every optimisation level on real images beside the trained network.

    Raises:
        ExportError: onnx or onnxruntime is not installed, or the file is another network's.
    """
    program = trained.program()
    runtime = Runtime(program, _loaded(folder / NAME))
    stored = container_bytes(program)
    counted = f"the policy counts {trained.weight_bytes:,.0f}"
    notes = (f"ONNX stores weights in 4 or 8 bits, powers of two in up to 32: {stored:,.0f} bytes; {counted}",)
    found = integer.compare("onnx", trained, program, runtime.run, [folder / NAME], *notes)
    levels = f"onnxruntime at {len(LEVELS)} optimisation levels: {runtime.apart:,} elements apart"
    return attrs.evolve(
        found,
        differing=found.differing + runtime.apart,
        weight_bytes=weight_bytes(runtime.model),
        promised_bytes=stored,
        notes=(*found.notes, levels),
    )
