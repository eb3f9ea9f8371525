from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnmpq.export.integer.lower import lower
from nnmpq.export.integer.program import Convolve, Program
from nnmpq.export.integer.saved import run
from tests.export.networks import everything, pixels, prepare, quantized, small

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed: extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed: extra onnx")

from nnmpq.export.onnx.target import LEVELS, Runtime, container_bytes  # noqa: E402
from nnmpq.export.onnx.write import model_of, site_outputs, weight_bytes  # noqa: E402

NETWORKS: dict[str, dict[str, Any]] = {
    "4 bits": {},
    "2 bits": {"weight_bits": 2, "activation_bits": 2},
    "8 bits": {"weight_bits": 8, "activation_bits": 8},
    "3 bits a channel": {"weight_bits": 3, "per_channel": True},
    "power of two": {"weight": "pow2_xmin_xmax", "activation": "pow2_xmin_xmax"},
    "1 bit": {"weight": "sign_mean", "weight_bits": 1},
    "mid-rise": {"weight": "gaussian", "weight_bits": 2},
    "steps of any size": {"activation": "pact", "activation_bits": 3, "build": small},
}


def made(name: str) -> Program:
    settings = dict(NETWORKS[name])
    return lower(quantized(settings.pop("build", everything), **settings), prepare)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_optimisation_level_computes_the_program(name: str) -> None:
    program = made(name)
    images = pixels(6)
    wanted = run(program, images)
    runtime = Runtime(program, model_of(program))
    found = runtime.run(images)
    assert runtime.apart == 0 and len(LEVELS) == 4
    assert set(found) == {tensor.name for tensor in program.sites} | {program.output}
    for tensor in program.sites:
        np.testing.assert_array_equal(found[tensor.name], wanted[tensor.name], err_msg=tensor.name)
    step = program.tensors[program.output].step
    logits = wanted[program.output].reshape(len(images), -1) * step
    np.testing.assert_allclose(found[program.output] * step, logits, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize("name", ["4 bits", "power of two"])
def test_the_reference_of_the_specification_agrees(name: str) -> None:
    from onnx.reference import ReferenceEvaluator

    program = lower(quantized(small, **NETWORKS[name]), prepare)
    images = pixels(3)
    model = model_of(program, sites=True)
    names = [output.name for output in model.graph.output]
    found = dict(zip(names, ReferenceEvaluator(model).run(None, {program.input.name: images})))
    wanted = run(program, images)
    for site, output in site_outputs(program, model).items():
        np.testing.assert_array_equal(found[output].astype(int), wanted[site], err_msg=site)


def constants(model: Any) -> dict[str, Any]:
    return {constant.name: constant for constant in model.graph.initializer}


@pytest.mark.parametrize(
    ("name", "type_"),
    [("2 bits", "INT4"), ("4 bits", "INT4"), ("8 bits", "INT8"), ("1 bit", "INT4"), ("mid-rise", "INT4")],
)
def test_weights_are_whole_numbers_in_the_smallest_container(name: str, type_: str) -> None:
    program = made(name)
    model = model_of(program)
    stored = constants(model)
    layers = [operation for operation in program.operations if isinstance(operation, Convolve)]
    total = 0.0
    for layer in layers:
        weights = stored[f"{layer.layer}/W"]
        assert weights.data_type == getattr(onnx.TensorProto, type_)
        numbers = onnx.numpy_helper.to_array(weights).astype(int).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(numbers, layer.numbers)
        total += layer.weights.size * (4 if type_ == "INT4" else 8) / 8
    assert container_bytes(program) == total and 0 <= weight_bytes(model) - total < len(layers)


def test_activations_are_quantized_in_8_bits_and_clipped_to_their_levels() -> None:
    program = made("4 bits")
    model = model_of(program)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
    stored = constants(model)
    clips = {node.output[0]: node for node in model.graph.node if node.op_type == "Clip"}
    for tensor in program.sites:
        node = next(n for n in model.graph.node if n.output[0] == f"{tensor.name}/levels")
        assert node.op_type == "QuantizeLinear"
        step, zero = (onnx.numpy_helper.to_array(stored[name]) for name in node.input[1:])
        assert float(step) == tensor.step and int(zero) == 0 and zero.dtype == np.dtype(tensor.type)
        ends = np.iinfo(zero.dtype)
        if (tensor.low, tensor.high) == (ends.min, ends.max):
            assert node.input[0] not in clips
        else:
            low, high = (float(onnx.numpy_helper.to_array(stored[name])) for name in clips[node.input[0]].input[1:])
            made_by = next(op for op in program.operations if op.output == tensor.name).requantiser
            reached = made_by.low, made_by.low + made_by.levels - 1
            assert (low, high) == (reached[0] * tensor.step, reached[1] * tensor.step)
            # Levels that no sum reaches are left out.
            assert tensor.low <= reached[0] < reached[1] <= tensor.high


def test_any_batch_and_what_is_stored_with_it() -> None:
    program = lower(quantized(small), prepare, name="small")
    model = model_of(program, {"nnmpq.policy": "bits: 4"})
    assert model.graph.name == "small" and model.producer_name == "nnmpq"
    assert {entry.key: entry.value for entry in model.metadata_props} == {"nnmpq.policy": "bits: 4"}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = pixels(5)
    whole = session.run(None, {"pixels": images})[0]
    assert whole.shape == (5, 4) and whole.dtype == np.float32
    for place in range(5):
        np.testing.assert_array_equal(session.run(None, {"pixels": images[place : place + 1]})[0][0], whole[place])
