"""What an integer program takes, layer by layer, beside float and 8 bits."""

from __future__ import annotations

from collections.abc import Mapping

from nnmpq.export.integer.pack import packed_bytes
from nnmpq.export.integer.plan import busiest, plan
from nnmpq.export.integer.program import Convolve, Program

COLUMNS = ("layer", "weights", "bits", "packed", "tables", "8 bits", "float", "sums", "output bits", "output bytes")


def rows(
    program: Program, sizes: Mapping[str, int] | None = None
) -> list[tuple[str, int, int, int, int, int, int, int, int, int]]:
    """Return a row of `COLUMNS` for every layer: bytes of packed weights, of tables, of weights at 8 bits and in float.

    Args:
        program: the integer program; "sums" is the number of sums, each with its multiplier, bias and shift.
        sizes: bytes of each tensor where they are not those of its type.
    """
    found = []
    taken = sizes or {name: tensor.bytes for name, tensor in program.tensors.items()}
    for layer in program.operations:
        if isinstance(layer, Convolve):
            count, output = layer.weights.size, program.tensors[layer.output]
            packed = packed_bytes(count, layer.bits)
            tables = layer.requantiser.bytes
            sums = len(layer.requantiser.bias)
            found.append(
                (
                    layer.layer,
                    count,
                    layer.bits,
                    packed,
                    tables,
                    count,
                    4 * count,
                    sums,
                    output.bits,
                    taken[output.name],
                )
            )
    return found


def sheet(program: Program, sizes: Mapping[str, int] | None = None) -> str:
    """Return the rows with their totals and the memory, as text.

    Memory is that of the tensors between pixels and logits: what the plan takes, the least that any plan can, and all
    tensors without reuse.

    Args:
        program: the integer program.
        sizes: as of `rows`.
    """
    table = rows(program, sizes)
    totals = [sum(int(row[column]) for row in table) for column in (1, 3, 4, 5, 6)]
    total = ("total", totals[0], "", *totals[1:], "", "", "")
    lines = [[str(cell) if not isinstance(cell, int) else f"{cell:,}" for cell in row] for row in [*table, total]]
    widths = [max(len(line[i]) for line in [list(COLUMNS), *lines]) for i in range(len(COLUMNS))]
    text = [
        "  ".join(cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(line)).rstrip()
        for line in [list(COLUMNS), *lines]
    ]
    ends = (program.input.name, program.output)
    taken = sizes or {name: tensor.bytes for name, tensor in program.tensors.items()}
    apart = sum(size for name, size in taken.items() if name not in ends)
    planned, least = plan(program, sizes).bytes, busiest(program, sizes)
    text += ["", f"tensors in memory: {planned:,} bytes planned, {least:,} the least, {apart:,} without reuse"]
    return "\n".join(text) + "\n"
