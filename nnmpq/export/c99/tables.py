"""Numbers as C tables."""

from __future__ import annotations

import numpy as np

from nnmpq.export.integer.pack import pack
from nnmpq.export.integer.program import Convolve, ExportError, Requantiser

WIDTH = 110


def comment(text: str) -> str:
    """Return text that cannot end the comment that it stands in.

    Example:
        >>> comment("a*/b")
        'a* /b'
    """
    return text.replace("*/", "* /").replace("\n", " ")


def literal(number: int, type_: str) -> str:
    """Return a number as C; 64-bit ones need a macro.

    Example:
        >>> literal(-5, "int32_t"), literal(2**40, "int64_t")
        ('-5', 'INT64_C(1099511627776)')
    """
    return f"INT64_C({number})" if type_ == "int64_t" else str(number)


def table(type_: str, name: str, numbers: np.ndarray) -> str:
    """Return the definition of a constant table.

    Example:
        >>> print(table("uint8_t", "a", np.array([1, 2])))
        static const uint8_t a[2] = {
            1, 2
        };
        <BLANKLINE>
    """
    words = [literal(int(n), type_) for n in np.asarray(numbers).ravel()]
    lines, line = [], "   "
    for word in words:
        if len(line) + len(word) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {word},"
    lines.append(line.rstrip(","))
    return f"static const {type_} {name}[{len(words)}] = {{\n" + "\n".join(lines) + "\n};\n"


def packed_weights(operation: Convolve) -> np.ndarray:
    """Return a layer's weights as they lie in flash, uint8."""
    return pack(operation.weights, operation.bits)


def progression(levels: np.ndarray) -> tuple[int, int] | None:
    """Return first number and distance of an arithmetic progression, None where it is none.

    Example:
        >>> progression(np.array([-3, -1, 1, 3])), progression(np.array([1, 2, 4]))
        ((-3, 2), None)
    """
    steps = np.unique(np.diff(levels)) if len(levels) > 1 else np.ones(1, int)
    return (int(levels[0]), int(steps[0])) if len(steps) == 1 else None


def requantiser(made: Requantiser, prefix: str) -> tuple[str, str]:
    """Return tables and initializer of a `struct requantiser`."""
    text = table("int32_t", f"{prefix}_multiplier", made.multiplier)
    text += table("int64_t", f"{prefix}_bias", made.bias)
    names = {key: "NULL" for key in ("shift", "edges", "values", "first", "exception", "correction")}
    if made.edges is None:
        text += table("uint8_t", f"{prefix}_shift", made.shift)
        names["shift"] = f"{prefix}_shift"
    else:
        assert made.values is not None
        text += table("int64_t", f"{prefix}_edges", made.edges) + table("int32_t", f"{prefix}_values", made.values)
        names.update(edges=f"{prefix}_edges", values=f"{prefix}_values")
    if len(made.exception_sum):
        if len(made.exception_sum) >= 2**16:
            raise ExportError(f"{prefix}: {len(made.exception_sum)} exceptions are more than the table can name")
        first = np.searchsorted(made.exception_channel, np.arange(len(made.bias) + 1))
        text += table("uint16_t", f"{prefix}_first", first)
        text += table("int32_t", f"{prefix}_exception", made.exception_sum)
        text += table("int8_t", f"{prefix}_correction", made.exception_correction)
        names.update(first=f"{prefix}_first", exception=f"{prefix}_exception", correction=f"{prefix}_correction")
    pointers = ", ".join(names.values())
    return text, f"{{{prefix}_multiplier, {prefix}_bias, {pointers}, {made.low}, {made.levels - 1}u}}"
