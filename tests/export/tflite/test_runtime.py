from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnmpq.export.integer.lower import lower as lower_integer
from nnmpq.export.integer.program import Convolve, ExportError, Program
from nnmpq.export.integer.saved import run as run_program
from nnmpq.export.tflite.graph import Convolution, Graph, Quantized
from nnmpq.export.tflite.layers import logits_tensor
from nnmpq.export.tflite.lower import lower
from nnmpq.export.tflite.simulate import run
from tests.export.networks import everything, pixels, prepare, quantized, small

pytest.importorskip("tflite_micro", reason="the package tflite-micro is not installed: extra tflite")

from nnmpq.export.tflite.file import ALIGNMENT, schema  # noqa: E402
from nnmpq.export.tflite.runtime import Runtime, read  # noqa: E402
from nnmpq.export.tflite.write import file_of  # noqa: E402

NETWORKS: dict[str, dict[str, Any]] = {
    "4 bits": {},
    "2 bits": {"weight_bits": 2, "activation_bits": 2},
    "8 bits": {"weight_bits": 8, "activation_bits": 8, "build": small},
    "3 bits a channel": {"weight_bits": 3, "per_channel": True},
    "power-of-two weights": {"weight": "pow2_xmin_xmax", "weight_bits": 3, "build": small},
    "1 bit": {"weight": "sign_mean", "weight_bits": 1},
    "mid-rise": {"weight": "gaussian", "weight_bits": 2},
    "steps of any size": {"activation": "pact", "activation_bits": 3, "build": small},
}
# Share of all elements that whole biases may move in these networks, whose gains are harder than trained ones.
SHARE = 0.12


def made(name: str) -> tuple[Program, Graph, np.ndarray]:
    """A program, its graph and images."""
    settings = dict(NETWORKS[name])
    program = lower_integer(quantized(settings.pop("build", everything), **settings), prepare)
    images = pixels(6)
    step = program.tensors[program.output].step
    logits = run_program(program, images)[program.output] * step
    return program, lower(program, logits_tensor(program.tensors[program.output], logits.min(), logits.max())), images


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_is_the_runtime_in_every_tensor_and_near_the_program(name: str) -> None:
    program, graph, images = made(name)
    data = file_of(graph)
    found = Runtime(data, read(data, Path("m"))).run(images)
    model = run(graph, images)
    assert set(found) == set(model) == set(graph.tensors)
    for tensor, numbers in model.items():
        np.testing.assert_array_equal(found[tensor], numbers, err_msg=tensor)
    wanted = run_program(program, images)
    different = elements = 0
    for site in program.sites:
        numbers = graph.numbers(site.name, found[site.name])
        assert numbers.min() >= site.low and numbers.max() <= site.high
        different, elements = different + int(np.sum(numbers != wanted[site.name])), elements + numbers.size
    assert different <= SHARE * elements
    first = program.sites[0].name
    np.testing.assert_array_equal(graph.numbers(first, found[first]), wanted[first])


def test_weights_and_grids_in_the_file() -> None:
    program, graph, _ = made("3 bits a channel")
    data = file_of(graph)
    kinds = schema()
    assert data[4:8] == b"TFL3"
    model = kinds.ModelT.InitFromObj(kinds.Model.GetRootAs(data, 0))
    tensors = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
    layers = {op.layer: op for op in program.operations if isinstance(op, Convolve)}
    written = {op.name: op for op in graph.operations if isinstance(op, Convolution)}
    for name, layer in layers.items():
        stored, numbers = tensors[name], layer.numbers
        # INT4, but for groups of several channels, which CMSIS-NN has in INT8 alone.
        wide = layer.group > 1 and numbers.shape[3] > 1
        assert stored.type == (kinds.TensorType.INT8 if wide else kinds.TensorType.INT4)
        raw = np.array(model.buffers[stored.buffer].data, np.uint8)
        halves = np.stack([raw & 15, raw >> 4], 1).ravel().astype(np.int64)
        values = raw.astype(np.int8).astype(np.int64) if wide else np.where(halves > 7, halves - 16, halves)
        shape = numbers.shape[::1] if written[name].group == 1 or wide else (1, *numbers.shape[1:3], len(numbers))
        values = values[: numbers.size].reshape(shape)
        values = values if shape == numbers.shape else values.transpose(3, 1, 2, 0)
        # Each channel holds the trained numbers times one factor: 42 or 2, by container, and its sign; or nothing.
        fill = 127 // np.abs(numbers).max() if wide else 7 // np.abs(numbers).max()
        for channel, trained in zip(values, numbers):
            assert any(np.array_equal(channel, trained * k) for k in (fill, -fill, 0))
        assert len(stored.quantization.scale) == len(numbers)
    for site in program.sites:
        grid = tensors[site.name].quantization
        assert (float(grid.scale[0]), int(grid.zeroPoint[0])) == (site.step, 127 - site.high)


def test_data_lies_aligned() -> None:
    _, graph, _ = made("4 bits")
    data = file_of(graph)
    model = schema().Model.GetRootAs(data, 0)
    places = [model.Buffers(i)._tab.Vector(model.Buffers(i)._tab.Offset(4)) for i in range(1, model.BuffersLength())]
    assert len(places) > 20 and all(place % ALIGNMENT == 0 for place in places)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\xff" * 64])
def test_what_is_no_file_is_refused(damage) -> None:
    _, graph, _ = made("2 bits")
    with pytest.raises(ExportError, match=r"a\.tflite: no TensorFlow Lite file can be read"):
        read(damage(file_of(graph)), Path("a.tflite"))


def test_logits_fill_int8() -> None:
    tensor = made("4 bits")[0].tensors["logits"]
    assert logits_tensor(tensor, -1.0, 254.0) == Quantized("logits", tensor.shape, 1.0, -127)
    assert logits_tensor(tensor, 3.0, 255.0) == Quantized("logits", tensor.shape, 1.0, -128)
