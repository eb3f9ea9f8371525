"""What an NNB or CSRC holds, in plain numbers, and how to run it function by function as the runtime does."""

from __future__ import annotations

from typing import Any

import attrs
import nnabla as nn
import nnabla.function_bases as function_bases
import numpy as np

from nnmpq.export.integer.program import ExportError

LAYERS = ("Affine", "Convolution", "DepthwiseConvolution")


@attrs.frozen(eq=False)
class StoredVariable:
    """A tensor: a constant with `values`, or a part of the buffer number `buffer`.

    Args:
        shape: of one image.
        buffer: number of the buffer; None for constants.
        values: float32, one axis; None where it lies in a buffer.
    """

    shape: tuple[int, ...]
    buffer: int | None = None
    values: np.ndarray | None = None


@attrs.frozen(eq=False)
class Call:
    """A function with the places of its tensors in `Stored.variables`, and all its arguments."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: dict[str, Any]


@attrs.frozen(eq=False)
class Stored:
    """A network as the runtime gets it.

    Args:
        buffers: elements of each buffer; tensors share them one after the other.
        variables: all tensors.
        calls: in execution order.
        inputs: places of the inputs.
        outputs: places of the outputs.
    """

    buffers: tuple[int, ...]
    variables: tuple[StoredVariable, ...]
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights of all layers."""
        places = {call.inputs[1] for call in self.calls if call.name in LAYERS}
        return sum(_constant(self, place).nbytes for place in places)

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(v.values.nbytes for v in self.variables if v.values is not None)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of all buffers."""
        return 4 * sum(self.buffers)


def _constant(stored: Stored, place: int) -> np.ndarray:
    values = stored.variables[place].values
    if values is None:
        raise ExportError(f"tensor {place} is a layer's weight, and no constant")
    return values


@attrs.define(eq=False)
class Machine:
    """Runs a stored network one image at a time, its buffers shared as the file says.

    Functions are nnabla's own; what this says of the file is that constants, arguments, order and buffers are right,
    not how the runtime's C functions round.

    Args:
        stored: the network.

    Raises:
        ExportError: it names functions, tensors or buffers that do not exist or do not fit.
    """

    stored: Stored
    _made: list = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._made = [self._build(call) for call in self.stored.calls]

    def _build(self, call: Call) -> tuple[list[nn.Variable], list[nn.Variable]]:
        stored = self.stored
        try:
            builder = getattr(function_bases.F, call.name)
            tensors = [stored.variables[place] for place in call.inputs]
            inputs = [nn.Variable(tensor.shape) for tensor in tensors]
            for place, (variable, tensor) in enumerate(zip(inputs, tensors)):
                if tensor.values is not None:
                    variable.d = _laid_out(call, place, tensor)
            made = builder(nn.get_current_context(), **call.arguments)(
                *inputs, n_outputs=len(call.outputs), auto_forward=False
            )
            outputs = list(made) if isinstance(made, (list, tuple)) else [made]
            shapes = [stored.variables[place].shape for place in call.outputs]
            if shapes != [v.shape for v in outputs]:
                raise ValueError(f"outputs of shapes {shapes}, not {[v.shape for v in outputs]}")
            for tensor in [*tensors, *(stored.variables[place] for place in call.outputs)]:
                if tensor.values is None and not int(np.prod(tensor.shape)) <= self._size(tensor):
                    raise ValueError(f"a tensor of shape {tensor.shape} does not fit in its buffer")
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ExportError(f"{call.name} cannot be built as the file says: {str(error)[:300]}") from error
        return inputs, outputs

    def _size(self, tensor: StoredVariable) -> int:
        if tensor.buffer is None or not 0 <= tensor.buffer < len(self.stored.buffers):
            raise ValueError(f"there is no buffer {tensor.buffer}")
        return self.stored.buffers[tensor.buffer]

    def run(self, image: np.ndarray) -> np.ndarray:
        """Return the first output of one image.

        Args:
            image: float32, shape of the first input.
        """
        stored = self.stored
        memory = [np.zeros(size, np.float32) for size in stored.buffers]

        def part(place: int) -> np.ndarray:
            tensor = stored.variables[place]
            assert tensor.buffer is not None
            return memory[tensor.buffer][: int(np.prod(tensor.shape))].reshape(tensor.shape)

        part(stored.inputs[0])[...] = image
        for call, (inputs, outputs) in zip(stored.calls, self._made):
            for place, variable in zip(call.inputs, inputs):
                if stored.variables[place].values is None:
                    variable.d = part(place)
            # Each function alone: what is upstream of it lies in the buffers.
            outputs[0].parent.forward(inputs, outputs)
            for place, variable in zip(call.outputs, outputs):
                part(place)[...] = variable.d
        return part(stored.outputs[0]).copy()


def _laid_out(call: Call, place: int, tensor: StoredVariable) -> np.ndarray:
    """A constant in nnabla's order: the converter turns the weights of an affine over."""
    assert tensor.values is not None
    if call.name == "Affine" and place == 1:
        return tensor.values.reshape(-1, tensor.shape[0]).T.reshape(tensor.shape)
    return tensor.values.reshape(tensor.shape)
