"""Threads: what may be asked for, and results that are the same bits for the same count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from nnmpq.threads import available_threads, set_threads, threads

ROOT = Path(__file__).parents[1]
# Three updates of a quantized network, twice over; prints a digest of all parameters after each.
STEPS = """
import hashlib, sys
import nnabla as nn, nnabla.functions as F, nnabla.solvers as S, numpy as np
from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.models.resnet import resnet
from nnmpq.threads import set_threads, threads
assert set_threads(int(sys.argv[1])) == int(sys.argv[1]) == threads()
for _ in range(2):
    nn.clear_parameters()
    x, t = nn.Variable((16, 3, 20, 20)), nn.Variable((16, 1))
    settings = SiteSettings("uniform_delta_xmax")
    y = quantize(resnet(x, 10, blocks=1, rng=np.random.RandomState(0)), Parametric(settings, settings)).output
    (loss,) = accelerate([F.mean(F.softmax_cross_entropy(y, t))]).outputs
    solver = S.Momentum(0.1)
    solver.set_parameters(nn.get_parameters())
    for seed in range(3):
        x.d, t.d = np.random.RandomState(seed).randn(*x.shape), np.arange(16).reshape(16, 1) % 10
        solver.zero_grad()
        loss.forward(clear_no_need_grad=True)
        loss.backward(clear_buffer=True)
        solver.update()
    digest = hashlib.sha256()
    for name, v in sorted(nn.get_parameters(grad_only=False).items()):
        assert np.all(np.isfinite(v.d)), name
        digest.update(v.d.tobytes())
    print(digest.hexdigest())
"""


def digests(count: int) -> list[str]:
    # Threads that wait must not take the cores that others work on.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        environment[name] = str(count)
    found = subprocess.run(
        [sys.executable, "-c", STEPS, str(count)], capture_output=True, text=True, timeout=100, env=environment
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()[-2:]


@pytest.mark.parametrize("count", [1, 2])
def test_results_are_the_same_bits_for_the_same_number_of_threads(count):
    if len(os.sched_getaffinity(0)) < count:
        pytest.skip(f"this process has fewer than {count} cores")
    first, second = digests(count), digests(count)
    assert len(first) == 2 and len({*first, *second}) == 1


def test_counts():
    assert set_threads(1) == threads() == 1
    assert set_threads(10**6) == threads() == available_threads()
    assert set_threads() == available_threads() <= numba.config.NUMBA_NUM_THREADS
    with pytest.raises(ValueError, match="0 threads: at least 1"):
        set_threads(0)
