"""How much longer a training step takes with quantizers than in float, for each parametrization.

    python benchmarks/step_ratio.py [--check]

A step is forward, backward and update of a residual network on random images of CIFAR's shape. All graphs are
built first and take turns in every round, so that what else the machine does falls on all of them alike; a graph's
time is divided by the float graph's in the same round. Ratios compare between machines, milliseconds do not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np

from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.models import build

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
    quantized = None if scheme is None else quantize(y, scheme)
    loss = F.mean(F.softmax_cross_entropy(y if quantized is None else quantized.output, label))
    weights, quantizers = solvers(quantized)

    def step() -> None:
        loss.forward(clear_no_need_grad=True)
        weights.zero_grad()
        if quantizers is not None:
            quantizers.zero_grad()
        loss.backward(clear_buffer=True)
        weights.weight_decay(2e-4)
        weights.update()
        if quantizers is not None and quantized is not None:
            quantizers.update()
            constrain(quantized)
        loss.d  # noqa: B018  the step is over when its loss can be read

    return step


def solvers(quantized: QuantizedNetwork | None) -> tuple[S.Solver, S.Solver | None]:
    """Return the solver of the weights and, with learned quantizers, that of their parameters."""
    own = {} if quantized is None else quantized.parameters()
    learned = {name: variable for name, variable in own.items() if variable.need_grad}
    weights = S.Momentum(0.01)
    weights.set_parameters({name: v for name, v in nn.get_parameters().items() if name not in own})
    if not learned:
        return weights, None
    quantizers = S.Momentum(0.001)
    quantizers.set_parameters(learned)
    return weights, quantizers


def constrain(quantized: QuantizedNetwork) -> None:
    """Bring every quantizer's parameters back into their limits, as training does after an update."""
    for site in quantized.sites.values():
        if site.quantizer is not None:
            for name, value in site.quantizer.constrain(site.values()).items():
                site.parameters[name].d = value


def measure(steps: dict[str, Step], rounds: int, steps_a_round: int) -> dict[str, list[float]]:
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
