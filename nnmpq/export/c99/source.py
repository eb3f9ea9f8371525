"""An integer program as one C99 file and its header."""

from __future__ import annotations

from string import Template
from typing import Callable

import attrs
import numpy as np

from nnmpq.export.c99 import kernels, tables
from nnmpq.export.c99.forms import Form, forms, sizes
from nnmpq.export.c99.text import HEAD, HEADER, TAIL, TYPES
from nnmpq.export.integer import program as ir
from nnmpq.export.integer.plan import Plan, plan
from nnmpq.export.integer.program import Operation, Program, Requantiser, Tensor


@attrs.frozen(eq=False)
class Source:
    """C text and what it takes.

    Args:
        header: network.h.
        code: network.c.
        weight_bytes: packed weights in flash.
        table_bytes: multipliers, biases, shifts and tables of numbers in flash.
        ram_bytes: static buffers.
    """

    header: str
    code: str
    weight_bytes: int
    table_bytes: int
    ram_bytes: int


@attrs.define(eq=False)
class _Writer:
    """What has been written so far; lives for one call of `source`."""

    program: Program
    forms: dict[str, Form]
    plan: Plan
    functions: dict[str, str] = attrs.field(factory=dict)
    data: list[str] = attrs.field(factory=list)
    calls: list[str] = attrs.field(factory=list)
    scratch: dict[str, int] = attrs.field(factory=dict)
    weight_bytes: int = 0
    table_bytes: int = 0

    def tensor(self, name: str) -> Tensor:
        return self.program.tensors[name]

    def pointer(self, name: str) -> str:
        """C expression of where a tensor lies."""
        if name == self.program.output:
            return "logits"
        if name == self.program.input.name:
            return "pixels"
        type_ = self.forms[name].type
        return f"memory.as_{type_} + {self.plan.offsets[name] // np.dtype(type_).itemsize}"

    def form(self, name: str) -> Form:
        """Form of a tensor, with its functions written."""
        form = self.forms[name]
        self.need(form.load, form.code)
        return form

    def kernel(self, template: Template, name: str, read: str, written: str, **types: str) -> str:
        """Have a kernel written for the forms of two tensors; return the name of its function."""
        source, target = self.form(read), self.form(written)
        self.need(
            name,
            template.substitute(
                {"x": _c(source.type), "y": _c(target.type), "from": source.name, "to": target.name},
                load=source.load,
                store=target.store,
                number=_c(target.number),
                **types,
            ),
        )
        return name

    def need(self, name: str, text: str) -> None:
        """Have a function written, once."""
        self.functions.setdefault(name, text)

    def requantiser(self, made: Requantiser, prefix: str) -> str:
        """Write a requantiser's tables; return its initializer."""
        text, initializer = tables.requantiser(made, prefix)
        self.data.append(text)
        self.table_bytes += made.bytes
        return initializer


def _map(tensor: Tensor) -> str:
    channels, rows, columns = tensor.shape
    return f"{{{rows}, {columns}, {channels}}}"


def _window(kernel: tuple, stride: tuple, pad: tuple, dilation: tuple = (1, 1)) -> str:
    return "{" + ", ".join(str(v) for v in (*kernel, *stride, *pad, *dilation)) + "}"


def _c(type_: str) -> str:
    return f"{type_}_t"


def _weight_type(operation: ir.Convolve, read: Tensor) -> str:
    """int16, whose products compilers add in pairs, unless weights or numbers read need more."""
    numbers = operation.levels
    fits = max(-int(numbers.min()), int(numbers.max()), len(numbers) - 1) < 2**15
    return "int16" if fits and read.type != "int32" else "int32"


