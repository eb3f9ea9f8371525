"""Reading CSRC back: what the generated C says of tensors, functions, buffers and constants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnmpq.export.integer.program import ExportError
from nnmpq.export.nnablart.levels import arguments_of
from nnmpq.export.nnablart.stored import Call, Stored, StoredVariable

INFERENCE, PARAMETERS = "main_inference.c", "main_parameters.c"
BUFFERS = re.compile(r"int actual_buf_sizes\[\d+\] = \{([^}]*)\}")
SHAPE = re.compile(r"c->v(\d+)_shape\[\d+\] = (\d+);")
PLACE = re.compile(r"\(c->v(\d+)\)\.data = c->(buffer|param)_pool\[(\d+)\];")
KIND = re.compile(r"rt_function_t f(\d+); ///< (\w+)")
TENSOR = re.compile(r"\(c->f(\d+)_(inputs|outputs)\)\[\d+\] = &\(c->v(\d+)\);")
NUMBER = re.compile(r"\(c->f(\d+)_local_context\)->(\w+) = ([^;]+);")
LIST = re.compile(r"arg_f(\d+)_(\w+)\.data\[\d+\] = (-?\d+);")
EXECUTED = re.compile(r"exec_\w+\(&\(c->f(\d+)\)\);")
RETURNED = re.compile(r"(input|output)_buffer\(void\* context, int index\)\s*\{(.*?)\n\}", re.DOTALL)
CASE = re.compile(r"case \d+: return \(c->v(\d+)\)\.data;")
TABLE = re.compile(r"float main_parameter(\d+)\[\] = \{([^}]*)\}")
POINTERS = re.compile(r"\(void\*\)main_parameter(\d+),")


def _number(kind: str, name: str, written: str, entry: Mapping[str, Any]) -> Any:
    if entry["type"] == "bool":
        return written == "1"
    if entry["type"] == "string":
        for value in entry["available_values"]:
            if written.endswith(f"_{value.upper()}"):
                return value
        raise ValueError(f"{kind}: {name} = {written}")
    return int(written) if entry["type"] == "int64" else float(np.float32(written))


def _calls(text: str) -> list[Call]:
    kinds = {int(f): kind for f, kind in KIND.findall(text)}
    tensors: dict[tuple[int, str], list[int]] = {}
    for f, side, v in TENSOR.findall(text):
        tensors.setdefault((int(f), side), []).append(int(v))
    lists: dict[tuple[int, str], list[int]] = {}
    for f, name, value in LIST.findall(text):
        lists.setdefault((int(f), name), []).append(int(value))
    numbers = {(int(f), name): value for f, name, value in NUMBER.findall(text)}
    calls = []
    for f in map(int, EXECUTED.findall(text)):
        arguments: dict[str, Any] = {}
        for name, entry in arguments_of(kinds[f]).items():
            listed = entry["type"] in ("Shape", "repeated int64")
            found = lists.get((f, name), []) if listed else _number(kinds[f], name, numbers[f, name], entry)
            arguments[name] = found
        calls.append(Call(kinds[f], tuple(tensors[f, "inputs"]), tuple(tensors[f, "outputs"]), arguments))
    return calls


def read_csrc(files: Mapping[str, str]) -> Stored:
    """Return the network that generated C source computes.

    Args:
        files: text by name, as nnabla's converter writes it.

    Raises:
        ExportError: a file is missing, or does not look like the converter's.
    """
    try:
        text, constants = files[INFERENCE], files[PARAMETERS]
        sizes = BUFFERS.search(text)
        if sizes is None:
            raise ValueError("no sizes of buffers")
        shapes: dict[int, list[int]] = {}
        for v, length in SHAPE.findall(text):
            shapes.setdefault(int(v), []).append(int(length))
        tables = {int(v): np.array(body.replace(",", " ").split(), np.float32) for v, body in TABLE.findall(constants)}
        order = [int(v) for v in POINTERS.findall(constants)]
        variables = [StoredVariable((), buffer=-1)] * (max(shapes) + 1)
        for v, pool, place in PLACE.findall(text):
            values = tables[order[int(place)]] if pool == "param" else None
            if values is not None and values.size != int(np.prod(shapes[int(v)])):
                raise ValueError(f"tensor {v} has {values.size} constants for shape {shapes[int(v)]}")
            buffer = int(place) if pool == "buffer" else None
            variables[int(v)] = StoredVariable(tuple(shapes[int(v)]), buffer, values)
        ends = {side: tuple(map(int, CASE.findall(body))) for side, body in RETURNED.findall(text)}
        buffers = tuple(int(size) for size in sizes.group(1).replace(",", " ").split())
        return Stored(buffers, tuple(variables), tuple(_calls(text)), ends["input"], ends["output"])
    except (KeyError, ValueError, IndexError) as error:
        raise ExportError(f"no CSRC of nnabla's converter can be read: {error!r}") from error
