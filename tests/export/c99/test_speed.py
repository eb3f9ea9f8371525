from __future__ import annotations

import re

import numpy as np
import pytest

from nnmpq.export.c99 import host
from nnmpq.export.c99.source import source
from nnmpq.export.c99.speed import eight_bits, milliseconds, sheet
from nnmpq.export.integer.program import Convolve, ExportError
from nnmpq.export.integer.saved import run
from tests.export.networks import small, trained

needs_compiler = pytest.mark.skipif(host.compiler() is None, reason="no C compiler (cc, gcc or clang) is installed")


def test_the_wider_program_computes_the_same_from_more_bytes() -> None:
    network = trained(3, build=small, weight_bits=3)
    program = network.program()
    wider = eight_bits(program)
    layers = [op for op in wider.operations if isinstance(op, Convolve)]
    assert source(wider).weight_bytes == sum(op.weights.size for op in layers)
    narrow, wide = run(program, network.images), run(wider, network.images)
    for name, numbers in narrow.items():
        np.testing.assert_array_equal(wide[name], numbers)


@needs_compiler
def test_every_operation_has_a_time() -> None:
    program = trained(1, build=small).program()
    found = milliseconds({"a": program, "b": eight_bits(program)})
    assert set(found) == {"a", "b"}
    for times in found.values():
        assert len(times) == len(program.operations) and min(times) >= 0 and sum(times) > 0
    # The two 3x3 convolutions have 5,832 and 11,664 products, the affine 24: they cannot take less than it.
    convolutions = [
        t for op, t in zip(program.operations, found["a"]) if getattr(op, "layer", "") in ("a/conv", "b/conv")
    ]
    affine = next(t for op, t in zip(program.operations, found["a"]) if getattr(op, "layer", "") == "c/affine")
    assert min(convolutions) > affine


@needs_compiler
def test_the_sheet_has_a_line_an_operation_and_ratios_of_its_numbers() -> None:
    program = trained(1, build=small).program()
    text = sheet(program)
    rows = [line.rsplit(maxsplit=3) for line in text.splitlines() if re.search(r"\d\.\d{4} +\d", line)]
    assert len(rows) == len(program.operations) + 1 and rows[-1][0] == "total"
    assert rows[-1][3] == pytest.approx(rows[-1][3]) and "beside the same weights in 8 bits" in text
    this, eight, ratio = map(float, rows[-1][1:])
    assert ratio == pytest.approx(this / eight, abs=0.02)
    assert "a/conv" in text and "input (pixels)" in text


def test_without_a_compiler_the_sheet_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    program = trained(1, build=small).program()
    assert "times: not measured, no C compiler" in sheet(program)
    with pytest.raises(ExportError, match="no C compiler"):
        milliseconds({"a": program})
