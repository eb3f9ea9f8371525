from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.export.integer.lower import lower
from nnmpq.export.integer.plan import busiest, lives, plan
from nnmpq.export.integer.program import Program, Requantiser, Sum, Tensor
from tests.export.networks import prepare, quantized

NOTHING = Requantiser(np.ones(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.uint8), 256, 0)


def tensor(name: str, size: int, high: int = 255) -> Tensor:
    return Tensor(name, (size, 1, 1), 0, high, 1.0, 8, True)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    count = draw(st.integers(1, 12))
    tensors = {"pixels": tensor("pixels", 4)}
    operations = []
    for place in range(count):
        read = draw(st.lists(st.sampled_from(list(tensors)), min_size=1, max_size=3))
        name = f"t{place}"
        tensors[name] = tensor(name, draw(st.integers(1, 50)), draw(st.sampled_from([255, 2**15 - 1, 2**20])))
        operations.append(Sum(tuple(read), name, (1,) * len(read), NOTHING))
    return Program("random", tensors, tuple(operations), f"t{count - 1}")


@settings(max_examples=100, deadline=None)
@given(program=programs())
def test_no_two_tensors_of_one_time_share_a_byte(program: Program) -> None:
    made, life = plan(program), lives(program)
    assert set(made.offsets) == {op.output for op in program.operations} - {program.output}
    for place in range(len(program.operations)):
        used = np.zeros(made.bytes, int)
        for name, offset in made.offsets.items():
            if life[name].first <= place <= life[name].last:
                used[offset : offset + program.tensors[name].bytes] += 1
            assert offset % 4 == 0
        assert not np.any(used > 1)
    assert made.bytes >= busiest(program)


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    sizes = [100, 40, 60, 20]
    tensors = {"pixels": tensor("pixels", 4), **{f"t{i}": tensor(f"t{i}", size) for i, size in enumerate(sizes)}}
    names = list(tensors)
    operations = tuple(Sum((a,), b, (1,), NOTHING) for a, b in zip([*names], [*names[1:], "out"]))
    tensors["out"] = tensor("out", 4)
    assert plan(Program("chain", tensors, operations, "out")).bytes == 100 + 40


def test_memory_is_reused_in_a_network() -> None:
    program = lower(quantized(), prepare)
    total = sum(t.bytes for name, t in program.tensors.items() if name not in ("pixels", "logits"))
    assert busiest(program) <= plan(program).bytes < 0.6 * total
