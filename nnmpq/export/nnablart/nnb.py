"""Reading an NNB back: header, tensors, functions, buffers."""

from __future__ import annotations

import struct
from typing import Any

import attrs
import numpy as np

from nnmpq.export.integer.program import ExportError
from nnmpq.export.nnablart.levels import arguments_of, code_of, default_of, table
from nnmpq.export.nnablart.stored import Call, Stored, StoredVariable

# Version, API level, then length and place of the lists of buffers, tensors, functions, inputs and outputs, then how
# many pieces the memory has and its bytes.
HEADER = struct.Struct("<IIiIiIiIiIiIII")
VARIABLE = struct.Struct("<IiIBxxxi")
FUNCTION = struct.Struct("<HHiIiI")
VERSIONS = (2, 3)
FLOAT = 0
LARGEST_DIMENSIONS = 8


@attrs.frozen(eq=False)
class _Memory:
    """The pieces of data that everything else names by number."""

    places: tuple[int, ...]
    data: bytes

    def at(self, piece: int, form: str) -> tuple[Any, ...]:
        """Read a piece; native alignment between its fields, as the runtime's structs have."""
        return struct.unpack_from(form, self.data, self._place(piece))

    def whole(self, length: int, piece: int, form: str = "I") -> tuple[int, ...]:
        """Read a list of numbers."""
        if not 0 <= length <= len(self.data):
            raise ValueError(f"a list of {length} elements")
        return self.at(piece, f"={length}{form}")

    def floats(self, count: int, piece: int) -> np.ndarray:
        """Read float32 numbers."""
        if not 0 <= count <= len(self.data):
            raise ValueError(f"a tensor of {count} elements")
        place = self._place(piece)
        if place + 4 * count > len(self.data):
            raise ValueError("a tensor reaches over the end")
        return np.frombuffer(self.data, "<f4", count, place).astype(np.float32)

    def _place(self, piece: int) -> int:
        if not 0 <= piece < len(self.places):
            raise ValueError(f"there is no piece {piece}")
        return self.places[piece]


def _variable(memory: _Memory, piece: int) -> StoredVariable:
    _, dimensions, shape_piece, type_, index = memory.at(piece, VARIABLE.format)
    if not 0 <= dimensions <= LARGEST_DIMENSIONS:
        raise ValueError(f"a tensor of {dimensions} dimensions")
    shape = memory.whole(dimensions, shape_piece)
    if type_ & 15 != FLOAT:
        raise ValueError(f"a tensor of type {type_ & 15}; float32 is written here")
    if index < 0:
        return StoredVariable(shape, buffer=-index - 1)
    count = 1
    for length in shape:
        count *= length
    return StoredVariable(shape, values=memory.floats(count, index))


def _call(memory: _Memory, piece: int, names: dict[int, str], codes: dict[str, str]) -> Call:
    number, implementation, inputs, inputs_piece, outputs, outputs_piece = memory.at(piece, FUNCTION.format)
    if number not in names:
        raise ValueError(f"function {number} is not known at this API level")
    if implementation:
        raise ValueError(f"{names[number]}: implementation {implementation}; 0, float, is written here")
    name = names[number]
    fields = list(struct.unpack_from(codes[name], memory.data, memory._place(piece) + FUNCTION.size))
    left, arguments = codes[name], {}
    for (argument, entry), code in zip(arguments_of(name).items(), code_of(name)):
        if not left.startswith(code):
            arguments[argument] = default_of(name, argument)
            continue
        left = left[len(code) :]
        value = fields.pop(0)
        if code == "iI":
            arguments[argument] = list(memory.whole(value, fields.pop(0), "i"))
        elif entry["type"] == "bool":
            arguments[argument] = bool(value)
        elif entry["type"] == "string":
            arguments[argument] = entry["available_values"][value]
        else:
            arguments[argument] = value
    return Call(name, memory.whole(inputs, inputs_piece), memory.whole(outputs, outputs_piece), arguments)


def read_nnb(data: bytes) -> tuple[Stored, int]:
    """Return the network in an NNB and its API level.

    Args:
        data: the file.

    Raises:
        ExportError: it is none, is damaged, or holds other numbers than float32.

    Source:
        nnabla-c-runtime, doc/FILE_FORMAT.md.
    """
    try:
        version, level, *lists, pieces, size = HEADER.unpack_from(data)
        if version not in VERSIONS:
            raise ValueError(f"version {version}, not {' or '.join(map(str, VERSIONS))}")
        start = HEADER.size + 4 * pieces
        if start + size != len(data):
            raise ValueError(f"it says {start + size} bytes, and has {len(data)}")
        memory = _Memory(struct.unpack_from(f"<{pieces}I", data, HEADER.size), data[start:])
        functions = table(level)
        names = {number: name for name, (number, _) in functions.items()}
        codes = {name: code for name, (_, code) in functions.items()}
        buffers, variables, calls, inputs, outputs = (memory.whole(lists[i], lists[i + 1]) for i in range(0, 10, 2))
        return Stored(
            buffers,
            tuple(_variable(memory, piece) for piece in variables),
            tuple(_call(memory, piece, names, codes) for piece in calls),
            inputs,
            outputs,
        ), level
    except (struct.error, ValueError, IndexError) as error:
        raise ExportError(f"no NNB can be read: {error}") from error
