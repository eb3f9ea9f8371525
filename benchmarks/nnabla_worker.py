"""nnabla's side of the benchmark: ``python -m benchmarks.nnabla_worker --network resnet20 --kind float ...``.

In plain nnabla, quantizers and mixtures are compositions of nnabla's own functions; accelerated they are fused.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from benchmarks.line_protocol import Unavailable, answers_only, serve
from nnmpq.config.experiment import Experiment
from nnmpq.graph.accelerate import accelerate, reserve
from nnmpq.graph.quantize import quantize
from nnmpq.graph.schemes import Float, Parametric, SiteSettings
from nnmpq.models import build
from nnmpq.threads import set_threads
from nnmpq.training.solvers import build_groups


@attrs.frozen
class Model:
    """A network as nnmpq knows it.

    Args:
        name: a key of `nnmpq.models.MODELS`.
        classes: number of classes.
        unmixed: sites that stay float in a mixture, as published: the first weight, the last layer and what it reads.
    """

    name: str
    classes: int
    unmixed: tuple[str, ...]


NETWORKS = {
    "resnet20": Model("resnet", 10, ("conv1/conv/W", "res3/layer3/basicblock2/conv/relu", "fc/*")),
    "mobilenet_v2": Model("mobilenet_v2", 1000, ("conv1/conv/W", "head/conv/relu", "fc/*")),
}
LAYOUTS = ("plain", "accelerated")
MIXTURE = "nnmpq.graph.mixture"
LEARNING_RATE = 0.01


def float_scheme(unmixed: tuple[str, ...]) -> Any:
    """Return the scheme that quantizes nothing."""
    return Float()


def quantized_scheme(unmixed: tuple[str, ...]) -> Any:
    """Return the scheme that learns step and range of each weight and activation, from 4 bits on."""
    settings = SiteSettings("uniform_delta_xmax", bits=4)
    return Parametric(weight=settings, activation=settings)


def mixture_scheme(unmixed: tuple[str, ...]) -> Any:
    """Return EdMIPS' scheme: 1 to 4 bits for weights, 2 to 4 for activations, but for the sites that stay float."""
    try:
        module = importlib.import_module(MIXTURE)
    except ModuleNotFoundError as error:
        if error.name != MIXTURE:
            raise
        raise Unavailable(f"not built: there is no {MIXTURE}") from error
    return module.Mixture(weight_bits=(1, 2, 3, 4), activation_bits=(2, 3, 4), keep=unmixed)


SCHEMES: dict[str, Callable[[tuple[str, ...]], Any]] = {
    "float": float_scheme,
    "quantized": quantized_scheme,
    "mixture": mixture_scheme,
}


def training_step(network: str, kind: str, layout: str, batch: int, size: int) -> Callable[[], float]:
    """Build a network in the current parameter scope; return its training step on one random batch.

    Args:
        network: a key of `NETWORKS`.
        kind: a key of `SCHEMES`.
        layout: one of `LAYOUTS`.
        batch: images a step.
        size: height and width of the images.

    Returns:
        A function that trains by one step and returns the loss before it.
    """
    model = NETWORKS[network]
    random = np.random.RandomState(313)
    x, label = nn.Variable((batch, 3, size, size)), nn.Variable((batch, 1))
    x.d, label.d = random.randn(*x.shape), random.randint(0, model.classes, label.shape)
    logits = build(model.name, x, model.classes, seed=313)
    quantized = quantize(logits, SCHEMES[kind](model.unmixed), fused=layout != "plain")
    loss = F.mean(F.softmax_cross_entropy(quantized.output, label))
    loss.persistent = True
    if layout == "accelerated":
        loss = accelerate([loss]).outputs[0]
        reserve([loss])
    groups = build_groups(
        Experiment(name="step_time", initial_learning_rate=LEARNING_RATE), quantized.sites, learn_bits=True
    )

    def step() -> float:
        groups.zero_grad()
        loss.forward(clear_no_need_grad=True)
        loss.backward(clear_buffer=True)
        groups.update()
        return float(loss.d)

    return step


def prepared(options: argparse.Namespace) -> Callable[[], float]:
    """Build the network; return its training step after the first, which compiles and allocates."""
    set_threads(options.threads)
    step = training_step(options.network, options.kind, options.layout, options.batch, options.size)
    step()
    return step


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to quit."""
    answers = answers_only()
    parser = argparse.ArgumentParser(description="Train a network in nnabla, a step at a time, as told by lines.")
    parser.add_argument("--network", required=True, choices=NETWORKS)
    parser.add_argument("--kind", required=True, choices=SCHEMES)
    parser.add_argument("--layout", required=True, choices=LAYOUTS)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(arguments)
    return serve(lambda: prepared(options), sys.stdin, answers)


if __name__ == "__main__":
    sys.exit(main())
