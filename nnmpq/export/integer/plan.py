"""Where each tensor lies in one block of memory, reused as soon as a tensor has been read for the last time."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from nnmpq.export.integer.program import Program

ALIGNMENT = 4


@attrs.frozen
class Plan:
    """Offsets in bytes of the tensors between the pixels and the logits, and the size of the block."""

    offsets: dict[str, int]
    bytes: int


@attrs.frozen
class Life:
    """From which operation to which a tensor holds numbers, both included."""

    first: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether both hold numbers at one time."""
        return self.first <= other.last and other.first <= self.last


def lives(program: Program) -> dict[str, Life]:
    """Return the life of every tensor that an operation writes, but the output."""
    found = {}
    for place, operation in enumerate(program.operations):
        if operation.output != program.output:
            found[operation.output] = Life(place, place)
        for name in operation.inputs:
            if name in found:
                found[name] = Life(found[name].first, place)
    return found


def plan(program: Program, sizes: Mapping[str, int] | None = None) -> Plan:
    """Place the largest tensors first, each at the lowest offset that no tensor of its time covers.

    Args:
        program: pixels and logits are the caller's memory, everything else is placed.
        sizes: bytes of each tensor where they are not those of its type.

    Returns:
        Offsets, multiples of 4, and the bytes of the block; never less than the busiest operation needs.

    Source:
        Greedy by size: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, section 5.
    """
    life, taken = lives(program), _rounded(program, sizes)
    placed: dict[str, tuple[int, int]] = {}
    for name in sorted(life, key=lambda n: (-taken[n], life[n].first)):
        size = taken[name]
        busy = sorted(placed[other] for other in placed if life[other].meets(life[name]))
        offset = 0
        for start, end in busy:
            if offset + size <= start:
                break
            offset = max(offset, end)
        placed[name] = (offset, offset + size)
    return Plan(
        {name: start for name, (start, _) in placed.items()}, max((end for _, end in placed.values()), default=0)
    )


def _rounded(program: Program, sizes: Mapping[str, int] | None) -> dict[str, int]:
    found = sizes or {name: tensor.bytes for name, tensor in program.tensors.items()}
    return {name: (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT for name, size in found.items()}


def busiest(program: Program, sizes: Mapping[str, int] | None = None) -> int:
    """Return the bytes of tensors that hold numbers at the busiest operation: no plan needs less.

    Args:
        program: as of `plan`.
        sizes: as of `plan`.
    """
    life, taken = lives(program), _rounded(program, sizes)
    return max(
        (
            sum(taken[name] for name, span in life.items() if span.first <= place <= span.last)
            for place in range(len(program.operations))
        ),
        default=0,
    )