def _convolve(w: _Writer, operation: ir.Convolve, place: int) -> None:
    read, written = w.tensor(operation.inputs[0]), w.tensor(operation.output)
    weight = _weight_type(operation, read)
    _, rows, columns, inner = operation.weights.shape
    depthwise = inner == 1 and operation.group > 1
    kernel = "depthwise" if depthwise else "convolve"
    name = f"{kernel}_{w.forms[read.name].name}_{_c(weight)}_{w.forms[written.name].name}"
    w.need("inside", kernels.INSIDE)
    w.need(f"unpack_{weight}", kernels.UNPACK.substitute(w=_c(weight)))
    template = kernels.DEPTHWISE if depthwise else kernels.CONVOLVE
    w.kernel(template, name, read.name, written.name, w=_c(weight))
    packed = tables.packed_weights(operation)
    w.weight_bytes += len(packed)
    prefix = f"layer{place}"
    w.data.append(
        f"/* {tables.comment(operation.layer)}: {operation.weights.size} weights of {operation.bits} bits */\n"
    )
    w.data.append(tables.table("uint8_t", f"{prefix}_weights", packed))
    line = tables.progression(operation.levels)
    numbers = "NULL"
    if line is None:
        w.data.append(tables.table("int32_t", f"{prefix}_numbers", operation.levels))
        w.table_bytes += operation.levels.nbytes
        numbers, line = f"{prefix}_numbers", (0, 1)
    initializer = w.requantiser(operation.requantiser, prefix)
    window = _window((rows, columns), operation.stride, operation.pad, operation.dilation)
    w.data.append(
        f"static const struct convolution {prefix} = {{\n    {_map(read)}, {_map(written)}, {window},\n"
        f"    {operation.group}, {operation.bits}u, {line[0]}, {line[1]}, {numbers}, {prefix}_weights,\n"
        f"    {initializer}\n}};\n"
    )
    w.scratch[weight] = max(w.scratch.get(weight, 0), rows * columns * inner)
    w.calls.append(f"{name}(&{prefix}, {w.pointer(read.name)}, unpacked.as_{weight}, {w.pointer(written.name)});")


def _loop(w: _Writer, operation: ir.Pixels | ir.Sum, multipliers: tuple[int, ...], place: int) -> None:
    written = w.tensor(operation.output)
    prefix = f"step{place}"
    made = operation.requantiser
    initializer = w.requantiser(made, prefix)
    w.data.append(f"static const struct requantiser {prefix} = {initializer};\n")
    terms = [
        f"{m} * (int32_t){w.form(name).load}({w.pointer(name)}, i)"
        if m != 1
        else f"(int32_t){w.form(name).load}({w.pointer(name)}, i)"
        for m, name in zip(multipliers, operation.inputs)
    ]
    target = w.form(written.name)
    channel = f"i % {written.shape[0]}" if len(made.bias) > 1 else "0"
    w.calls.append(
        f"for (i = 0; i < {written.elements}; ++i) {{\n"
        f"        {target.store}({w.pointer(written.name)}, i, ({_c(target.number)})requantise(&{prefix}, {channel},\n"
        f"            {' + '.join(terms)}));\n    }}"
    )


def _pool(w: _Writer, operation: ir.AveragePool | ir.MaxPool, prefix: str) -> tuple[Tensor, Tensor, str]:
    read, written = w.tensor(operation.inputs[0]), w.tensor(operation.output)
    w.need("inside", kernels.INSIDE)
    w.data.append(
        f"static const struct map {prefix}_in = {_map(read)}, {prefix}_out = {_map(written)};\n"
        f"static const struct window {prefix}_window = "
        f"{_window(operation.kernel, operation.stride, operation.pad)};\n"
    )
    return read, written, f"&{prefix}_in, &{prefix}_out, &{prefix}_window"


def _average_pool(w: _Writer, operation: ir.AveragePool, place: int) -> None:
    prefix = f"step{place}"
    read, written, geometry = _pool(w, operation, prefix)
    initializer = w.requantiser(operation.requantiser, prefix)
    w.data.append(f"static const struct requantiser {prefix} = {initializer};\n")
    name = f"average_pool_{w.forms[read.name].name}_{w.forms[written.name].name}"
    w.kernel(kernels.AVERAGE_POOL, name, read.name, written.name)
    per_channel = int(len(operation.requantiser.bias) > 1)
    pointers = f"{w.pointer(read.name)}, {w.pointer(written.name)}"
    w.calls.append(f"{name}({geometry}, &{prefix}, {per_channel},\n        {pointers});")


def _max_pool(w: _Writer, operation: ir.MaxPool, place: int) -> None:
    read, written, geometry = _pool(w, operation, f"step{place}")
    name = f"max_pool_{w.forms[read.name].name}_{w.forms[written.name].name}"
    w.kernel(kernels.MAX_POOL, name, read.name, written.name)
    w.calls.append(f"{name}({geometry}, {w.pointer(read.name)}, {w.pointer(written.name)});")


