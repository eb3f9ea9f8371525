from __future__ import annotations

import numpy as np
import pytest

from nnmpq.export.integer.program import ExportError
from nnmpq.export.nnablart.stored import Call, Machine, Stored, StoredVariable


def _affine(buffers: tuple[int, ...] = (3, 2), places: tuple[int, int] = (0, 1)) -> Stored:
    """Three numbers times a matrix, stored turned over as the converter does, and twice the result."""
    matrix = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    variables = (
        StoredVariable((1, 3), buffer=places[0]),
        StoredVariable((3, 2), values=matrix.T.ravel()),
        StoredVariable((1, 2), buffer=places[1]),
        StoredVariable((1, 2), buffer=places[0]),
    )
    calls = (
        Call("Affine", (0, 1), (2,), {"base_axis": 1}),
        Call("MulScalar", (2,), (3,), {"val": 2.0, "inplace": False}),
    )
    return Stored(buffers, variables, calls, (0,), (3,))


def test_a_network_by_hand() -> None:
    stored = _affine()
    made = Machine(stored).run(np.array([[1, 10, 100]], np.float32))
    # 2 * (1*1 + 10*3 + 100*5, 1*2 + 10*4 + 100*6)
    np.testing.assert_array_equal(made, [[1062, 1284]])
    assert (stored.weight_bytes, stored.constant_bytes, stored.buffer_bytes) == (24, 24, 20)


def test_a_buffer_that_is_needed_twice_gives_wrong_numbers() -> None:
    """Were buffers of the machine not shared, a file that reuses one too early would pass."""
    add = Call("Add2", (3, 0), (3,), {"inplace": False})
    right = Stored((3, 3, 3), _sum_variables((0, 1, 2)), (_double(), add), (0,), (3,))
    wrong = Stored((3, 3, 3), _sum_variables((0, 0, 2)), (_double(), add), (0,), (3,))
    image = np.array([[1, 2, 3]], np.float32)
    np.testing.assert_array_equal(Machine(right).run(image), [[3, 6, 9]])
    np.testing.assert_array_equal(Machine(wrong).run(image), [[4, 8, 12]])


def _double() -> Call:
    return Call("MulScalar", (0,), (3,), {"val": 2.0, "inplace": False})


def _sum_variables(buffers: tuple[int, int, int]) -> tuple[StoredVariable, ...]:
    first, second, third = buffers
    return tuple(StoredVariable((1, 3), buffer=b) for b in (first, third, third, second))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (_affine((2, 2)), "does not fit in its buffer"),
        (_affine(places=(0, 7)), "there is no buffer 7"),
        (_affine(places=(0, -1)), "there is no buffer -1"),
    ],
)
def test_what_does_not_fit_is_named(stored: Stored, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        Machine(stored)


def test_functions_that_cannot_be_built_are_named() -> None:
    good = _affine()
    for call in (
        Call("NoSuchFunction", (0,), (2,), {}),
        Call("Affine", (0, 9), (2,), {"base_axis": 1}),
        Call("Affine", (0, 1), (0,), {"base_axis": 1}),
        Call("Affine", (0, 1), (2,), {"axis": 1}),
    ):
        with pytest.raises(ExportError, match=f"{call.name} cannot be built as the file says"):
            Machine(Stored(good.buffers, good.variables, (call,), (0,), (2,)))
    weightless = Stored((9,), (StoredVariable((1, 3), buffer=0),) * 3, (Call("Affine", (0, 1), (2,), {}),), (0,), (2,))
    with pytest.raises(ExportError, match="tensor 1 is a layer's weight, and no constant"):
        _ = weightless.weight_bytes
