"""A TensorFlow Lite file: tensors, buffers and operators, by the published schema."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnmpq.export.integer.pack import pack
from nnmpq.export.integer.program import ExportError
from nnmpq.export.tflite import graph as ops
from nnmpq.export.tflite.graph import Graph, Quantized

IDENTIFIER = b"TFL3"
VERSION = 3
# Kernels read biases as words of 32 bits, and some weights in vectors: the format wants this alignment.
ALIGNMENT = 16
# Versions that know INT8. Runtimes that take INT4 weights refuse newer numbers all the same.
VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "ADD": 2,
    "SUB": 2,
    "MEAN": 2,
    "MAX_POOL_2D": 2,
    "PAD": 2,
    "PADV2": 2,
    "CONCATENATION": 2,
    "QUANTIZE": 2,
    "MAXIMUM": 2,
}


def schema() -> Any:
    """Return the classes of the published schema.

    Raises:
        ExportError: the package that has them is not installed.
    """
    try:
        from tflite_micro.tensorflow.lite.micro.python import schema_py_generated
    except ImportError as error:
        raise ExportError("the package tflite-micro is not installed: pip install nnmpq[tflite]") from error
    return schema_py_generated


def _buffer(schema: Any, data: bytes) -> Any:
    class Aligned(schema.BufferT):
        """A buffer whose bytes lie at multiples of `ALIGNMENT`; the generated class does not see to that."""

        def Pack(self, builder: Any) -> Any:  # noqa: N802
            """Write it; called by the model's own Pack."""
            if not data:
                return super().Pack(builder)
            builder.StartVector(1, len(data), ALIGNMENT)
            builder.head = builder.head - len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            place = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, place)
            return schema.BufferEnd(builder)

    return Aligned()


class Writer:
    """A file in the making; lives for one call of `file_of`."""

    def __init__(self, graph: Graph) -> None:
        self.schema = schema()
        self.graph = graph
        self.tensors: list[Any] = []
        # The first buffer is that of tensors without data.
        self.buffers: list[Any] = [_buffer(self.schema, b"")]
        self.codes: dict[str, int] = {}
        self.operators: list[Any] = []
        self.places: dict[str, int] = {}

    def tensor(self, name: str, shape: tuple[int, ...], kind: str, data: bytes | None = None) -> int:
        """Append a tensor; return its place."""
        made = self.schema.TensorT()
        made.name, made.shape, made.type = name.encode(), list(shape), getattr(self.schema.TensorType, kind)
        made.buffer = 0
        if data is not None:
            made.buffer = len(self.buffers)
            self.buffers.append(_buffer(self.schema, data))
        self.tensors.append(made)
        return len(self.tensors) - 1

    def quantize(self, place: int, scale: np.ndarray, zero: int, axis: int = 0) -> int:
        """Give a tensor its scale, or its scales along an axis; return its place."""
        made = self.schema.QuantizationParametersT()
        made.scale = np.asarray(scale, np.float32)
        made.zeroPoint = np.full(len(made.scale), zero, np.int64)
        made.quantizedDimension = axis
        self.tensors[place].quantization = made
        return place

    def activation(self, tensor: Quantized) -> int:
        """Append an INT8 tensor that an operation writes; return its place."""
        channels, rows, columns = tensor.shape
        place = self.tensor(tensor.name, (1, rows, columns, channels), "INT8")
        self.places[tensor.name] = self.quantize(place, np.array([tensor.scale]), tensor.zero)
        return place

    def constant(self, like: str, value: int) -> int:
        """Append an INT8 constant on the grid of a tensor; return its place."""
        tensor = self.graph.tensors[like]
        place = self.tensor(f"{like}/constant{value}", (1,), "INT8", np.int8(value).tobytes())
        return self.quantize(place, np.array([tensor.scale]), tensor.zero)

    def integers(self, name: str, numbers: Any) -> int:
        """Append an INT32 constant; return its place."""
        array = np.array(numbers, np.int32)
        return self.tensor(name, array.shape, "INT32", array.astype("<i4").tobytes())

    def operator(self, name: str, inputs: list[int], output: str, options: str, **fields: Any) -> None:
        """Append an operator with its options."""
        made = self.schema.OperatorT()
        made.opcodeIndex = self.codes.setdefault(name, len(self.codes))
        made.inputs, made.outputs = inputs, [self.activation(self.graph.tensors[output])]
        made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        made.builtinOptions = getattr(self.schema, f"{options}T")()
        for key, value in fields.items():
            setattr(made.builtinOptions, key, value)
        self.operators.append(made)

    def padding(self, place: ops.Placement) -> dict[str, int]:
        """Return padding and strides as options have them."""
        kind = self.schema.Padding.SAME if place.same else self.schema.Padding.VALID
        return {"padding": kind, "strideH": place.stride[0], "strideW": place.stride[1]}

    def relu(self, relu: bool) -> int:
        """Return the fused activation."""
        kinds = self.schema.ActivationFunctionType
        return int(kinds.RELU if relu else kinds.NONE)

    def bytes(self) -> bytes:
        """Return the whole file."""
        import flatbuffers

        kinds = self.schema
        subgraph, model = kinds.SubGraphT(), kinds.ModelT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = [self.places[self.graph.input.name]], [self.places[self.graph.output]]
        model.version, model.subgraphs, model.buffers = VERSION, [subgraph], self.buffers
        model.description = f"nnmpq {self.graph.name}".strip().encode()
        model.operatorCodes = [self._code(name) for name in self.codes]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _code(self, name: str) -> Any:
        made = self.schema.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, name)
        made.version = VERSIONS[name]
        return made


def packed_weights(weights: np.ndarray, bits: int) -> bytes:
    """Return weights as the file holds them: INT8, or two INT4 a byte, the first in the lower half.

    Example:
        >>> packed_weights(np.array([1, -1, 7]), 4).hex(), packed_weights(np.array([-2]), 8).hex()
        ('f107', 'fe')
    """
    return pack(weights & 15, 4).tobytes() if bits == 4 else weights.astype(np.int8).tobytes()
