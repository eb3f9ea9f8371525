"""Policies for another network by the names of the layers: found on a small data set, used on a large one."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.config.errors import ConfigError
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment
from nnmpq.config.sections import read_sections
from nnmpq.cost import FLOAT_BITS, cost
from nnmpq.files import nearest
from nnmpq.graph.network import ACTIVATION, Layer, Network, Site
from nnmpq.policy import Policy, PolicyError, SitePolicy
from nnmpq.search.task import narrowest, network_of, policy_cost, policy_sites, quantizer_name

# Names of so many are told.
SHOWN = 8
STEMS = "stem"


def transfer(policy: Policy, network: Network, source: Network | None = None, *, name: str = "") -> Policy:
    """Return a policy's bits for another network whose layers have the same names.

    A weight or bias takes the bits of the layer of its name. An activation takes those of what the layers that read it
    read in the policy's own network, wherever that network computes it: a ReLU may stand before a sum there and behind
    it here. One that several layers read is stored once, at the widest that one of them asks for. An activation that no
    layer reads takes the bits of the one of its name, if there is one.

    Args:
        policy: bits of `source`.
        network: the network that it is for.
        source: the policy's own network; by default the one of its name in any of its forms.
        name: of `network`, for the policy.

    Returns:
        The policy, with its cost on `network`. It has no budget: the limits were the other network's.

    Raises:
        PolicyError: layers of `network` are not in `source`, or too many are there; they are named.

    Example:
        >>> cifar = network_of(Experiment("X", arch="edmips_resnet18", stem="cifar"), (3, 32, 32), 10)
        >>> sites = {site.name: 4 for site in cifar.sites() if site.kind in ("convolution", "affine", "relu")}
        >>> found = Policy("edmips_resnet18", "gmpq", sites=policy_sites(cifar, sites))
        >>> imagenet = network_of(Experiment("X", arch="resnet18"), (3, 224, 224), 1000)
        >>> moved = transfer(found, imagenet, name="resnet18")
        >>> moved.check(imagenet); moved.sites["res2/block1/shortcut/conv/W"].bits
        4
    """
    source = network_called(policy) if source is None else source
    policy.check(source)
    check_layers(network, source, policy.network)
    bits: dict[str, int] = {}
    quantizers: dict[str, str] = {}
    own = {layer.name: layer for layer in source.layers}
    for layer in network.layers:
        for here, there in ((layer.weight, own[layer.name].weight), (layer.bias, own[layer.name].bias)):
            entry = None if here is None or there is None else policy.sites.get(there.name)
            if here is not None and entry is not None:
                _take(here, [entry], bits, quantizers)
    for site in network.activations:
        entries = [policy.sites[read] for read in _read(site, network, own) if read in policy.sites]
        if entries:
            _take(site, entries, bits, quantizers)
    sites = policy_sites(network, bits, quantizers)
    return attrs.evolve(policy, network=name, budget={}, cost=policy_cost(network, sites), sites=sites)


def check_layers(network: Network, source: Network, name: str = "") -> None:
    """Hold the layers of two networks against each other.

    Args:
        network: the one that a policy is for.
        source: the one that it is of.
        name: of `source`, for the message.

    Raises:
        PolicyError: names what misses and what is too many, each with the nearest.
    """
    here, there = [[layer.name for layer in each.layers] for each in (network, source)]
    kinds = {layer.name: layer.kind for layer in source.layers}
    missing = [layer for layer in here if layer not in kinds]
    surplus = [layer for layer in there if layer not in set(here)]
    problems = [f"it has no layer {layer}{_near(layer, surplus or there)}" for layer in missing]
    problems += [f"its layer {layer} is too many{_near(layer, missing or here)}" for layer in surplus]
    problems += [
        f"{layer.name} is of the kind {kinds[layer.name]} there, {layer.kind} here"
        for layer in network.layers
        if layer.name in kinds and layer.kind != kinds[layer.name]
    ]
    if problems:
        more = "" if len(problems) <= SHOWN else f"; and {len(problems) - SHOWN} more"
        raise PolicyError(
            f"the policy of {name or 'another network'} does not fit: {'; '.join(problems[:SHOWN])}{more}"
        )


def network_called(policy: Policy) -> Network:
    """Return the network that a policy names, in the form whose sites it has.

    Raises:
        PolicyError: there is no such network, or it is no form of it.
    """
    if policy.network not in ARCHITECTURES:
        near = nearest(policy.network, ARCHITECTURES)
        raise PolicyError(
            f"the policy's network is {policy.network!r}: none here has that name; the nearest is {near!r}"
        )
    refused: PolicyError | None = None
    for stem in ARCHITECTURES[policy.network].get(STEMS, ("imagenet",)):
        keys = {STEMS: stem} if STEMS in ARCHITECTURES[policy.network] else {}
        # Names depend on neither size nor classes; images of so many pixels survive every network's halvings.
        network = network_of(Experiment("transfer", arch=policy.network, **keys), (3, 224, 224), 1000)
        try:
            policy.check(network)
        except PolicyError as error:
            refused = refused or error
        else:
            return network
    assert refused is not None
    raise refused


def _near(name: str, choices: Iterable[str]) -> str:
    found = nearest(name, choices)
    return f" (the nearest is {found})" if found else ""


def _read(site: Site, network: Network, own: Mapping[str, Layer]) -> list[str]:
    """Names of the source's activations that stand for one here."""
    if not site.readers:
        return [site.name] if not any(site.name in layer.inputs for layer in own.values()) else []
    found: list[str] = []
    for reader in site.readers:
        here, there = network.layer(reader).inputs, own[reader].inputs
        # The parts of a concatenation stand in the same order; else all of them are read through this one.
        found += [there[here.index(site.name)]] if len(here) == len(there) else there
    return list(dict.fromkeys(found))


