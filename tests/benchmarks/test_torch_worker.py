"""The process on PyTorch's side, with and without PyTorch."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from benchmarks.line_protocol import Unavailable
from benchmarks.peer_process import Peer, PeerError
from benchmarks.step_contenders import KINDS, TORCH, TORCH_LAYOUTS, Contender, Race, contenders
from benchmarks.step_race import Effort, run
from benchmarks.torch_peer import worker

VARIABLE = "NNMPQ_TORCH_PYTHON"
needs_torch = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"{VARIABLE} names no interpreter that has PyTorch and numpy"
)
without_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="this interpreter has PyTorch: nothing is missing"
)


def peer(python: str, race: Race, layout: str = "nchw") -> Peer:
    return Peer(Contender(TORCH, layout, 1).command(race, python), 1)


def test_both_sides_know_the_same_layouts() -> None:
    assert worker.LAYOUTS == TORCH_LAYOUTS


@without_torch
def test_an_interpreter_without_pytorch_says_so() -> None:
    with peer(sys.executable, Race("resnet20", "float", 2, 8)) as process:
        with pytest.raises(Unavailable, match=f"{sys.executable} has no PyTorch: No module named 'torch'"):
            process.wait_until_ready(60)


@without_torch
def test_a_race_goes_on_without_pytorch() -> None:
    result = run(
        Race("resnet20", "float", 2, 8), contenders([1], ["nchw"]), Effort(2, 1, 1), sys.executable, lambda text: None
    )
    assert [c.name for c in result.absent] == ["PyTorch nchw, 1 thread"]
    counts = {c.layout: len(times) for c, times in result.seconds.items()}
    assert counts.pop("plain") == 1
    assert counts in ({"accelerated": 2}, {})  # where oneDNN is missing the accelerated step is absent too


def test_an_unknown_kind_is_refused_before_anything_is_built() -> None:
    with peer(sys.executable, Race("resnet20", "binary", 2, 8)) as process:
        with pytest.raises(PeerError, match="invalid choice: 'binary'"):
            process.wait_until_ready(60)


@needs_torch
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_it_trains_as_told(kind: str, layout: str) -> None:
    with peer(os.environ[VARIABLE], Race("resnet20", kind, 4, 8), layout) as process:
        process.wait_until_ready(120)
        assert len(process.steps(2, 60)) == 2
        first = process.ask("step 1", 60)["loss"]
        assert process.ask("step 30", 60)["loss"] < 0.9 * first
        assert process.peak_mib() > process.ready["imported_mib"] > 50


@needs_torch
def test_an_unknown_network_is_an_error_with_its_name() -> None:
    with peer(os.environ[VARIABLE], Race("resnet2", "float", 2, 8)) as process:
        with pytest.raises(PeerError, match="KeyError: 'resnet2'"):
            process.wait_until_ready(120)
