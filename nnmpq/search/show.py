"""`nnmpq show`: a policy's bits, what they cost by our measures, and by the one that ProQHA publishes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nnmpq.config.errors import ConfigError
from nnmpq.graph.network import WEIGHT, Network

if TYPE_CHECKING:
    from nnmpq.policy import Policy

FLOAT_BITS = 32
CONFIG = "config.cfg"


def weight_ratio(network: Network, bits: Mapping[str, int]) -> float:
    """Return what ProQHA publishes as cost: memory of the quantized weights, as a share of their float size.

    ratio = sum b_l n_l / (32 sum n_l) over the quantized layers; float layers, biases and activations do not count.

    Args:
        network: the network.
        bits: by site name; 32 or none is float.

    Returns:
        The ratio, 0 to 1; 1 where no weight is quantized.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 64, name="fc"))
        >>> weight_ratio(network, {"fc/affine/W": 5, "fc/affine/b": 8})
        0.15625

    Source:
        The published code of "Automatic Progressive Mixed-Precision Network Quantization" (ProQHA); its README calls
        the number computation ratio, and has 0.1563 for 5 bits and 0.0938 for 3.
    """
    sizes = {site.name: site.elements for site in network.sites() if site.role == WEIGHT}
    quantized = {name: size for name, size in sizes.items() if bits.get(name, FLOAT_BITS) < FLOAT_BITS}
    if not quantized:
        return 1.0
    return sum(bits[name] * size for name, size in quantized.items()) / (FLOAT_BITS * sum(quantized.values()))


def show(parser: argparse.ArgumentParser) -> None:
    """Print a policy's bits per layer, its costs, and the computation ratio as ProQHA publishes it."""
    add = parser.add_argument
    add("policy", type=Path, metavar="POLICY", help="policy.yaml, or the run folder that has it")
    add("--cfg", type=Path, metavar="FILE", help=f".cfg with the network's keys (default: {CONFIG} beside the policy)")
    add("--experiment", metavar="NAME", help="its section (default: the only one)")
    add("--shape", type=_shape, metavar="C,H,W", help="shape of the images, with --classes: no data set is looked for")
    add("--classes", type=int, metavar="N", help="number of classes")
    add("--data-dir", metavar="DIR", help="folder of the data set")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show a policy; the exit status is 0."""
    from nnmpq.config.reader import read_experiment
    from nnmpq.config.sections import DEFAULT, read_sections
    from nnmpq.policy import Policy, PolicyError
    from nnmpq.runs import load_data
    from nnmpq.search.task import network_of

    path = arguments.policy / "policy.yaml" if arguments.policy.is_dir() else arguments.policy
    policy = Policy.load(path)
    cfg = arguments.cfg or path.parent / CONFIG
    if not cfg.is_file():
        raise ConfigError(f"{cfg}: not there; name the .cfg file of the network: --cfg FILE --experiment NAME")
    names = [name for name in read_sections(cfg).names() if name != DEFAULT] or [DEFAULT]
    if arguments.experiment is None and len(names) > 1:
        raise ConfigError(f"{cfg}: {len(names)} experiments; name one of them: --experiment {names[0]}")
    overrides = [f"data_dir={arguments.data_dir}"] if arguments.data_dir else []
    experiment = read_experiment(cfg, arguments.experiment or names[0], overrides)
    if policy.network and policy.network != experiment.arch:
        raise ConfigError(f"{cfg}: [{experiment.name}] arch = {experiment.arch}: {path} is of {policy.network}")
    if (arguments.shape is None) != (arguments.classes is None):
        raise ConfigError("--shape and --classes stand for a data set together")
    if arguments.shape is not None:
        shape, classes = arguments.shape, arguments.classes
    else:
        data = load_data(experiment)
        shape, classes = data.shape, data.classes
    network = network_of(experiment, shape, classes)
    try:
        policy.check(network)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from error
    print(text(network, policy))
    return 0


def text(network: Network, policy: Policy) -> str:
    """Return a policy's bits per layer, its costs against its budget, and what ProQHA would publish of it.

    Args:
        network: the network that it is of.
        policy: bits by site.
    """
    from nnmpq.budget import Budget
    from nnmpq.cost import cost
    from nnmpq.report.table import bits_table

    bits = policy.bits()
    limits = {field.name for field in attrs.fields(Budget)}
    budget = Budget(**{name: value for name, value in policy.budget.items() if name in limits})
    ratio = weight_ratio(network, bits)
    origin = f"{policy.method or 'policy'} of {policy.network or 'a network'}, seed {policy.seed}"
    published = (
        f"computation ratio as ProQHA publishes it: {ratio:.4f}, {FLOAT_BITS * ratio:.2f} bits a quantized weight"
    )
    return "\n".join([origin, "", bits_table(network, bits, cost(network, bits), budget), "", published])


def _shape(word: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in word.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise ValueError(word)
    return numbers