def _take(site: Site, entries: list[SitePolicy], bits: dict[str, int], quantizers: dict[str, str]) -> None:
    widest = max(entries, key=lambda entry: entry.bits)
    width = widest.bits if widest.bits >= FLOAT_BITS else max(widest.bits, narrowest(site))
    if site.role == ACTIVATION and width >= FLOAT_BITS:
        return
    bits[site.name] = width
    # A quantizer from zero cannot serve what has a sign.
    fits = site.role != ACTIVATION or widest.signed or not site.signed
    quantizers[site.name] = widest.quantizer if fits else quantizer_name(site, width)


def transfer_command(parser: argparse.ArgumentParser) -> None:
    """Give a policy's bits to the layers of the same names in another network, such as ImageNet's."""
    add = parser.add_argument
    add("policy", type=Path, metavar="POLICY", help="policy.yaml, or the run folder that has it")
    add("--arch", required=True, metavar="NAME", help="the network that it is for, such as resnet18")
    add("--stem", metavar="NAME", help="form of its first layers, as the key stem of a .cfg (default: imagenet)")
    add("--shape", type=image_shape, default=(3, 224, 224), metavar="C,H,W", help="its images (default: 3,224,224)")
    add("--classes", type=int, default=1000, metavar="N", help="number of classes (default: 1000)")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="policy to write")
    parser.set_defaults(run=run_transfer)


def run_transfer(arguments: argparse.Namespace) -> int:
    """Transfer a policy; the exit status is 0."""
    if arguments.arch not in ARCHITECTURES:
        near = nearest(arguments.arch, ARCHITECTURES)
        raise ConfigError(f"--arch {arguments.arch}: no such network; the nearest is {near}")
    path = arguments.policy / "policy.yaml" if arguments.policy.is_dir() else arguments.policy
    policy = Policy.load(path)
    keys = {} if arguments.stem is None else {STEMS: arguments.stem}
    network = network_of(Experiment("transfer", arch=arguments.arch, **keys), arguments.shape, arguments.classes)
    try:
        found = transfer(policy, network, _own_network(path), name=arguments.arch)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from error
    found.save(arguments.output)
    used = cost(network, found.bits())
    print(f"{path}: {policy.network or 'policy'} to {arguments.arch}: {len(found.sites)} tensors, {arguments.output}")
    print(f"weights {used.weights_kib:.1f} KiB, mean bits {used.mean_bits:.3f} of all layers")
    return 0


def image_shape(text: str) -> tuple[int, ...]:
    """Read C,H,W, three numbers from 1 on."""
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise ValueError(text)
    return numbers


def _own_network(path: Path) -> Network | None:
    """The network of the experiment whose config.cfg lies beside a policy; None without one."""
    cfg = path.parent / "config.cfg"
    if not cfg.is_file():
        return None
    section = read_sections(cfg).names()[-1]
    # Names depend on neither size nor classes.
    return network_of(read_experiment(cfg, section), (3, 224, 224), 1000)
