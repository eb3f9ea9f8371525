from __future__ import annotations

import importlib.util
import io
import json
import sys

import nnabla as nn
import numpy as np
import pytest

from benchmarks import nnabla_worker
from benchmarks.line_protocol import Unavailable
from benchmarks.nnabla_worker import MIXTURE, NETWORKS, SCHEMES, training_step
from nnmpq.onednn.library import missing

KINDS = [
    "float",
    "quantized",
    pytest.param(
        "mixture", marks=pytest.mark.skipif(importlib.util.find_spec(MIXTURE) is None, reason=f"there is no {MIXTURE}")
    ),
]


def losses(kind: str, layout: str, steps: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses of a fresh ResNet-20, and the parameters that moved."""
    nn.clear_parameters()
    step = training_step("resnet20", kind, layout, batch=4, size=8)
    before = {name: np.array(variable.d) for name, variable in nn.get_parameters().items()}
    found = [step() for _ in range(steps)]
    after = {name: np.array(variable.d) for name, variable in nn.get_parameters().items()}
    return found, {name: value for name, value in after.items() if not np.array_equal(value, before[name])}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_trains_everything(kind: str) -> None:
    found, moved = losses(kind, "plain", 12)
    assert np.all(np.isfinite(found)) and found[-1] < 0.8 * found[0]
    assert {"conv1/conv/W", "fc/affine/W", "fc/affine/b"} <= moved.keys()
    own = {name.rsplit("/", 1)[-1] for name in moved if "_quantizer/" in name}
    assert own == {"float": set(), "quantized": {"step", "xmax"}, "mixture": {"alpha"}}[kind]


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("kind", KINDS)
def test_the_accelerated_step_is_the_plain_one(kind: str) -> None:
    plain, moved = losses(kind, "plain", 1)
    fast, moved_fast = losses(kind, "accelerated", 1)
    # Where the order of a sum decides what a number rounds to, maps of few pixels make much of it.
    np.testing.assert_allclose(fast, plain, rtol=1e-5 if kind == "float" else 2e-2)
    assert moved.keys() == moved_fast.keys()


@pytest.mark.skipif(importlib.util.find_spec(MIXTURE) is None, reason=f"there is no {MIXTURE}")
def test_a_mixture_leaves_the_published_sites_float() -> None:
    losses("mixture", "plain", 0)
    mixed = {name.split("_quantizer")[0] for name in nn.get_parameters() if name.endswith("_quantizer/alpha")}
    assert sum(name.endswith("/W") for name in mixed) == 18
    assert sum(name.endswith("/relu") for name in mixed) == 18
    assert not mixed & {"conv1/conv/W", "fc/affine/W", "res3/layer3/basicblock2/conv/relu"}


def test_a_mixture_that_is_not_built_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnabla_worker, "MIXTURE", "nnmpq.graph.no_such_module")
    with pytest.raises(Unavailable, match=r"not built: there is no nnmpq\.graph\.no_such_module"):
        SCHEMES["mixture"](())


def test_mobilenet_trains() -> None:
    step = training_step("mobilenet_v2", "float", "plain", batch=2, size=32)
    assert np.isfinite([step(), step()]).all()
    assert NETWORKS["mobilenet_v2"].classes == 1000


def test_it_serves_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = io.StringIO()
    monkeypatch.setattr(nnabla_worker, "answers_only", lambda: answers)
    monkeypatch.setattr(sys, "stdin", io.StringIO("step 2\npeak\nquit\n"))
    words = "--network resnet20 --kind float --layout plain --batch 2 --size 8 --threads 1"
    assert nnabla_worker.main(words.split()) == 0
    ready, steps, peak = (json.loads(line) for line in answers.getvalue().splitlines())
    assert ready["ready"] and len(steps["seconds"]) == 2 and peak["peak_mib"] > 0