def _select(w: _Writer, operation: ir.Select, place: int) -> None:
    read, written = w.tensor(operation.inputs[0]), w.tensor(operation.output)
    prefix, name = f"step{place}", f"select_{w.forms[read.name].name}_{w.forms[written.name].name}"
    w.data.append(f"static const struct map {prefix}_in = {_map(read)}, {prefix}_out = {_map(written)};\n")
    w.kernel(kernels.SELECT, name, read.name, written.name)
    numbers = f"{operation.stride[0]}, {operation.stride[1]}, {operation.before}"
    pointers = f"{w.pointer(read.name)}, {w.pointer(written.name)}"
    w.calls.append(f"{name}(&{prefix}_in, &{prefix}_out, {numbers},\n        {pointers});")


def _concatenate(w: _Writer, operation: ir.Concatenate, place: int) -> None:
    written, to = w.tensor(operation.output), 0
    channels, rows, columns = written.shape
    for name, multiplier in zip(operation.inputs, operation.multipliers):
        read = w.tensor(name)
        function = f"place_{w.forms[name].name}_{w.forms[written.name].name}"
        w.kernel(kernels.PLACE, function, name, written.name)
        numbers = f"{rows * columns}, {read.shape[0]}, {channels}, {to}, {multiplier}"
        w.calls.append(f"{function}({numbers}, {w.pointer(name)}, {w.pointer(written.name)});")
        to += read.shape[0]


WRITERS: dict[type, Callable] = {
    ir.Pixels: lambda w, operation, place: _loop(w, operation, (1,), place),
    ir.Convolve: _convolve,
    ir.Sum: lambda w, operation, place: _loop(w, operation, operation.multipliers, place),
    ir.AveragePool: _average_pool,
    ir.MaxPool: _max_pool,
    ir.Select: _select,
    ir.Concatenate: _concatenate,
}


def source(program: Program, pack_activations: bool = False) -> Source:
    """Return a program as C99.

    Weights are packed constants, unpacked one output channel at a time; tensors share one static block as `plan` says.
    Maps lie in memory as rows of columns of channels.

    Args:
        program: the integer program.
        pack_activations: whether maps of at most 4 bits are packed in memory: less of it, more time.
    """
    made = forms(program, pack_activations)
    w = _Writer(program, made, plan(program, sizes(program, made)))
    for place, operation in enumerate(program.operations):
        WRITERS[type(operation)](w, operation, place)
        w.calls.append(_trace(w, operation))
    return Source(_header(program), _code(w), w.weight_bytes, w.table_bytes, w.plan.bytes + _scratch_bytes(w))


def _trace(w: _Writer, operation: Operation) -> str:
    tensor = w.tensor(operation.output)
    return f"TRACE({w.pointer(tensor.name)}, {w.forms[tensor.name].bytes(tensor.elements)});"


def _scratch_bytes(w: _Writer) -> int:
    return max((count * np.dtype(type_).itemsize for type_, count in w.scratch.items()), default=0)


def _header(program: Program) -> str:
    channels, rows, columns = program.input.shape
    output = program.tensors[program.output]
    return HEADER.format(
        name=tables.comment(program.name),
        rows=rows,
        columns=columns,
        channels=channels,
        pixels=program.input.elements,
        largest=program.input.high,
        classes=output.shape[0],
        exponent=int(np.frexp(output.step)[1]) - 1,
    )


def _union(name: str, counts: dict[str, int]) -> str:
    members = "".join(f"    {_c(type_)} as_{type_}[{count}];\n" for type_, count in sorted(counts.items()))
    return f"static union {{\n{members}}} {name};\n"


def _code(w: _Writer) -> str:
    text = HEAD.format(name=tables.comment(w.program.name)) + '#include "network.h"\n'
    text += "\n#ifdef NETWORK_TRACE\n#define TRACE(numbers, bytes) network_trace(numbers, bytes)\n#else\n"
    text += "#define TRACE(numbers, bytes)\n#endif\n"
    text += TYPES + kernels.REQUANTISE + "".join(w.functions.values()) + "\n" + "".join(w.data) + "\n"
    kinds = {w.forms[name].type for name in w.plan.offsets} | {"int32"}
    text += _union("memory", {kind: -(-w.plan.bytes // np.dtype(kind).itemsize) for kind in kinds})
    if w.scratch:
        text += _union("unpacked", w.scratch)
    calls = "".join(f"    {call}\n" for call in w.calls)
    if any(call.startswith("for (i") for call in w.calls):
        calls = "    int32_t i;\n\n" + calls
    return text + TAIL.format(calls=calls)
