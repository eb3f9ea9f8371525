"""What a search is given, and how bits become the policy that it hands back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import attrs
import nnabla as nn

from nnmpq.budget import Budget
from nnmpq.config.choices import ARCHITECTURES
from nnmpq.config.errors import ConfigError
from nnmpq.config.experiment import Experiment
from nnmpq.cost import cost
from nnmpq.data import DataSet
from nnmpq.graph.network import ACTIVATION, BIAS, WEIGHT, Network, Site
from nnmpq.graph.settings import FLOAT_BITS, Patterns
from nnmpq.graph.trace import trace
from nnmpq.models import build
from nnmpq.policy import Policy, SitePolicy
from nnmpq.training.machine import Machine

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
Row = Mapping[str, Any]


def _nowhere(row: Row) -> None:
    """Forget a row of the trail."""


def _widths(instance: Any, attribute: Any, value: tuple[int, ...]) -> None:
    if not value or list(value) != sorted(set(value)) or value[0] < 1 or value[-1] > 16:
        raise ValueError(f"{attribute.name} = {value}: ascending widths from 1 to 16 bits are needed")


def _from_experiment(key: str, otherwise: Any) -> Any:
    """What the experiment says, where it has the key."""
    return attrs.Factory(lambda self: getattr(self.experiment, key, otherwise), takes_self=True)


@attrs.frozen(eq=False)
class SearchTask:
    """What every search is given.

    Args:
        experiment: network, data, sites that are quantized and training settings.
        data: its images; the test part is not for searches.
        budget: what the policy must meet.
        folder: the run's folder.
        seed: of everything random.
        resume: go on from what a killed run left in the folder.
        report: called with each row of the trail, values by column.
        deadline: most seconds that the search may take; None for no limit.
        steps: most updates that it may make; None for the method's own number.
        machine: what it runs on.
        weight_widths: widths that weights and biases may get, ascending; the experiment's if it has them.
        activation_widths: the same of activations.
        score: name of the score of sites, a key of `nnmpq.search.scores.SCORES`; the experiment's if it has one.
        score_images: training images that scores are measured on, the classes in the same shares.

    Example:
        >>> from nnmpq.data import load
        >>> experiment = Experiment("X", arch="resnet_digits", dataset="digits", validation_images=200)
        >>> SearchTask(experiment, load("digits"), Budget(mean_bits=3.0), Path("runs/X")).network
        'resnet_digits'
    """

    experiment: Experiment
    data: DataSet
    budget: Budget
    folder: Path = attrs.field(converter=Path)
    seed: int = attrs.field(default=attrs.Factory(lambda self: self.experiment.seed, takes_self=True))
    resume: bool = False
    report: Callable[[Row], None] = _nowhere
    deadline: float | None = None
    steps: int | None = None
    machine: Machine = attrs.field(factory=Machine)
    weight_widths: tuple[int, ...] = attrs.field(default=_from_experiment("weight_widths", WIDTHS), validator=_widths)
    activation_widths: tuple[int, ...] = attrs.field(
        default=_from_experiment("activation_widths", WIDTHS), validator=_widths
    )
    score: str = attrs.field(default=_from_experiment("score", "kl"))
    score_images: int = attrs.field(default=_from_experiment("score_images", 512), validator=attrs.validators.ge(1))

    @property
    def network(self) -> str:
        """Name of the network."""
        return self.experiment.arch

    def widths(self, network: Network) -> dict[str, tuple[int, ...]]:
        """Return the widths that each site may get; those that `keep` decides, or that stay float, are left out."""
        kept = self.kept(network)
        found = {}
        for site in network.sites():
            if site.role == ACTIVATION and site.kind not in self.experiment.activation_sites:
                continue
            if site.name not in kept:
                given = self.activation_widths if site.role == ACTIVATION else self.weight_widths
                found[site.name] = tuple(sorted({max(bits, narrowest(site)) for bits in given}))
        return found

    def kept(self, network: Network) -> dict[str, int]:
        """Return the bits of the sites that `keep` decides, 32 for float."""
        return kept_bits(self.experiment, network)


def kept_bits(experiment: Experiment, network: Network) -> dict[str, int]:
    """Return the bits of the sites that an experiment's `keep` decides, 32 for float.

    Args:
        experiment: its `keep` and `activation_sites`.
        network: the network.

    Raises:
        ConfigError: a pattern fits no site; the nearest is named.
    """
    patterns = Patterns(experiment.keep)
    try:
        patterns.check(network)
    except ValueError as error:
        raise ConfigError(f"{experiment.name}: {error}") from error
    found = {}
    for site in network.sites():
        bits = patterns.bits(site)
        # A float activation of a kind that nobody quantizes does not count in KiB, as in training.
        uncounted = site.role == ACTIVATION and site.kind not in experiment.activation_sites and bits == FLOAT_BITS
        if bits is not None and not uncounted:
            found[site.name] = bits
    return found


def network_of(experiment: Experiment, shape: Sequence[int], classes: int) -> Network:
    """Return an experiment's network without keeping a parameter of it.

    Args:
        experiment: the architecture and its keys.
        shape: of an image, (C, H, W).
        classes: number of classes.

    Example:
        >>> len(network_of(Experiment("X", arch="resnet50"), (3, 224, 224), 1000).layers)
        54
    """
    options = {key: getattr(experiment, key) for key in ARCHITECTURES[experiment.arch] if key != "auxiliary"}
    with nn.parameter_scope("", scope=OrderedDict()), nn.auto_forward(False):
        logits = build(experiment.arch, nn.Variable((1, *shape)), classes, test=True, seed=experiment.seed, **options)
        return trace(logits)


def narrowest(site: Site) -> int:
    """Return the fewest bits that a site can get: 2 where a grid around zero needs them, 1 for weights by sign * mean.

    Example:
        >>> narrowest(Site("fc/W", "weight", "affine", (2, 3), True))
        1
    """
    return 1 if site.role == WEIGHT or (site.role == ACTIVATION and not site.signed) else 2


def quantizer_name(site: Site, bits: int) -> str:
    """Return the quantizer of a site at these bits: uniform with a learned range, sign * mean for 1-bit weights.

    Raises:
        ValueError: the site cannot have so few bits.
    """
    if bits < narrowest(site):
        raise ValueError(f"{site.name}: {bits} bit is less than the {narrowest(site)} that it needs")
    if bits >= FLOAT_BITS:
        return "float"
    return "sign_mean" if bits == 1 and site.role == WEIGHT else "uniform_b_xmax"


def make_policy(
    task: SearchTask,
    network: Network,
    bits: Mapping[str, int],
    method: str,
    quantizers: Mapping[str, str] | None = None,
) -> Policy:
    """Return the policy of these bits, and of what `keep` decides; weights and biases without any stay float.

    Args:
        task: what was asked for.
        network: the network.
        bits: by site name; activations that are not named stay float and do not count.
        method: what found them.
        quantizers: registered names by site, where they are not `quantizer_name`'s.

    Returns:
        The policy, with its cost; whether that meets the budget is the caller's to see to.
    """
    sites = policy_sites(network, {**task.kept(network), **bits}, quantizers)
    return Policy(
        network=task.network,
        method=method,
        seed=task.seed,
        budget=task.budget.limits(),
        cost=policy_cost(network, sites),
        sites=sites,
    )


def policy_sites(
    network: Network, bits: Mapping[str, int], quantizers: Mapping[str, str] | None = None
) -> dict[str, SitePolicy]:
    """Return a policy's entries: every weight and bias, and the activations that have bits."""
    sites = {}
    for site in network.sites():
        if site.name not in bits and site.role == ACTIVATION:
            continue
        width = int(bits.get(site.name, FLOAT_BITS))
        name = (quantizers or {}).get(site.name) or quantizer_name(site, width)
        sites[site.name] = SitePolicy(site.role, width, name, site.signed or site.role in (WEIGHT, BIAS))
    return sites


def policy_cost(network: Network, sites: Mapping[str, SitePolicy]) -> dict[str, float]:
    """Return what a policy's entries cost, by the cost's names."""
    used = cost(network, {name: site.bits for name, site in sites.items()})
    return {name: float(value) for name, value in attrs.asdict(used).items()}
