from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.export.integer.pack import pack, packed_bytes, unpack
from nnmpq.export.integer.weights import integer_weights
from nnmpq.quantizers.grid import Grid


@given(bits=st.integers(1, 8), data=st.data())
def test_packed_numbers_are_one_long_number(bits: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = pack(np.array(numbers, int), bits)
    whole = sum(number << (place * bits) for place, number in enumerate(numbers))
    assert int.from_bytes(packed.tobytes(), "little") == whole
    assert len(packed) == packed_bytes(len(numbers), bits) == -(-len(numbers) * bits // 8)
    assert unpack(packed, bits, len(numbers)).tolist() == numbers


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 8 do not fit in 3 bits"):
        pack(np.array([0, 8]), 3)
    with pytest.raises(ValueError, match="from -1 to 0"):
        pack(np.array([-1, 0]), 3)


@pytest.mark.parametrize(
    "grid",
    [
        Grid("uniform", 3, True, step=np.float32(0.25), low=np.int32(-3), high=np.int32(3)),
        Grid("uniform", 2, True, step=np.float32(0.3), offset=0.5, low=np.int32(-2), high=np.int32(1)),
        Grid("uniform", 2, True, step=np.float32(2 / 3), offset=-1.5, low=np.int32(0), high=np.int32(3)),
        Grid("uniform", 1, True, step=np.float32(0.5), offset=0.5, low=np.int32(-1), high=np.int32(0)),
        Grid("pow2", 3, True, xmin=np.float32(0.125), xmax=np.float32(1.0), with_zero=False),
        Grid("pow2", 3, True, xmin=np.float32(0.125), xmax=np.float32(0.5), with_zero=True),
    ],
    ids=["uniform", "mid-rise", "dorefa", "sign", "pow2", "pow2 with zero"],
)
def test_whole_numbers_times_the_unit_are_the_weights(grid: Grid) -> None:
    values = np.unique(grid.quantize(np.linspace(-3, 3, 999, dtype=np.float32)))
    codes = grid.encode(values)
    weights = integer_weights(codes, grid, "w")
    np.testing.assert_allclose(weights.levels[weights.index] * weights.unit, values, rtol=1e-6)
    assert weights.index.max() < 2**weights.bits and weights.bits == grid.bits
    assert len(values) == grid.levels()
