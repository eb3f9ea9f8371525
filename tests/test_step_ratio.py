from __future__ import annotations

import functools

import nnabla as nn
import numpy as np
import pytest

from benchmarks import step_ratio
from nnmpq.graph.schemes import Parametric, SiteSettings


def test_every_parametrization_is_measured_alone_and_with_activations() -> None:
    chosen = step_ratio.schemes(step_ratio.PARAMETRIZATIONS)
    assert chosen.pop(step_ratio.FLOAT) is None
    assert len(chosen) == 12
    for name, scheme in chosen.items():
        assert scheme is not None and scheme.weight_settings is not None
        assert (scheme.activation_settings is not None) == name.endswith("W+A")


def test_a_step_moves_weights_and_quantizers() -> None:
    settings = SiteSettings("uniform_delta_xmax")
    step = step_ratio.training_step(Parametric(weight=settings, activation=settings), batch=2, depth=20)
    before = {name: np.array(variable.d) for name, variable in nn.get_parameters().items()}
    step()
    moved = {name for name, variable in nn.get_parameters().items() if not np.array_equal(variable.d, before[name])}
    assert "conv1/conv/W" in moved or "conv1/W" in moved
    assert any(name.endswith("W_quantizer/step") for name in moved)
    assert any(name.endswith("relu_quantizer/step") for name in moved)


def test_ratios_are_taken_round_by_round() -> None:
    seconds = {step_ratio.FLOAT: [1.0, 4.0], "slow": [1.5, 4.0]}
    assert step_ratio.ratios(seconds) == {"slow": [1.5, 1.0]}


def test_graphs_take_turns_and_the_first_of_a_round_changes() -> None:
    calls: list[str] = []
    steps = {name: functools.partial(calls.append, name) for name in "abc"}
    seconds = step_ratio.measure(steps, rounds=2, steps_a_round=2)
    assert "".join(calls) == "abc" + "aabbcc" + "bbccaa"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize(("slow", "status"), [(1.2, 0), (1.3, 1)])
def test_check_fails_above_the_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], slow: float, status: int
) -> None:
    monkeypatch.setattr(step_ratio, "training_step", lambda *arguments: lambda: None)
    monkeypatch.setattr(
        step_ratio,
        "measure",
        lambda steps, *rest: {name: [1.0 if name == step_ratio.FLOAT else slow] * 3 for name in steps},
    )
    assert step_ratio.main(["--check", "--only", "uniform_b_xmax"]) == status
    assert step_ratio.main(["--only", "uniform_b_xmax"]) == 0
    assert f"{slow:.3f}" in capsys.readouterr().out
