"""Memory: graphs that are dropped give theirs back, and a training step needs no more than plain nnabla's."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.graph.accelerate import accelerate
from nnmpq.graph.accelerate.base import CpuFunction
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Fixed
from nnmpq.models.resnet import resnet
from nnmpq.onednn import convolution, layout, pooling

ROOT = Path(__file__).parents[3]
CACHES = (convolution.convolution_plan, pooling.pooling_plan, layout.to_last, layout.to_first)
MEBIBYTE = 1 << 20

# Two training steps; prints by how many KiB they raise the peak of resident memory. (ru_maxrss is inherited from the
# parent process, VmHWM is the process' own.)
STEPS = """
import re, sys
import nnabla as nn, nnabla.functions as F, numpy as np
from nnmpq.graph.accelerate import accelerate, reserve
from nnmpq.models.resnet import resnet
from nnmpq.threads import set_threads
set_threads(1)
def step(batch, size, fast):
    nn.clear_parameters()
    x, t = nn.Variable((batch, 3, size, size)), nn.Variable((batch, 1))
    y = resnet(x, 10, blocks=3 if size > 8 else 1, rng=np.random.RandomState(0))
    loss = F.mean(F.softmax_cross_entropy(y, t))
    if fast:
        (loss,) = accelerate([loss]).outputs
        reserve([loss])
    x.d, t.d = np.zeros(x.shape), 0
    for _ in range(2):
        loss.forward(clear_no_need_grad=True)
        loss.backward(clear_buffer=True)
fast = sys.argv[1] == "fast"
step(2, 8, fast)  # kernels are compiled and libraries loaded before
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
before = peak()
step(int(sys.argv[2]), 32, fast)
print(peak() - before)
"""


def resident() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def build_and_drop(number: int) -> None:
    """One of two batch sizes; every fourth is quantized."""
    nn.clear_parameters()
    batch = 8 + number % 2
    x, t = nn.Variable((batch, 3, 16, 16)), nn.Variable((batch, 1))
    y = resnet(x, 4, blocks=1)
    y = quantize(y, Fixed(3, 3)).output if number % 4 == 3 else y
    (loss,) = accelerate([F.mean(F.softmax_cross_entropy(y, t))]).outputs
    x.d, t.d = np.ones(x.shape), 1
    loss.forward(clear_no_need_grad=True)
    loss.backward(clear_buffer=True)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_two_hundred_graphs_leave_nothing_behind():
    counts = []
    for count in (100, 50, 50):
        for number in range(count):
            build_and_drop(number)
        gc.collect()
        counts.append((resident(), [cache.cache_info().currsize for cache in CACHES], graph_functions()))
    (first, *_), (second, plans, functions), (third, plans_later, functions_later) = counts
    # The allocator reaches its level within the first hundred. One graph's tensors take over 2 MiB.
    assert third - second < 2 * MEBIBYTE and third - first < 6 * MEBIBYTE
    assert plans_later == plans
    # Each would keep its graph alive.
    assert functions_later == functions


def graph_functions() -> int:
    return sum(isinstance(thing, CpuFunction) for thing in gc.get_objects())


def test_no_cache_grows_without_end():
    assert all(cache.cache_info().maxsize is not None for cache in CACHES)


@pytest.fixture(scope="module")
def peaks() -> dict[str, int]:
    """KiB that a ResNet-20's training steps take at batch 128, plain and fast."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak is read from /proc")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

    def peak(kind: str) -> int:
        found = subprocess.run(
            [sys.executable, "-c", STEPS, kind, "128"],
            capture_output=True, text=True, timeout=100, env=environment, cwd=ROOT,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        return int(found.stdout.split()[-1])

    return {kind: peak(kind) for kind in ("plain", "fast")}


def test_a_training_step_keeps_no_more_than_it_must(peaks):
    # What the convolutions, normalizations and ReLUs of a ResNet-20 hand over: 188,416 numbers an image, each kept
    # before and after the normalization for the backward pass.
    kept = 128 * 2 * 188_416 * 4 / 1024
    assert peaks["plain"] > kept and peaks["fast"] > kept
    # The rest are gradients on their way; a quarter more would be a second copy of something.
    assert peaks["fast"] < 1.25 * kept


def test_the_peak_of_a_training_step_is_no_higher_than_plain_nnabla_s(peaks):
    assert peaks["fast"] <= peaks["plain"]
