from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("line_protocol", "peer_process", "round_robin", "step_contenders", "step_time")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings_are_true(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert outcome.attempted > 0 and outcome.failed == 0
