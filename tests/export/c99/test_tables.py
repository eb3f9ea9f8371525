from __future__ import annotations

import re

import numpy as np

from nnmpq.export.c99.example import channels_last, vectors
from nnmpq.export.c99.tables import WIDTH, comment, progression, requantiser, table
from nnmpq.export.integer import interpret
from nnmpq.export.integer.program import Requantiser
from nnmpq.export.integer.saved import as_saved
from tests.export.networks import small, trained


def numbers_of(text: str, name: str) -> list[int]:
    """The numbers of a table, read back from the C text."""
    body = re.search(rf"\b{name}\[(\d+)\] = {{(.*?)}}", text, re.S)
    assert body is not None
    found = [int(n) for n in re.findall(r"-?\d+", re.sub(r"INT64_C", "", body.group(2)))]
    assert len(found) == int(body.group(1))
    return found


def test_tables_hold_their_numbers_in_short_lines() -> None:
    numbers = np.random.RandomState(0).randint(-(2**62), 2**62, 50)
    text = table("int64_t", "t", numbers)
    assert numbers_of(text, "t") == numbers.tolist()
    assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_exceptions_are_found_by_channel() -> None:
    made = Requantiser(
        np.arange(1, 4, dtype=np.int32),
        np.arange(3, dtype=np.int64),
        np.zeros(3, np.uint8),
        16,
        -8,
        exception_channel=np.array([0, 2, 2], np.int32),
        exception_sum=np.array([7, -9, 5], np.int32),
        exception_correction=np.array([1, -1, 1], np.int8),
    )
    text, initializer = requantiser(made, "r")
    assert numbers_of(text, "r_first") == [0, 1, 1, 3]
    assert numbers_of(text, "r_exception") == [7, -9, 5] and numbers_of(text, "r_correction") == [1, -1, 1]
    assert initializer.endswith("-8, 15u}")
    assert made.bytes == 3 * 13 + 3 * 5 + 2 * 4


def test_progressions() -> None:
    assert progression(np.array([-3, -2, -1])) == (-3, 1)
    assert progression(np.array([5])) == (5, 1)
    assert progression(np.array([-4, -2, -1, 1, 2, 4])) is None


def test_a_name_cannot_end_a_comment() -> None:
    assert "*/" not in comment("a */ int x; /*\n b")


def test_vectors_are_the_references() -> None:
    network = trained(build=small)
    program = network.program()
    text = vectors(program, network.images[:2])
    logits = interpret.run(as_saved(program), network.images[:2])[program.output]
    assert numbers_of(text, "vector_logits") == logits.ravel().tolist()
    pixels = np.array(numbers_of(text, "vector_pixels")).reshape(2, 12, 12, 3)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), network.images[:2])
    np.testing.assert_array_equal(channels_last(network.images[:2]), pixels)
