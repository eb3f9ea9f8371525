"""The forms that maps have in memory: one number a byte or more, or several numbers packed into one byte."""

from __future__ import annotations

from string import Template

import attrs
import numpy as np

from nnmpq.export.integer.pack import packed_bytes
from nnmpq.export.integer.program import Program, Tensor

# Wider maps stay one number a byte.
WIDEST = 4

PLAIN = """
#define LOAD(x, i) ((x)[i])
#define STORE(y, i, number) ((y)[i] = (number))
"""

# The first number lies in the lowest bits; a byte is shared with neighbours, so that storing keeps the other bits.
PACKED = Template("""
/* Numbers from $low on in $bits bits each. */
static int32_t load_$form(const uint8_t *x, int32_t i)
{
    const uint32_t position = (uint32_t)i * ${bits}u, below = position & 7u;
    const uint8_t *at = x + (position >> 3);
    uint32_t pair = at[0];

    if (below + ${bits}u > 8u) {
        pair |= (uint32_t)at[1] << 8;
    }
    return (int32_t)(pair >> below & ${mask}u) + ($low);
}

static void store_$form(uint8_t *y, int32_t i, int32_t number)
{
    const uint32_t position = (uint32_t)i * ${bits}u, below = position & 7u;
    const uint32_t code = (uint32_t)(number - ($low));
    uint8_t *at = y + (position >> 3);

    at[0] = (uint8_t)((at[0] & ~(${mask}u << below)) | code << below);
    if (below + ${bits}u > 8u) {
        at[1] = (uint8_t)((at[1] & ~(${mask}u >> (8u - below))) | code >> (8u - below));
    }
}
""")


@attrs.frozen
class Form:
    """How the numbers of a map lie in memory.

    Args:
        type: that they are read as, of `nnmpq.export.integer.program.TYPES`.
        bits: of each number where they are packed, else 0.
        low: number that the code 0 stands for, where they are packed.
    """

    type: str
    bits: int = 0
    low: int = 0

    @property
    def name(self) -> str:
        """Part of the names of C functions.

        Example:
            >>> Form("int8").name, Form("uint8", 3, -3).name
            ('int8_t', 'packed3_from_minus3')
        """
        if not self.bits:
            return f"{self.type}_t"
        return f"packed{self.bits}_from_{'minus' if self.low < 0 else ''}{abs(self.low)}"

    @property
    def number(self) -> str:
        """Type of one number: what is packed is a code, which has no sign of its own."""
        return "int32" if self.bits else self.type

    @property
    def load(self) -> str:
        """Name of what reads a number."""
        return f"load_{self.name}" if self.bits else "LOAD"

    @property
    def store(self) -> str:
        """Name of what writes a number."""
        return f"store_{self.name}" if self.bits else "STORE"

    @property
    def code(self) -> str:
        """C text of both."""
        if not self.bits:
            return PLAIN
        return PACKED.substitute(form=self.name, bits=self.bits, low=self.low, mask=2**self.bits - 1)

    def bytes(self, elements: int) -> int:
        """Return the bytes that so many numbers take."""
        return packed_bytes(elements, self.bits) if self.bits else elements * np.dtype(self.type).itemsize


def form_of(tensor: Tensor, pack: bool) -> Form:
    """Return the form of a map: packed where that is wanted and its levels need at most 4 bits.

    Example:
        >>> relu = Tensor("relu", (1, 1, 9), 0, 7, 1.0, 3, True)
        >>> form_of(relu, False).bytes(9), form_of(relu, True).bytes(9)
        (9, 4)
    """
    bits = max((tensor.high - tensor.low).bit_length(), 1)
    return Form("uint8", bits, tensor.low) if pack and bits <= WIDEST else Form(tensor.type)


def forms(program: Program, pack: bool) -> dict[str, Form]:
    """Return the form of every tensor; pixels and logits are the caller's, and stay plain.

    Args:
        program: the integer program.
        pack: whether to pack what can be packed.
    """
    ends = (program.input.name, program.output)
    return {name: form_of(tensor, pack and name not in ends) for name, tensor in program.tensors.items()}


def sizes(program: Program, made: dict[str, Form]) -> dict[str, int]:
    """Return the bytes of every tensor in its form, as `nnmpq.export.integer.plan.plan` takes them.

    Args:
        program: the integer program.
        made: of `forms`.
    """
    return {name: made[name].bytes(tensor.elements) for name, tensor in program.tensors.items()}
