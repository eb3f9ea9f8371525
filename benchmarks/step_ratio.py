"""How much longer a training step takes with quantizers than in float, for each parametrization.

    python benchmarks/step_ratio.py [--check]

A step is forward, backward and update, as in training, of a residual network on random images. All graphs are
built first and take turns in every round, so that what else the machine does falls on all alike; a time is
divided by the float graph's in the same round. Ratios compare between machines, milliseconds do not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.config.experiment import Experiment
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Parametric, Quantized, SiteSettings
from nnmpq.models import build
from nnmpq.training.solvers import build_groups

PARAMETRIZATIONS = (
    "uniform_b_xmax",
    "uniform_delta_xmax",
    "uniform_delta_b",
    "pow2_b_xmax",
    "pow2_b_xmin",
    "pow2_xmin_xmax",
)
FLOAT = "float"
LIMIT = 1.25
Step = Callable[[], None]


def schemes(names: Sequence[str]) -> dict[str, Parametric | None]:
    """Return what is measured: float (None), each parametrization on weights alone and on both."""
    chosen: dict[str, Parametric | None] = {FLOAT: None}
    for name in names:
        settings = SiteSettings(name)
        chosen[f"{name} W"] = Parametric(weight=settings)
        chosen[f"{name} W+A"] = Parametric(weight=settings, activation=settings)
    return chosen


def training_step(scheme: Parametric | None, batch: int, depth: int) -> Step:
    """Build a network in the current scope; return a function that trains it by one step on random data."""
    random = np.random.RandomState(313)
    x, label = nn.Variable((batch, 3, 32, 32)), nn.Variable((batch, 1))
    x.d, label.d = random.randn(*x.shape), random.randint(0, 10, label.shape)
    y = build("resnet", x, 10, num_layers=depth, seed=313)
    sites: dict[str, Quantized] = {}
    if scheme is not None:
        quantized = quantize(y, scheme)
        y, sites = quantized.output, quantized.sites
    loss = F.mean(F.softmax_cross_entropy(y, label))
    solvers = build_groups(Experiment(name="step_ratio", initial_learning_rate=0.01), sites, learn_bits=True)

    def step() -> None:
        loss.forward(clear_no_need_grad=True)
        solvers.zero_grad()
        loss.backward(clear_buffer=True)
        solvers.update()

    return step


def measure(steps: Mapping[str, Step], rounds: int, steps_a_round: int) -> dict[str, list[float]]:
    """Return seconds a step, one number a round, the graphs taking turns in an order that moves on."""
    for step in steps.values():
        step()  # compiles and allocates
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            for _ in range(steps_a_round):
                steps[name]()
            seconds[name].append((time.perf_counter() - start) / steps_a_round)
    return seconds


def ratios(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return each graph's time over the float graph's in the same round."""
    return {
        name: [own / base for own, base in zip(times, seconds[FLOAT])]
        for name, times in seconds.items()
        if name != FLOAT
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the ratios, and with --check return 1 where a median is over the limit."""
    parser = argparse.ArgumentParser(description="Step time with quantizers over step time in float.")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-layers", type=int, default=20, help="depth of the network (default: 20)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of turns (default: 9)")
    parser.add_argument("--steps", type=int, default=1, help="steps of a turn (default: 1)")
    parser.add_argument("--only", nargs="+", choices=PARAMETRIZATIONS, default=PARAMETRIZATIONS)
    parser.add_argument("--check", action="store_true", help=f"fail where a median ratio is over {LIMIT}")
    options = parser.parse_args(arguments)
    steps: dict[str, Step] = {}
    for index, (name, scheme) in enumerate(schemes(options.only).items()):
        with nn.parameter_scope(f"network{index}", scope={}):
            steps[name] = training_step(scheme, options.batch_size, options.num_layers)
    seconds = measure(steps, options.rounds, options.steps)
    milliseconds = [1e3 * second for second in seconds[FLOAT]]
    print(f"float step: {statistics.median(milliseconds):.1f} ms, batch {options.batch_size}")
    print(f"{'time over float':32}    min  median     max")
    over = []
    for name, numbers in ratios(seconds).items():
        median = statistics.median(numbers)
        over += [name] if median > LIMIT else []
        mark = f"  over {LIMIT}" if median > LIMIT else ""
        print(f"{name:32}  {min(numbers):5.3f}   {median:5.3f}   {max(numbers):5.3f}{mark}")
    return int(options.check and bool(over))


if __name__ == "__main__":
    sys.exit(main())
