from __future__ import annotations

import attrs
import numpy as np
import pytest

from nnmpq.export.verification import Verification, allowed_share, differing

GOOD = Verification("c99", 10, 1000, 0, 0.0, 0.0, 1.0, 10000, 10000.0, {"network.c": 5000}, ("flash: 7",))


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"differing": 1}, False),
        ({"differing": 1, "allowed": 1e-3}, True),
        ({"differing": 2, "allowed": 1e-3}, False),
        ({"weight_bytes": 10264}, True),
        ({"weight_bytes": 10265}, False),
        ({"weight_bytes": 9736}, True),
        ({"weight_bytes": 9735}, False),
    ],
)
def test_what_passes(changes: dict, passed: bool) -> None:
    found = attrs.evolve(GOOD, **changes)
    assert found.passed is passed
    assert found.report().endswith("passed" if passed else "FAILED")


def test_the_report_says_everything() -> None:
    text = attrs.evolve(GOOD, differing=3, logits_difference=0.25, same_class=0.9, weight_bytes=10100).report()
    for words in ("1,000 elements compared, 3 differ", "0.25", "90.00%", "10,100 bytes", "+1.00%", "5,000", "flash: 7"):
        assert words in text


def test_only_powers_of_two_must_be_equal() -> None:
    assert allowed_share([1.0, 0.5, 2.0**-9]) == 0
    assert allowed_share([0.75]) == allowed_share([1.0, 1 / 3]) == 1e-3


def test_counting() -> None:
    wanted = {"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)}
    found = {"a": np.array([[0, 1, 0], [0, 0, 2]], np.float32), "b": np.ones((4, 1, 1), np.float32)}
    assert differing(found, wanted) == (10, 2)
